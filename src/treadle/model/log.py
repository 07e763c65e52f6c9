"""What tasks and containers print: lines with their time and stream, and how much of it is kept."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

import msgspec

MAX_LINE = 16 * 1024  # bytes of UTF-8; of a longer line the rest is cut
KEPT_LINES = 10_000  # of an attempt; of a container's own words the last so many
KEPT_BYTES = 1024 * 1024  # of the same
LINES_PER_SECOND = 1000.0  # of an attempt, once it has printed LINES_AT_ONCE
LINES_AT_ONCE = 5000
NOTE = 256  # characters that a remark adds to a line


class Stream(IntEnum):
    """Where a line was printed to; NOTES are Treadle's own remarks."""

    NOTES = 0
    STDOUT = 1
    STDERR = 2


NAMES = {Stream.NOTES: "treadle", Stream.STDOUT: "stdout", Stream.STDERR: "stderr"}


When = Annotated[float, msgspec.Meta(ge=0, le=253_402_300_799)]  # Unix seconds up to the year 9999: what can be told


class Line(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A line without its end. `at` is when it was read, in Unix seconds."""

    at: When
    stream: Stream
    text: Annotated[str, msgspec.Meta(max_length=MAX_LINE + NOTE)]


class Extent(msgspec.Struct, frozen=True):
    """How much an attempt or a container has printed that was kept: lines, and bytes as they are stored."""

    lines: int = 0
    size: int = 0


class NewChunk(msgspec.Struct, frozen=True):
    """Lines to store, counted in `upto`. `task_seq` None: the container's own, printed while it started or later."""

    container_id: str
    task_seq: int | None
    attempt: int
    starting: bool
    upto: Extent
    body: bytes  # of `pack`


class Chunk(msgspec.Struct, frozen=True):
    """Lines as they are stored. `seq` grows in the order of arrival; `task_id` is "" for a container's own."""

    seq: int
    task_id: str
    attempt: int
    container_id: str
    lines: list[Line]


pack = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.Decoder(list[Line]).decode
