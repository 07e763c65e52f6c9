"""How long it takes when no process is there yet: a cold container, and the child that replaces a killed one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

from benchmarks.figures import Figure
from benchmarks.load import percentile
from benchmarks.marks import MeasureFailed
from benchmarks.place import Place

SETTLE = 0.5  # seconds after the last container left


def cold(place: Place, samples: int) -> Iterator[Figure]:
    """No container, image ready, default limits: enqueue to first line."""
    yield from _cold(place, "cold", "queues.py", "cold: enqueue to first line", samples)


def cold_numpy(place: Place, samples: int) -> Iterator[Figure]:
    """The same for a module that imports numpy."""
    yield from _cold(place, "cold_numpy", "with_numpy.py", "cold with numpy: enqueue to first line", samples)


def _cold(place: Place, function: str, file: str, name: str, samples: int) -> Iterator[Figure]:
    queue = place.queue(function, file)
    wire = place.wire()
    took: list[float] = []
    place.marks.new()
    for _ in range(samples + 1):
        _until_empty(place)
        sent = time.time()
        status, answer = wire.post(queue.path, b"{}")
        if status != 200:
            raise MeasureFailed(f"the enqueue was answered {status}: {answer[:200]!r}")
        took.append((place.marks.wait()[0].at - sent) * 1000)
    wire.close()
    yield Figure(f"{name}, p50", percentile(took[1:], 0.5), "ms")
    yield Figure(f"{name}, max", max(took[1:]), "ms")


def _until_empty(place: Place, seconds: float = 30.0) -> None:
    """Wait until no container is there, and a moment more."""
    deadline = time.monotonic() + seconds
    while there := place.containers():
        if time.monotonic() > deadline:
            raise MeasureFailed(f"{len(there)} containers were still there after {seconds:g} s")
        time.sleep(0.1)
    time.sleep(SETTLE)


def crash(place: Place, samples: int) -> Iterator[Figure]:
    """`kill -9` of the child that runs a task, retry delay 0: until the first line of the next attempt."""
    queue = place.queue("crashing")
    place.marks.new()
    took: list[float] = []
    base = time.time_ns()  # runs share a folder of notes: each sample has a number of its own
    for sample in range(samples + 1):
        task_id = place.submit(queue, sample=base + sample)
        child = place.number_of(queue, place.marks.wait()[0].pid)
        time.sleep(0.05)
        killed = time.time()
        os.kill(child, signal.SIGKILL)
        took.append((place.marks.wait()[0].at - killed) * 1000)
        place.finish(queue, [task_id])
        time.sleep(0.3)  # the child that was killed has been replaced meanwhile
    yield Figure("crash to the retry's first line, p50", percentile(took[1:], 0.5), "ms")
    yield Figure("crash to the retry's first line, max", max(took[1:]), "ms")
