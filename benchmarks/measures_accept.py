"""Tasks accepted over HTTP while the queue's children run them: one a request, and a hundred a request."""

from __future__ import annotations

import json
from collections.abc import Iterator

from benchmarks.figures import Figure
from benchmarks.load import Answered, run_load
from benchmarks.place import Place, Queue

ONE = b'{"n": 1}'
HUNDRED = json.dumps([{"n": 1}] * 100).encode()


def accept(place: Place, seconds: float) -> Iterator[Figure]:
    """One task a request, at 1, 16 and 64 connections, each for about so many seconds."""
    queue = place.queue("noop")
    place.warm(queue)
    for connections in (1, 16, 64):
        yield from _both(place, queue, connections, seconds)


def _both(place: Place, queue: Queue, connections: int, seconds: float) -> Iterator[Figure]:
    count = _count(place, queue, connections, seconds)
    load = run_load(place, queue.path, ONE, count, connections)
    ended = place.finish(queue, load.last_ids)
    where = f"{connections} connection{'s' if connections > 1 else ''}"
    yield Figure(f"accept, {where}", count / (load.ended - load.began), "tasks/s")
    yield Figure(f"accept, {where}, p50", load.p50 * 1000, "ms")
    yield Figure(f"accept, {where}, p99", load.p99 * 1000, "ms")
    yield Figure(f"accept + run + result durable, {where}", count / (ended - load.began), "tasks/s")


def _count(place: Place, queue: Queue, connections: int, seconds: float) -> int:
    """How many requests take about so many seconds; finding that out also warms everything up."""
    tried = 500 if connections == 1 else 2000
    load = run_load(place, queue.path, ONE, tried, connections)
    ended = place.finish(queue, load.last_ids)
    return max(tried, int(tried / (ended - load.began) * seconds))


def batch(place: Place, seconds: float) -> Iterator[Figure]:
    """A hundred tasks a request: `POST /taskqueue/{name}/batch`."""
    queue = place.queue("noop")
    place.warm(queue)
    for connections in (1, 16, 64):
        yield from _batches(place, queue, connections, seconds)


def _batches(place: Place, queue: Queue, connections: int, seconds: float) -> Iterator[Figure]:
    def run(count: int) -> tuple[Answered, float]:
        load = run_load(place, f"{queue.path}/batch", HUNDRED, count, connections)
        return load, place.finish(queue, load.last_ids)

    tried = max(50, 2 * connections)
    load, ended = run(tried)
    count = max(tried, int(tried / (ended - load.began) * seconds))
    load, ended = run(count)
    where = f"{connections} connection{'s' if connections > 1 else ''}, batches of 100"
    yield Figure(f"accept, {where}", count * 100 / (load.ended - load.began), "tasks/s")
    yield Figure(f"accept, {where}, p50", load.p50 * 1000, "ms")
    yield Figure(f"accept, {where}, p99", load.p99 * 1000, "ms")
    yield Figure(f"accept + run + result durable, {where}", count * 100 / (ended - load.began), "tasks/s")
