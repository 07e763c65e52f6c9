"""A load generator: N kept-alive connections, each with one request under way, as cheap as Python can make it.

`run_load` starts it as a process of its own, as a client would be.
"""

from __future__ import annotations

import asyncio
import collections
import json
import subprocess
import sys
import time
from typing import Any, NamedTuple, cast

import uvloop

from benchmarks.marks import MeasureFailed
from benchmarks.place import Place
from benchmarks.wire import whole

LOAD_SECONDS = 90
KEPT = 200  # answers of which a task id is told: more than there are connections


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
        answer = whole(self._buffer)
        if answer is None:
            return
        status, body = answer
        if status != self._load.expected:
            sys.exit(f"load: {self._buffer[:300]!r}")
        self._load.answers.append(body)
        self._buffer = b""
        self._load.took.append(time.perf_counter() - self._sent_at)
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            sys.exit(f"load: connection lost: {exc}")


class Load:
    """`count` requests over `connections` to one `path` of a server, all of which shall be answered `status`."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.host, self.port = asked["host"], asked["port"]
        self.request = request(self.host, self.port, asked["path"], asked["token"], asked["body"].encode())
        self.expected: int = asked.get("status", 200)
        self.left = asked["count"]
        self.took: list[float] = []
        self.answers: collections.deque[bytes] = collections.deque(maxlen=KEPT)
        self._open = self._connections = asked["connections"]
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


class Answered(NamedTuple):
    """What a load found: times by `time.perf_counter()`, seconds per request, an id of each of the last answers."""

    began: float
    ended: float
    p50: float
    p99: float
    last_ids: list[str]


def run_load(place: Place, path: str, body: bytes, count: int, connections: int) -> Answered:
    """Send `count` requests in a process of its own and wait for its end.

    Raises:
        MeasureFailed: it was refused something, or took longer than LOAD_SECONDS.
    """
    asked = {"host": place.host, "port": place.port, "path": path, "token": place.token, "body": body.decode()}
    asked |= {"count": count, "connections": connections}
    command = [sys.executable, "-m", "benchmarks.load", json.dumps(asked)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise MeasureFailed(f"{count} requests were not answered within {LOAD_SECONDS} s") from error
    if done.returncode:
        raise MeasureFailed(f"the load ended early: {done.stderr.strip()[-300:]}")
    return Answered(**json.loads(done.stdout))


def percentile(values: list[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def main() -> None:
    """Read one JSON object of arguments from the command line; print an `Answered` as one."""
    asked = json.loads(sys.argv[1])
    load = Load(asked)
    began, ended = uvloop.run(load.run())
    last_ids: list[str] = []
    for answer in load.answers:
        told: dict[str, Any] = json.loads(answer)
        last_ids.append(told["task_ids"][-1] if "task_ids" in told else told["task_id"])
    found = Answered(began, ended, percentile(load.took, 0.5), percentile(load.took, 0.99), last_ids)
    print(json.dumps(found._asdict()))


if __name__ == "__main__":
    main()
