"""The data folder: what is in it is for nobody else to read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from .inside import Inside


@pytest.mark.parametrize("before", [False, True], ids=["new", "written by an older server"])
def test_the_database_is_closed_to_others(tmp_path: Path, before: bool) -> None:
    """Also where somebody made the folder before and lets all look into it; and so are its journals, and old copies."""
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o755)
    umask = os.umask(0o022)
    try:
        if before:
            Inside(data).close()
            (data / "treadle.db.schema-1").touch()
            for file in data.glob("treadle.db*"):
                file.chmod(0o644)
        server = Inside(data)
        try:
            modes = {file.name: oct(stat.S_IMODE(file.stat().st_mode)) for file in data.glob("treadle.db*")}
        finally:
            server.close()
    finally:
        os.umask(umask)
    assert {"treadle.db", "treadle.db-wal", "treadle.db-shm"} <= modes.keys()
    assert set(modes.values()) == {"0o600"}, modes
    assert stat.S_IMODE(data.stat().st_mode) == 0o755, "it is not ours to close"
