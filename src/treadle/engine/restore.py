"""Puts a backup into a data folder: everything is read and checked before the first thing is replaced."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import BinaryIO

import msgspec

from treadle.blob.disk import SEGMENT
from treadle.engine.archive import ADVICE, Head, Sums, Told, unpack
from treadle.engine.assemble import BLOB_FOLDER, DATABASE, RESTORE_STAGE, RESTORING
from treadle.engine.backup import BESIDE, BLOBS
from treadle.model.errors import Conflict, InvalidInput
from treadle.store import soundness
from treadle.store.inventory import Inventory, inventory
from treadle.store.schema import known_scripts
from treadle.store.snapshot import onto_disk

LOGS = (f"{DATABASE}-wal", f"{DATABASE}-shm")  # of the database before


class Restored(msgspec.Struct, frozen=True):
    """What was put there."""

    head: Head
    missing: list[str]
    held: Inventory


def check(file: BinaryIO, told: Told) -> tuple[Head, Sums]:
    """Read a backup from its beginning to its end.

    Raises:
        InvalidInput: it is not as it was written.
    """

    def nowhere(name: str) -> None:
        _place(Path(), name)

    return unpack(file, nowhere, told)


def restore(file: BinaryIO, data: Path, told: Told, *, force: bool) -> Restored:
    """Make a data folder what it was when the backup was taken. For the process that has the folder.

    What a backup does not hold stays: volumes, images, credentials. `force`: replace a database that is there.

    Raises:
        Conflict: there is a database.
        InvalidInput: the backup is damaged, or of a newer Treadle; nothing was changed.
    """
    there = next((data / name for name in (DATABASE, LOGS[0]) if (data / name).exists()), None)
    if there and not force and not (data / RESTORING).exists():
        raise Conflict(f"{there} exists.", "Restore into another folder (--data), or replace it with --force.")
    stage = data / RESTORE_STAGE  # on the disk that it goes to
    shutil.rmtree(stage, ignore_errors=True)  # of a restore that was killed
    try:
        head, sums = unpack(file, lambda name: _place(stage, name), told)
        held = _checked(stage / DATABASE, head)
        _exchange(stage, data)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return Restored(head, sums.missing, held)


def _place(stage: Path, name: str) -> Path:
    """Where a member goes; names are not trusted.

    Raises:
        InvalidInput: a backup has no such member.
    """
    if name in (DATABASE, *BESIDE):
        return stage / name
    segments = name.removeprefix(BLOBS).split("/")
    if name.startswith(BLOBS) and all(re.fullmatch(SEGMENT, one) and one.strip(".") for one in segments):
        return stage.joinpath(BLOB_FOLDER, *segments)
    raise InvalidInput(f"The backup holds {name[:200]!r}, which does not belong there.", ADVICE)


def _checked(database: Path, head: Head) -> Inventory:
    if not database.exists():
        raise InvalidInput("The backup holds no database.", ADVICE)
    newest = len(known_scripts())
    if head.schema > newest:
        what = f"The backup has schema version {head.schema}; this Treadle knows versions up to {newest}."
        raise InvalidInput(what, f"Install Treadle {head.treadle}, which made it, or a newer one.")
    if found := soundness.faults(database):
        raise InvalidInput(f"The database in the backup is damaged: {found[0]}.", ADVICE)
    return inventory(database)


def _exchange(stage: Path, data: Path) -> None:
    """From here on there is no way back but to restore again; a server does not start before that was done."""
    (data / RESTORING).touch()
    onto_disk(data)
    for name in (DATABASE, *LOGS):
        (data / name).unlink(missing_ok=True)
    shutil.rmtree(data / BLOB_FOLDER, ignore_errors=True)
    for path in sorted(stage.iterdir()):
        path.replace(data / path.name)
    for folder, _, _ in os.walk(data / BLOB_FOLDER):
        onto_disk(Path(folder))
    onto_disk(data)
    (data / RESTORING).unlink()
    onto_disk(data)
