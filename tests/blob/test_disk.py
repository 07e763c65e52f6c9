"""What concerns blobs on a disk alone: that it can be full."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from treadle.blob.disk import DiskBlob
from treadle.model.errors import NoSpace


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is Linux's")
def test_a_full_disk_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that does not fit is refused with what to do, at the write or at the commit, and leaves no blob."""
    blob = DiskBlob(tmp_path)

    def on_a_full_disk(dir: Path) -> tuple[int, str]:  # noqa: A002
        (dir / "part").touch()
        return os.open("/dev/full", os.O_WRONLY), str(dir / "part")

    monkeypatch.setattr(tempfile, "mkstemp", on_a_full_disk)
    for chunk in (b"x" * 100_000, b"x"):
        upload = blob.start("outputs/a")
        with pytest.raises(NoSpace, match="Make room"):
            upload.write(chunk)
            upload.commit()
        upload.abort()
        assert blob.size("outputs/a") is None
    assert not list((tmp_path / ".incoming").iterdir())
