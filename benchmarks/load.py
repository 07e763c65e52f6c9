"""A load generator: N kept-alive connections, each with one request under way, as cheap as Python can make it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

import uvloop


class Connection(asyncio.Protocol):
    """Sends the same request again as soon as it is answered, until the budget is used up."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._next()

    def _next(self) -> None:
        assert self._transport is not None
        if self._load.left <= 0:
            self._transport.close()
            self._load.closed()
            return
        self._load.left -= 1
        self._sent_at = time.perf_counter()
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        at = head.index(b"content-length:") + 15
        end = head.find(b"\r\n", at)
        size = int(head[at : end if end > 0 else None])
        if len(self._buffer) < head_end + 4 + size:
            return
        if not self._buffer.startswith(b"HTTP/1.1 200"):
            sys.exit(f"load: {self._buffer[:300]!r}")
        self._buffer = b""
        self._load.took.append(time.perf_counter() - self._sent_at)
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            sys.exit(f"load: connection lost: {exc}")


class Load:
    """`count` requests over `connections` to one path of a server."""

    def __init__(self, host: str, port: int, request: bytes, count: int, connections: int) -> None:
        self.host, self.port, self.request = host, port, request
        self.left = count
        self.took: list[float] = []
        self._open = connections
        self._connections = connections
        self._done = asyncio.Event()

    def closed(self) -> None:
        self._open -= 1
        if not self._open:
            self._done.set()

    async def run(self) -> tuple[float, float]:
        """When the first request left and the last answer came (perf_counter)."""
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        for _ in range(self._connections):
            await loop.create_connection(lambda: Connection(self), self.host, self.port)
        await self._done.wait()
        return began, time.perf_counter()


def request(host: str, port: int, path: str, token: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def main() -> None:
    """Read one JSON object of arguments from the command line; print one with the figures."""
    asked = json.loads(sys.argv[1])
    body = asked["body"].encode()
    raw = request(asked["host"], asked["port"], asked["path"], asked["token"], body)

    async def go() -> None:
        load = Load(asked["host"], asked["port"], raw, asked["count"], asked["connections"])
        began, ended = await load.run()
        took = sorted(load.took)
        print(
            json.dumps(
                {
                    "seconds": ended - began,
                    "rate": asked["count"] / (ended - began),
                    "p50_ms": took[len(took) // 2] * 1000,
                    "p99_ms": took[min(len(took) - 1, len(took) * 99 // 100)] * 1000,
                }
            )
        )

    uvloop.run(go())


if __name__ == "__main__":
    main()
