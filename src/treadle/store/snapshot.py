"""A copy of a database as it is at one moment, while its server goes on writing to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

STEP = 1024  # pages
BUSY_MILLISECONDS = 10_000


def copy_whole(source: apsw.Connection, target: Path) -> None:
    """Copy the database of a connection with what is in its log; the target is seen when it is whole and on disk.

    What others commit meanwhile is not in it.

    Raises:
        OSError, apsw.Error: nothing is left of the copy.
    """
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        with _one_moment(source):
            _copy_pages(source, part)
        onto_disk(part)
        part.replace(target)
        onto_disk(target.parent)
    finally:
        part.unlink(missing_ok=True)


def copy_file(source: Path, target: Path) -> None:
    """The same of a file, for the process that has it open or nobody else."""
    connection = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        copy_whole(connection, target)
    finally:
        connection.close()


@contextmanager
def _one_moment(connection: apsw.Connection) -> Iterator[None]:
    """Without it a copy begins again whenever another connection commits, and never ends on a busy server."""
    connection.execute("BEGIN")
    try:
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()  # what takes the snapshot
        yield
    finally:
        connection.execute("ROLLBACK")


def _copy_pages(source: apsw.Connection, part: Path) -> None:
    target = apsw.Connection(str(part))
    try:
        part.chmod(0o600)
        target.pragma("synchronous", "off")  # it is synced once, when it is whole
        target.pragma("journal_mode", "off")
        with target.backup("main", source, "main") as backup:
            while not backup.done:
                backup.step(STEP)
    finally:
        target.close()


def onto_disk(path: Path) -> None:
    """Have a file, or the names in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
