"""HTTP connections that write an answer's head and body in one piece."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

BIG = 16 * 1024  # bytes


class Corked:
    """A transport that holds a piece back until the next one, or until the end of this turn of the event loop.

    uvicorn writes the head and the body of an answer one after the other. Without Nagle's algorithm each would be a
    packet and a wake-up of the client of its own.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._pieces.append(data)
        if len(self._pieces) > 1 or len(data) > BIG:  # a big one at once, so that a slow reader is noticed
            self._flush()
        else:
            self._loop.call_soon(self._flush)

    def write_whole(self, data: bytes) -> None:
        """Write what nothing follows at once."""
        self._pieces.append(data)
        self._flush()

    def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces and not self._transport.is_closing():  # whoever waited for it may be gone by now
            self._transport.write(b"".join(pieces))

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size() + sum(map(len, self._pieces))


class CorkedHttp(HttpToolsProtocol):
    """uvicorn's protocol over such a transport; WebSockets are upgraded to over it too."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, Corked(transport, self.loop)))
