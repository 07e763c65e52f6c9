"""What was printed, as pages and as a stream of events; both read the store, a stream whenever a commit has lines."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Annotated

import msgspec
from litestar import Response
from litestar.params import QueryParameter
from litestar.response import Stream

from treadle.model.api import LogLine, LogPage
from treadle.model.errors import InvalidInput
from treadle.model.ids import iso
from treadle.model.log import NAMES, Chunk
from treadle.server.bridge import Bridge
from treadle.server.requests import AnyRequest

MAX_LINES = 10_000
CHUNKS = 100  # read at once: a slow reader is waited for, and nobody else
QUIET_SECONDS = 15.0  # of silence, then a comment shows that the stream lives
CURSOR = re.compile(r"(\d{1,18})(?:\.(\d{1,6}))?")
EVENTS = "text/event-stream"
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
_encode = msgspec.json.Encoder().encode

Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LINES, description="Lines at most.")]
Read = Callable[[int, int], list[Chunk]]  # of chunks from a number on, at most so many


class Cursor(msgspec.Struct, frozen=True):
    """The next line to read: the number of its chunk, and its place in it."""

    seq: int = 0
    place: int = 0

    def __str__(self) -> str:
        return f"{self.seq}.{self.place}"


def cursor_of(text: str) -> Cursor:
    """Raises InvalidInput unless it is "" or one of ours."""
    match = CURSOR.fullmatch(text or "0")
    if match is None:
        raise InvalidInput(f"cursor={text[:64]!r} is not one of ours.", "Use the `next` of a page, or an event's id.")
    return Cursor(int(match[1]), int(match[2] or 0))


class Source(msgspec.Struct, frozen=True):
    """A log to read: of the task, container or deployment with this id. `over`: nothing will be added to it.

    `told` makes an event of what else followers are told, kind and text; `known` is what they would have been told.
    """

    topic: str
    read: Read
    over: Callable[[], bool]
    told: Callable[[str, str], bytes] | None = None
    known: Callable[[], list[tuple[str, str]]] = list


def answer(
    request: AnyRequest, source: Source, bridge: Bridge, cursor: str, limit: int
) -> Response[LogPage] | Stream:
    """A page, or for who accepts them a stream of events that ends with the log."""
    if EVENTS in request.headers.get("accept", ""):
        start = cursor_of(cursor or request.headers.get("last-event-id", ""))
        return Stream(events(source, bridge, start), media_type=EVENTS, headers=HEADERS)
    return Response(page(source, cursor_of(cursor), limit))


def page(source: Source, cursor: Cursor, limit: int) -> LogPage:
    over = source.over()  # asked before the lines are read: those of the end are there by then
    found: list[LogLine] = []
    while len(found) < limit:
        chunks = source.read(cursor.seq, CHUNKS)
        for line, after in _lines(chunks, cursor):
            found.append(line)
            cursor = after
            if len(found) == limit:
                return LogPage(found, str(cursor))
        if len(chunks) < CHUNKS:
            return LogPage(found, "" if over else str(cursor))
    return LogPage(found, str(cursor))


async def events(source: Source, bridge: Bridge, cursor: Cursor) -> AsyncIterator[bytes]:
    """Server-sent events: `line` for each line, with the cursor of what follows as its id, then `end`."""
    follower = bridge.followers.add(source.topic)
    for kind, text in source.known():
        follower.note(kind, text)
    try:
        while True:
            follower.news.clear()
            over = source.over()
            chunks = source.read(cursor.seq, CHUNKS)
            data = bytearray()
            for line, after in _lines(chunks, cursor):
                data += b"id: %s\n" % str(after).encode() + event("line", _encode(line))
                cursor = after
            if source.told and len(chunks) < CHUNKS:
                data += b"".join([source.told(kind, text) for kind, text in follower.take_notes()])
            if data:
                yield bytes(data)
            if len(chunks) == CHUNKS:
                continue
            if over:
                yield event("end", b"{}")
                return
            if not await _set_within(follower.news, QUIET_SECONDS):
                yield b": still here\n\n"
    finally:
        bridge.followers.remove(source.topic, follower)


def event(kind: str, data: bytes) -> bytes:
    """A server-sent event; its data is one line."""
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), data)


async def _set_within(news: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await news.wait()
    except TimeoutError:
        return False


def _lines(chunks: list[Chunk], start: Cursor) -> list[tuple[LogLine, Cursor]]:
    """The lines from a cursor on, each with the cursor of the one after it."""
    found = []
    for chunk in chunks:
        skipped = start.place if chunk.seq == start.seq else 0
        for place, line in enumerate(chunk.lines[skipped:], skipped + 1):
            shown = LogLine(
                iso(line.at), NAMES[line.stream], line.text, chunk.task_id, chunk.attempt, chunk.container_id
            )
            after = Cursor(chunk.seq, place) if place < len(chunk.lines) else Cursor(chunk.seq + 1)
            found.append((shown, after))
    return found
