"""Reads in a write-ahead log what SQLite does not tell: whether commits lie behind a place that cannot be read.

The format: https://sqlite.org/walformat.html. SQLite takes the first frame that it cannot read for the log's end.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import BinaryIO, NamedTuple

HEADER = struct.Struct(">8I")  # magic, format, page size, number of the checkpoint, two salts, two checksums
FRAME = struct.Struct(">4I")  # page, size of the database if it commits, two salts; two checksums follow
FRAME_HEAD = 24  # bytes before the page
FIRST = 100  # bytes of page 1 that describe the database
MAGIC = {0x377F0682: "<", 0x377F0683: ">"}  # the order of bytes that checksums are computed in
GOOD_FRAMES = slice(16, 20)  # in the index beside the log: how many frames can be read
TORN = 1  # commits that a machine without power leaves behind the end: each is synced before the next begins


def log_of(path: Path) -> Path:
    """The write-ahead log of a database."""
    return path.with_name(f"{path.name}-wal")


def holds_frames(path: Path) -> bool:
    """Whether a database has a write-ahead log with anything in it."""
    log = log_of(path)
    return log.is_file() and log.stat().st_size > HEADER.size


def damage(path: Path) -> str:
    """What is wrong with the log of a database that a connection has begun to read; "" if nothing is."""
    with log_of(path).open("rb") as log:
        if (frames := _frames(path, log)) is None:
            return "its first 32 bytes are not as they were written"
        lost = _commits(log, frames)
    return f"it cannot be read at byte {frames.end}, and {lost} commits lie behind" if lost > TORN else ""


def first_page(path: Path) -> bytes:
    """The beginning of the newest page 1 in the log, asked as `damage` is; b"" if it has none."""
    with log_of(path).open("rb") as log:
        frames = _frames(path, log)
        newest = b""
        for at in range(HEADER.size, frames.end if frames else 0, frames.size if frames else 1):
            if FRAME.unpack(_read(log, at, FRAME.size))[0] == 1:
                newest = _read(log, at + FRAME_HEAD, FIRST)
    return newest


class _Frames(NamedTuple):
    """Frames of `size` bytes each; those before `end` can be read. All of this round have these salts."""

    size: int
    end: int
    salts: list[int]


def _frames(path: Path, log: BinaryIO) -> _Frames | None:
    """None if the header is damaged."""
    header = _read(log, 0, HEADER.size)
    magic, _, page, _, *salts, first, second = HEADER.unpack(header)
    if magic not in MAGIC or _sum(header[:24], MAGIC[magic]) != (first, second):
        return None
    index = path.with_name(f"{path.name}-shm").read_bytes()
    good = int.from_bytes(index[GOOD_FRAMES], sys.byteorder)
    return _Frames(FRAME_HEAD + page, HEADER.size + good * (FRAME_HEAD + page), salts)


def _commits(log: BinaryIO, frames: _Frames) -> int:
    """Commits behind the end; what is left of an earlier round, which this one writes over, has other salts."""
    at, found = frames.end, 0
    while len(frame := _read(log, at, FRAME.size)) == FRAME.size:
        _, commits, *salts = FRAME.unpack(frame)
        found += commits > 0 and salts == frames.salts
        at += frames.size
    return found


def _read(log: BinaryIO, at: int, size: int) -> bytes:
    log.seek(at)
    return log.read(size)


def _sum(data: bytes, order: str) -> tuple[int, int]:
    """The checksum of the format: a Fibonacci-weighted sum over words of 32 bits."""
    first = second = 0
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for one, two in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + two + first) & 0xFFFFFFFF
    return first, second
