"""What a full store costs: the same work on a store with a million finished tasks, and on one without."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median

from benchmarks.figures import Figure
from benchmarks.load import percentile, run_load
from benchmarks.marks import MeasureFailed
from benchmarks.measures_accept import ONE
from benchmarks.place import Place
from treadle.model.settings import ALLOWED

WHAT = "1 000 000 finished"
FINISHED = 1_000_000
WAITING = 100_000
OLD = 30 * 86400.0  # seconds: beyond the default retention
PRUNING_SECONDS = 120


def fill(place: Place, finished: int, waiting: int, age: float) -> list[str]:
    """Stop the server, put tasks into its store, start it again; every thousandth id, oldest first.

    The finished ones belong to the queue that is measured. The waiting ones wait for a device that is not there.
    """
    measured, stuck = place.queue("noop"), place.queue("stuck")
    place.warm(measured, 20)
    place.down()
    command = [sys.executable, "-m", "benchmarks.seed", str(place.data), "--age", str(age)]
    command += ["--finished", str(finished), "--finished-of", measured.id]
    command += ["--waiting", str(waiting), "--waiting-of", stuck.id]
    done = subprocess.run(command, timeout=300, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise MeasureFailed("the store could not be filled; see above")
    place.up()
    return done.stdout.split()


def size(empty: Place, full: Place, seeded: list[str], seconds: float, tasks: int) -> Iterator[Figure]:
    """Each piece of work on the one store and then on the other, as a ratio of what a task costs: 1 is as cheap."""
    works: tuple[tuple[str, Callable[[Place], float]], ...] = (
        ("accept + run", lambda place: _accept_and_run(place, seconds)),
        ("drain", lambda place: _drain(place, tasks)),
        ("GET task", lambda place: _read(place, _paths(_newest(place) if place is empty else seeded), 500)),
        ("list", lambda place: _read(place, ["/v2/task/?limit=10"], 300)),
        ("list by status", lambda place: _read(place, ["/v2/task/?limit=10&status=RETRY"], 3)),
    )
    for name, work in works:
        yield from _compare(name, work, empty, full)


def _compare(name: str, work: Callable[[Place], float], empty: Place, full: Place) -> Iterator[Figure]:
    for place in (empty, full):
        place.warm(place.queue("noop"))
    costs = [work(empty), work(full)]
    yield Figure(f"{WHAT}: {name}, empty store", costs[0] * 1e6, "µs")
    yield Figure(f"{WHAT}: {name}, full store", costs[1] * 1e6, "µs")
    yield Figure(f"{WHAT}: {name}, cost", costs[1] / costs[0], "× empty")


def _accept_and_run(place: Place, seconds: float) -> float:
    """Seconds a task, at 64 connections."""
    queue = place.queue("noop")
    load = run_load(place, queue.path, ONE, 2000, 64)
    count = max(1000, int(2000 / (place.finish(queue, load.last_ids) - load.began) * seconds))
    load = run_load(place, queue.path, ONE, count, 64)
    return (place.finish(queue, load.last_ids) - load.began) / count


def _drain(place: Place, count: int) -> float:
    queue = place.queue("noop")
    with place.held(queue):
        load = run_load(place, queue.path, ONE, count, 64)
    began = time.perf_counter()
    return (place.finish(queue, load.last_ids) - began) / count


def _newest(place: Place) -> list[str]:
    return [task.id for task in place.client.tasks(1000, stub_ids=[place.queue("noop").id]).data]


def _paths(ids: list[str]) -> list[str]:
    """The tasks' own paths, in no order."""
    return [f"/v2/task/{task_id}/" for task_id in random.Random(1).sample(ids, len(ids))]  # noqa: S311


def _read(place: Place, paths: list[str], count: int) -> float:
    """The median of so many requests, in seconds."""
    wire = place.wire()
    took: list[float] = []
    for number in range(count + count // 10):
        began = time.perf_counter()
        status, answer = wire.get(paths[number % len(paths)])
        took.append(time.perf_counter() - began)
        if status != 200:
            raise MeasureFailed(f"{paths[number % len(paths)]} was answered {status}: {answer[:200]!r}")
    wire.close()
    return percentile(took[count // 10 :], 0.5)


def pruning(place: Place, finished: int) -> Iterator[Figure]:
    """Accepting at 16 connections while a store of tasks that are too old is pruned, and the same afterwards."""
    if "retention" not in ALLOWED:
        raise MeasureFailed("this version has no setting for how long finished tasks are kept")
    seeded = fill(place, finished, 0, OLD)
    queue = place.queue("noop")
    place.warm(queue)
    began = time.monotonic()
    during: list[float] = []
    while not _gone(place, seeded[-1]):
        if time.monotonic() - began > PRUNING_SECONDS:
            raise MeasureFailed(f"old tasks were still there after {PRUNING_SECONDS} s")
        during.append(run_load(place, queue.path, ONE, 2000, 16).p99 * 1000)
    yield Figure("pruning: removed while accepting", finished / (time.monotonic() - began), "tasks/s")
    after = [run_load(place, queue.path, ONE, 2000, 16).p99 * 1000 for _ in during]
    yield Figure("pruning: accept p99 meanwhile", median(during), "ms")
    yield Figure("pruning: accept p99 afterwards", median(after), "ms")
    yield Figure("pruning: accept p99, cost", median(during) / median(after), "× without")


def _gone(place: Place, task_id: str) -> bool:
    wire = place.wire()
    status, _ = wire.get(f"/v2/task/{task_id}/")
    wire.close()
    return status == 404
