"""Connections that hold a piece back for a moment: what becomes of it when the other side is gone by then."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvloop

from treadle.server.cork import Corked


async def _write_to_a_lost_connection() -> list[dict[str, Any]]:
    """Answers what the event loop had to complain of."""
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    ours, theirs = socket.socketpair()
    with theirs:
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        corked = Corked(transport, loop)
        transport.abort()  # as when the other side resets it: the loop tells its protocol of that a turn later
        corked.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.sleep(0.05)
        corked.close()
    return complaints


def test_what_was_held_back_is_dropped_when_the_connection_is_lost_meanwhile() -> None:
    """A client that is killed while its answer is written is nobody's error, and closing is none."""
    assert uvloop.run(_write_to_a_lost_connection()) == []
