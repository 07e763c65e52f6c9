"""Refuses a database file that is damaged, before anything is written to it: what is told is what to do about it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import apsw

from treadle.model.errors import TreadleError
from treadle.store import wal

MAGIC = b"SQLite format 3\0"
HEADER = 100  # bytes
START_SECONDS = 1.0  # for the look at a start: enough for a million tasks, and for a part of more
STEPS = 1000  # of SQLite, between two looks at the clock
MAX_TOLD = 100
CHANGES = slice(24, 28)  # in page 1: how often it was changed
OWNER = "SELECT external_id FROM workspace ORDER BY id LIMIT 1"
STRANGE = (
    "If the database was copied here, remove the log, which lay beside another one; "
    "else bring a backup back with `treadle restore FILE --force`."
)
RESTORE = "Bring a backup back with `treadle restore FILE --force`; `treadle verify` tells more."


def damaged(path: Path, what: str) -> TreadleError:
    """The error for a database that cannot be trusted any more."""
    return TreadleError(f"{path} is damaged: {what}.", f"Stop the server. {RESTORE}")


def check_at_start(path: Path, seconds: float = START_SECONDS) -> None:
    """Look at a database that nobody has open, reading for at most so many seconds and writing nothing to it.

    Raises:
        TreadleError: it is no database, its pages contradict each other, its log is damaged or of another one.
    """
    _check_file(path)
    if not path.is_file() or not path.stat().st_size:
        return  # a new one
    found = faults(path, seconds)
    if wal.holds_frames(path):
        strange = _strange_log(path)
        if found and not faults(path, seconds, alone=True):
            strange = strange or f"together they are damaged ({found[0]}), without it the database is whole"
        if strange:
            raise TreadleError(f"{wal.log_of(path)} does not belong to {path}: {strange}.", STRANGE)
    if found:
        raise damaged(path, found[0])


def _strange_log(path: Path) -> str:
    """What shows that a log is of another database, or of an earlier time of this one; "" if nothing does.

    Page 1 counts how often it was changed, and no database here becomes smaller without changing it.
    """
    try:
        with reading(path) as whole, reading(path, alone=True) as alone:
            pages, page = whole.pragma("page_count"), whole.pragma("page_size")
            logged = wal.first_page(path)
            behind = _counter(logged) - _counter(_header(path)) if logged else 0
            if behind < 0 or (behind == 0 and path.stat().st_size > pages * page):
                return "it is of an earlier time than the database"
            owner = _owner(alone)
            return "it is of another database" if owner and owner != _owner(whole) else ""
    except apsw.Error:
        return ""  # damage, which is told as such


def _owner(connection: apsw.Connection) -> str:
    """Whose database it is; "" before the first start has made a workspace, or if it is no database of Treadle's."""
    try:
        found = connection.execute(OWNER).fetchall()
    except apsw.SQLError:
        return ""
    return str(found[0][0]) if found else ""


def _counter(first_page: bytes) -> int:
    return int.from_bytes(first_page[CHANGES], "big")


def faults(path: Path, seconds: float | None = None, *, alone: bool = False, full: bool = False) -> list[str]:
    """What SQLite finds wrong, and its log's damage; at most MAX_TOLD, none if the time is over before it finds any.

    `alone`: without its write-ahead log. `full`: whether indexes and tables agree too.
    """
    found: list[str] = []
    try:
        with reading(path, alone=alone) as connection:
            if seconds is not None:
                end = time.monotonic() + seconds
                connection.set_progress_handler(lambda: time.monotonic() > end, STEPS)
            with suppress(apsw.InterruptError):
                check = connection.execute(f"PRAGMA {'integrity_check' if full else 'quick_check'}({MAX_TOLD})")
                found += [_line(text) for (text,) in check if text != "ok"]
            if not alone and wal.holds_frames(path) and (said := wal.damage(path)):
                found.append(f"in {wal.log_of(path).name}, {said}")
    except apsw.Error as error:
        found.append(_line(str(error)))
    return found


@contextmanager
def reading(path: Path, *, alone: bool = False) -> Iterator[apsw.Connection]:
    """A connection that changes nothing of a database and of its log, and that nobody else has open.

    Raises:
        TreadleError: it cannot be read.
    """
    # `immutable` reads the file alone, and makes no file beside it: where there is no log, or it is to be left out
    untouched = alone or not wal.holds_frames(path)
    name = f"file:{quote(str(path))}?mode=ro{'&immutable=1' if untouched else ''}"
    try:
        connection = apsw.Connection(name, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    except apsw.CantOpenError as error:
        raise TreadleError(f"{path} cannot be read: {error}.", "Check its permissions.") from error
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        yield connection
    finally:
        connection.close()


def _check_file(path: Path) -> None:
    """What the files themselves show, without SQLite, which begins anew over an empty file and drops its log."""
    log = wal.log_of(path)
    size = path.stat().st_size if path.is_file() else 0
    if not size and wal.holds_frames(path):
        state = "is empty" if path.is_file() else "is missing"
        what = f"{path} {state}, but its write-ahead log {log.name} is there."
        raise TreadleError(what, f"Put it back. {RESTORE}")
    if not size:
        return
    if not _header(path).startswith(MAGIC):
        raise TreadleError(f"{path} is not an SQLite database (any more).", RESTORE)


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEADER)


def _line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")
