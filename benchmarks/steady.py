"""A load of so many requests a second, whatever happens to the server; tells each few seconds how they were answered.

A request is due at its time, and its latency counts from then: one that waits for a connection waits for the server.
"""

from __future__ import annotations

import asyncio
import collections
import json
import sys
import time
from collections.abc import Callable
from typing import Any, cast

import uvloop

from benchmarks.load import percentile, request
from benchmarks.wire import whole

ONE_OF = 100  # accepted tasks is told by its id, to be looked after
TICK = 0.005  # seconds between looks at what is due
AGAIN = 0.05  # seconds before another try to connect
LATE = 30.0  # seconds of requests that may wait for the server; more are not sent


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, done: Callable[[Connection, int, bytes], None], lost: Callable[[Connection], None]) -> None:
        self._done, self._lost = done, lost
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self.due = 0.0  # of the request under way; 0 when there is none

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, data: bytes, due: float) -> None:
        assert self._transport is not None
        self.due = due
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if (answer := whole(self._buffer)) is not None:
            self._buffer = b""
            self._done(self, *answer)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._lost(self)


class Steady:
    """`rate` requests a second for `seconds`, over at most `connections`; a line of JSON every `window` seconds."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self._asked = asked
        self._request = request(asked["host"], asked["port"], asked["path"], asked["token"], asked["body"].encode())
        self._idle: list[Connection] = []
        self._due: collections.deque[float] = collections.deque()
        self._took: list[float] = []
        self._counts: collections.Counter[str] = collections.Counter()
        self._accepted = 0
        self._told: list[str] = []

    async def run(self) -> None:
        for _ in range(self._asked["connections"]):
            self._connect()
        began = window = time.perf_counter()
        made = 0
        while (now := time.perf_counter()) < began + self._asked["seconds"]:
            while made < (now - began) * self._asked["rate"]:
                self._due.append(began + made / self._asked["rate"])
                made += 1
            self._send(now)
            if now >= window + self._asked["window"]:
                self._tell()
                window = now
            await asyncio.sleep(TICK)
        self._tell()

    def _send(self, now: float) -> None:
        while self._due and self._due[0] < now - LATE:
            self._due.popleft()
            self._counts["not sent"] += 1
        while self._due and self._idle:
            self._idle.pop().send(self._request, self._due.popleft())

    def _connect(self) -> None:
        asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                _, connection = await loop.create_connection(
                    lambda: Connection(self._done, self._lost), self._asked["host"], self._asked["port"]
                )
            except OSError:
                await asyncio.sleep(AGAIN)
            else:
                self._idle.append(connection)
                return

    def _done(self, connection: Connection, status: int, body: bytes) -> None:
        self._counts[str(status)] += 1
        self._accepted += status == 200
        if status == 200 and not self._accepted % ONE_OF:
            self._told.append(json.loads(body)["task_id"])
        self._took.append(time.perf_counter() - connection.due)
        connection.due = 0.0
        if self._due:
            connection.send(self._request, self._due.popleft())
        else:
            self._idle.append(connection)

    def _lost(self, connection: Connection) -> None:
        if connection.due:
            self._counts["cut off"] += 1
        elif connection in self._idle:
            self._idle.remove(connection)
        self._connect()

    def _tell(self) -> None:
        took, self._took = self._took or [0.0], []
        counts, self._counts = self._counts, collections.Counter()
        told, self._told = self._told, []
        times = {f"p{share}": percentile(took, share / 100) * 1000 for share in (50, 99)}
        said = {"counts": counts, "ids": told, **times}
        print(json.dumps(said), flush=True)


def main() -> None:
    """Read one JSON object of arguments from the command line."""
    uvloop.run(Steady(json.loads(sys.argv[1])).run())


if __name__ == "__main__":
    main()
