"""What is done to a data folder that no server uses, for the command line: it is locked meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from treadle import __version__
from treadle.engine import audit, backup, restore
from treadle.engine.archive import Archive, Head, Sums, Told, is_one
from treadle.engine.assemble import look_at_blob, open_blob
from treadle.engine.audit import Audit
from treadle.engine.restore import Restored
from treadle.server.folder import Lock

__all__ = ["Archive", "Audit", "Head", "Restored", "Sums", "check_backup", "restore_backup", "taken_backup", "verify"]


@contextmanager
def _locked(data: Path) -> Iterator[None]:
    lock = Lock(data)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def taken_backup(data: Path) -> Iterator[Archive]:
    """A backup of the folder, to be written while this lasts.

    Raises:
        Conflict: a server uses the folder.
        TreadleError: its database is damaged.
    """
    with _locked(data):
        taken = backup.take(data, open_blob(data), time.time(), __version__)
        try:
            yield taken.archive
        finally:
            taken.remove()


def looks_like_backup(path: Path) -> bool:
    """Whether a file begins as backups do; it may be damaged further on."""
    with path.open("rb") as file:
        return is_one(file)


def check_backup(file: BinaryIO, told: Told) -> tuple[Head, Sums]:
    """Read a backup to its end. Raises InvalidInput if it is not as it was written."""
    return restore.check(file, told)


def restore_backup(file: BinaryIO, data: Path, told: Told, *, force: bool) -> Restored:
    """Make the folder what it was when the backup was taken; see `engine.restore`."""
    with _locked(data):
        return restore.restore(file, data, told, force=force)


def verify(data: Path, tell: Callable[[str], None]) -> Audit:
    """Examine the folder; see `engine.audit`."""
    with _locked(data):
        return audit.audit(data, look_at_blob(data), tell, time.time())
