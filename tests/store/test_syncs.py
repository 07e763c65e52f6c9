"""A copy of the database is on the disk, with its name, before anything rests on it."""

from __future__ import annotations

import sys
from pathlib import Path

import apsw
import pytest

from treadle.store.schema import copy_of
from treadle.store.snapshot import copy_file
from treadle.store.sqlite import SqliteStore

from . import past
from .syncs import recorded

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="file handles have names in Linux's /proc")


def test_a_copy_is_synced_then_named_then_its_folder_is_synced(tmp_path: Path) -> None:
    """After a power cut there is the whole copy or none; and when it was told of, it is there."""
    source, target = tmp_path / "treadle.db", tmp_path / "copy" / "treadle.db"
    past.with_rows(past.NEWEST, source)
    target.parent.mkdir()
    with recorded() as order:
        copy_file(source, target)
        order.note("told")
    assert order.is_on_disk_before(target, target.stat().st_size, [target.parent], ("told", Path()))


def test_the_copy_of_an_upgrade_is_on_disk_before_the_first_script_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut during the upgrade leaves what the upgrade began with, whatever becomes of the database."""
    path = tmp_path / "treadle.db"
    past.with_rows(7, path)
    copy = copy_of(path, 7)
    with recorded() as order:

        def trace(_cursor: apsw.Cursor, statement: str, _bindings: object) -> bool:
            if "ALTER TABLE token" in statement:
                order.note("script")
            return True

        monkeypatch.setattr(apsw, "connection_hooks", [lambda connection: setattr(connection, "exec_trace", trace)])
        SqliteStore.open(path).close()
    assert order.is_on_disk_before(copy, copy.stat().st_size, [tmp_path], ("script", Path()))
