"""The one way out of a container without a network: bytes to and from the server, carried by its runner's parent.

The template listens inside, where nothing else can be reached, and hands the listening socket out; what connects to
it is joined to a connection of the parent's to the server. `client.Client` dials what TREADLE_RELAY names.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from urllib.parse import urlsplit

BLOCK = 64 * 1024
DEFAULT_PORTS = {"http": 80, "https": 443}


class Relay:
    """Joins each connection to the listener with one to the server. TLS, if there is any, passes through."""

    def __init__(self, listener: socket.socket, url: str) -> None:
        parts = urlsplit(url)
        self._listener = listener
        self._server = parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme]

    async def run(self) -> None:
        """Serve until cancelled."""
        async with await asyncio.start_server(self._join, sock=self._listener) as server:
            await server.serve_forever()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._server)
        except OSError:  # who has connected sees that nobody answers
            writer.close()
            return
        await asyncio.gather(_carry(reader, far_writer), _carry(far_reader, writer))


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, to its end."""
    with contextlib.suppress(OSError):
        while block := await reader.read(BLOCK):
            writer.write(block)
            await writer.drain()
    writer.close()
