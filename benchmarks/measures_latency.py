"""How long an idle queue takes: until the first line of user code runs, until the result is in somebody's hands."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from benchmarks.figures import Figure
from benchmarks.load import percentile
from benchmarks.marks import MeasureFailed
from benchmarks.measures_drain import produce_waiting
from benchmarks.place import Place

PAUSE = (0.02, 0.06)  # seconds between samples


def latency(place: Place, samples: int) -> Iterator[Figure]:
    """Enqueue to first line over one raw connection; then put(), and its result, from a script."""
    yield from _spread("idle: enqueue to first line", enqueue_to_first_line(place, samples))
    yield from _calls(place, samples, "wait", "idle")
    yield from _calls(place, samples, "call", "call after call")


def _calls(place: Place, samples: int, what: str, name: str) -> Iterator[Figure]:
    place.marks.new()
    said = produce_waiting(place, what, samples)
    began = [mark.at for mark in place.marks.new()][-samples:]
    lines = [(at - put_at) * 1000 for at, put_at in zip(began, said["put_at"], strict=True)]
    yield from _spread(f"{name}: put() to first line", lines)
    yield from _spread(f"{name}: put() to result in hand", [took * 1000 for took in said["took"]])


def enqueue_to_first_line(place: Place, samples: int) -> list[float]:
    """Milliseconds from before the request is sent to the first line. Nobody waits for the result meanwhile."""
    queue = place.queue("marked")
    place.warm(queue)
    wire = place.wire()
    sent: list[float] = []
    for _ in range(samples + 10):
        sent.append(time.time())
        status, answer = wire.post(queue.path, b"{}")
        if status != 200:
            raise MeasureFailed(f"the enqueue was answered {status}: {answer[:200]!r}")
        time.sleep(random.uniform(*PAUSE))  # noqa: S311
    wire.close()
    marks = place.marks.wait(samples + 10)
    return [(mark.at - at) * 1000 for mark, at in zip(marks, sent, strict=True)][10:]


def _spread(name: str, milliseconds: list[float]) -> Iterator[Figure]:
    yield Figure(f"{name}, p50", percentile(milliseconds, 0.5), "ms")
    yield Figure(f"{name}, p99", percentile(milliseconds, 0.99), "ms")
