"""One accepted WebSocket: what is queued for it leaves in frames, and who does not take it is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, cast

import msgspec
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from treadle.lines import Logger
from treadle.model.wire import MAX_FRAME, encode
from treadle.server.asgi import Scope, Send

TRY_AGAIN = 1013  # close code: call again, and repeat what was lost
MAX_UNSENT = 256 * 1024 * 1024  # bytes behind a frame that is not taken: 15 of the largest payloads, and some
MAX_PONGS = 1024 * 1024  # bytes, beside a frame
FULL = MAX_FRAME - 16  # bytes of messages in a frame: its own head takes at most 5
CLOSE_SECONDS = 10.0  # for the other side to take what is under way, and to close too
CUT = "treadle.cut"  # extension of the scope: ends the connection, whatever has not been sent
OVER = (OSError, RuntimeError)  # of a link that has ended already, as whoever reads from it is about to see
log = Logger()


class Ws(WebSocketsSansIOProtocol):
    """uvicorn's protocol, which waits for a peer that takes nothing as long as that one likes."""

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:  # its application begins in the next turn of the loop
            cast(Any, self.scope)["extensions"][CUT] = self.transport.abort

    def handle_ping(self) -> None:
        super().handle_ping()  # writes, and reading goes on
        if self.transport.get_write_buffer_size() > MAX_FRAME + MAX_PONGS:
            self.transport.abort()


class Socket:
    """Messages queued by `send` leave together. `number` is its own alone."""

    _numbers = count(1)

    def __init__(self, scope: Scope, send: Send) -> None:
        self.number = next(self._numbers)
        self._send = send
        self._cut: Callable[[], None] = scope.get("extensions", {}).get(CUT, lambda: None)
        self._queued: list[msgspec.Raw] = []
        self._unsent = 0  # bytes queued
        self._sending = False  # also while the other side does not take it
        self._wake = asyncio.Event()
        self._failed = False

    def send(self, message: Any) -> None:
        piece = encode(message)
        self._unsent += len(piece)
        self._queued.append(msgspec.Raw(piece))
        self._wake.set()
        if self._sending and self._unsent > MAX_UNSENT:
            log.warning("link cut: the other side does not read", unsent=self._unsent)
            self.fail()

    def fail(self) -> None:
        """Close the link, because something that came over it is lost: the other side calls again and repeats it."""
        self._failed = True
        self._wake.set()
        if self._sending:  # nothing more can be told
            self._queued.clear()
            self._cut()

    async def pump(self) -> None:
        """Send what is queued until cancelled, failed or cut off."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._failed:
                await self.close(TRY_AGAIN)
                return
            frames = _frames(self._queued, self._unsent)
            self._queued, self._unsent = [], 0
            self._sending = True
            try:
                for frame in frames:
                    await self._send({"type": "websocket.send", "bytes": frame})
            except OVER:
                return
            self._sending = False

    async def close(self, code: int, reason: str = "") -> None:
        """Say that it is over, to whoever listens."""
        event = {"type": "websocket.close", "code": code} | ({"reason": reason} if reason else {})
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._send(event)
        except OVER:  # or it takes too long: a TimeoutError is an OSError
            self._cut()

    def end(self) -> None:
        """Whatever is still to be sent, the connection is not held for long."""
        asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._cut)


def _frames(messages: list[msgspec.Raw], size: int) -> Iterator[bytes]:
    """Messages of so many bytes together, in frames that the other side takes: it refuses those over MAX_FRAME."""
    frame: list[msgspec.Raw] = []
    room = FULL
    for message in messages if size > FULL else ():
        length = len(memoryview(message))
        if frame and length > room:
            yield encode(frame)
            frame, room = [], FULL
        frame.append(message)
        room -= length
    yield encode(frame or messages)
