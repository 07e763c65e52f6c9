"""The power cut is one: what SQLite has synced is there afterwards, and what it has not may be gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import apsw
import pytest

from . import power

ROWS = 40


@pytest.fixture
def shim() -> Iterator[power.Shim]:
    before = apsw.vfs_names()[0]
    shim = power.Shim()
    yield shim
    apsw.set_default_vfs(before)
    shim.unregister()


def survivors(folder: Path, synchronous: str, seed: int) -> tuple[int, int]:
    """Commit rows one by one, cut the power, open again: how many rows are there, and how many writes were lost."""
    file = folder / f"{synchronous}-{seed}" / "x.db"
    file.parent.mkdir()
    writer = apsw.Connection(str(file))
    writer.pragma("journal_mode", "wal")
    writer.pragma("synchronous", synchronous)
    writer.pragma("wal_autocheckpoint", 25)
    writer.execute("CREATE TABLE row (id INTEGER PRIMARY KEY, body BLOB)")
    writer.pragma("wal_checkpoint", "full")
    for number in range(ROWS):
        writer.execute("INSERT INTO row VALUES (?, randomblob(2500))", (number,))
    copy = folder / f"cut-{synchronous}-{seed}"
    copy.mkdir()
    for part in file.parent.iterdir():  # the connection stays open: a killed process closes nothing either
        (copy / part.name).write_bytes(part.read_bytes())
    lost = power.cut(copy, Random(seed))
    reader = apsw.Connection(str(copy / "x.db"))
    try:
        assert reader.pragma("integrity_check") == "ok"
        found = [number for (number,) in reader.execute("SELECT id FROM row ORDER BY id")]
        assert found == list(range(len(found))), "a later row is there without an earlier one"
        return len(found), lost
    finally:
        reader.close()
        writer.close()


def test_all_that_was_committed_in_full_survives(shim: power.Shim, quick_folder: Path) -> None:
    """With `synchronous=full`, as the store has it, no committed row is lost, however the cut falls."""
    assert {survivors(quick_folder, "full", seed)[0] for seed in range(8)} == {ROWS}


def test_what_was_not_synced_is_lost(shim: power.Shim, quick_folder: Path) -> None:
    """With `synchronous=normal` the newest commits lie in the log unsynced, and cuts take them."""
    kept = {survivors(quick_folder, "normal", seed)[0] for seed in range(8)}
    assert min(kept) < ROWS


def test_what_is_on_its_way_to_the_disk_is_seen(shim: power.Shim, quick_folder: Path) -> None:
    """A cut can be made to fall between a write and its sync."""
    writer = apsw.Connection(str(quick_folder / "x.db"))
    seen = []
    for synchronous in ("full", "off"):
        writer.pragma("journal_mode", "wal")
        writer.pragma("synchronous", synchronous)
        writer.execute(f"CREATE TABLE {synchronous}_ (id)")
        seen.append(power.has_unsynced(quick_folder))
    writer.close()
    assert seen == [False, True]
