"""A power cut for SQLite's files: what was written and not synced is lost, or half of it is.

`Shim` is a VFS over SQLite's own that writes down, beside each file, every write, truncation and sync, in order. A cut
(`cut`, after all processes were killed) makes each file anew from what it was at the start and what was synced since;
of what came after its last sync, chance keeps or drops every sector of 512 bytes by itself. So writes get lost, torn,
and overtake one another, which is what a disk with a cache may do to them. A file that was never synced may be gone.
The index of the log in shared memory (-shm) is gone: after a real cut SQLite makes it anew.

What it does not model: sectors that are torn within, disks that lie about a sync, and other files than SQLite's.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import apsw

SECTOR = 512
HEAD = struct.Struct("<cqq")  # what was done, where, and how many bytes of data follow
WRITE, TRUNCATE, SYNC = b"W", b"T", b"S"
SYNCED = HEAD.pack(SYNC, 0, 0)
JOURNAL, BASE = ".power-journal", ".power-base"


class Done(NamedTuple):
    """One thing that was done to a file."""

    what: bytes
    at: int
    data: bytes


class Shim(apsw.VFS):
    """The default VFS of this process from now on; keep a reference to it. Main files and logs are written down."""

    def __init__(self) -> None:
        self._below = apsw.vfs_names()[0]  # the default is the first
        super().__init__("power", base=self._below, makedefault=True)

    def xOpen(self, name: object, flags: list[int]) -> apsw.VFSFile:
        return _File(self._below, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        for end in (JOURNAL, BASE):
            Path(filename + end).unlink(missing_ok=True)


class _File(apsw.VFSFile):
    def __init__(self, below: str, name: object, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name or "")
        writes = flags[0] & apsw.SQLITE_OPEN_READWRITE and path
        existed = bool(path) and Path(path).exists()
        super().__init__(below, name, flags)
        self._journal = _begin(path, existed=existed) if writes else None

    def _note(self, what: bytes, at: int = 0, data: bytes = b"") -> None:
        if self._journal is not None:
            os.write(self._journal, HEAD.pack(what, at, len(data)) + data)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._note(WRITE, offset, data)
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._note(TRUNCATE, newsize)
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self._note(SYNC)

    def xClose(self) -> None:
        super().xClose()
        if self._journal is not None:
            os.close(self._journal)


def _begin(path: str, *, existed: bool) -> int:
    """Write down what the file is now, unless that was done already, and open its journal."""
    base, journal = Path(path + BASE), Path(path + JOURNAL)
    if existed and not base.exists() and not journal.exists():
        base.write_bytes(Path(path).read_bytes())
    return os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def has_unsynced(folder: Path) -> bool:
    """Whether the last thing that was done to one of the files is another than to sync it."""
    return any(_last(journal) not in (b"", SYNCED) for journal in folder.glob(f"*{JOURNAL}"))


def _last(journal: Path) -> bytes:
    """The end of a journal, as long as a sync is."""
    with journal.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - HEAD.size))
        return file.read()


def cut(folder: Path, chance: Random) -> int:
    """The power is cut: every file of the folder that was written down becomes what a disk might hold of it.

    No process may have them open. Answers how many writes had not been synced.
    """
    unsynced = 0
    for journal in sorted(folder.glob(f"*{JOURNAL}")):
        name = journal.name.removesuffix(JOURNAL)
        file, base = folder / name, folder / (name + BASE)
        content = bytearray(base.read_bytes()) if base.exists() else None
        unsynced += _remake(file, content, list(_read(journal)), chance)
        journal.unlink()
        base.unlink(missing_ok=True)
        (folder / f"{name}-shm").unlink(missing_ok=True)
    return unsynced


def _remake(file: Path, content: bytearray | None, done: list[Done], chance: Random) -> int:
    last = max((place for place, one in enumerate(done) if one.what == SYNC), default=-1)
    kept = chance.choice((0.0, 0.5, 0.95, 1.0))
    lost = content is None and last < 0 and chance.random() >= kept
    content = content or bytearray()
    for place, one in enumerate(done):
        _apply(content, one, chance, 1.0 if place <= last else kept)
    if lost:
        file.unlink(missing_ok=True)
    else:
        file.write_bytes(content)
    return sum(one.what == WRITE for one in done[last + 1 :])


def _apply(content: bytearray, one: Done, chance: Random, kept: float) -> None:
    """Do one thing again, each of its sectors with the probability `kept`."""
    if one.what == TRUNCATE and chance.random() < kept:
        del content[one.at :]
    for start in range(0, len(one.data), SECTOR):
        if kept == 1.0 or chance.random() < kept:
            at, sector = one.at + start, one.data[start : start + SECTOR]
            content.extend(bytes(max(0, at - len(content))))
            content[at : at + len(sector)] = sector


def _read(journal: Path) -> Iterator[Done]:
    """What is in a journal; its last entry may have been cut off when its writer was killed."""
    data, at = journal.read_bytes(), 0
    while at + HEAD.size <= len(data):
        what, where, size = HEAD.unpack_from(data, at)
        at += HEAD.size
        if at + size > len(data):
            return
        yield Done(what, where, data[at : at + size])
        at += size
