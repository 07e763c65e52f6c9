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
from benchmarks.place import Place, Queue

WHAT = "1 000 000 finished"
FINISHED = 1_000_000
WAITING = 100_000
ROUNDS = 3  # on the one, on the other, and again: what disturbs the machine shall hit both
OLD = 30 * 86400.0  # seconds: beyond the default retention
PRUNING_SECONDS = 120
PRUNING_COUNT = 4000  # requests a sample of p99


def fill(place: Place, finished: int, waiting: int, age: float) -> list[str]:
    """Stop the server, put tasks into its store, start it again; every thousandth id, oldest first.

    The finished ones belong to the queue that is measured. The waiting ones wait for a device that is not there.
    Nothing ran before them: the order of a store is that in which its tasks came.
    """
    measured, stuck = place.queue("noop"), place.queue("stuck")
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
    """Each piece of work on the one store and the other in turn, as a ratio of what a task costs: 1 is as cheap."""
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
    rounds = [(work(empty), work(full)) for _ in range(ROUNDS)]
    on_empty, on_full = (median(costs) for costs in zip(*rounds, strict=True))
    yield Figure(f"{WHAT}: {name}, empty store", on_empty * 1e6, "µs")
    yield Figure(f"{WHAT}: {name}, full store", on_full * 1e6, "µs")
    yield Figure(f"{WHAT}: {name}, cost", on_full / on_empty, "× empty")


def _accept_and_run(place: Place, seconds: float) -> float:
    """Seconds a task, at 64 connections."""
    queue = place.queue("noop")
    place.warm(queue, 20)
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


def pruning(place: Place, finished: int, seconds: float) -> Iterator[Figure]:
    """Accepting at 16 connections while a store of tasks that are too old is pruned, and the same afterwards."""
    seeded = fill(place, finished, 0, OLD)
    queue = place.queue("noop")
    place.warm(queue)
    began, before = time.monotonic(), _gone(place, seeded)
    during: list[float] = []
    while time.monotonic() - began < seconds and not _gone(place, seeded[-1:]):
        during.append(_p99(place, queue))
    removed = (_gone(place, seeded) - before) * finished / len(seeded)
    if not removed:
        raise MeasureFailed(f"no old task was removed within {seconds:g} s of accepting")
    yield Figure("pruning: removed while accepting", removed / (time.monotonic() - began), "tasks/s")
    while not _gone(place, seeded[-1:]):
        if time.monotonic() - began > PRUNING_SECONDS:
            raise MeasureFailed(f"old tasks were still there after {PRUNING_SECONDS} s")
        time.sleep(0.2)
    after = [_p99(place, queue) for _ in during]
    yield Figure("pruning: accept p99 meanwhile", median(during), "ms")
    yield Figure("pruning: accept p99 afterwards", median(after), "ms")
    yield Figure("pruning: accept p99, cost", median(during) / median(after), "× without")


def _p99(place: Place, queue: Queue) -> float:
    return run_load(place, queue.path, ONE, PRUNING_COUNT, 16).p99 * 1000


def _gone(place: Place, task_ids: list[str]) -> int:
    """How many of these tasks are not there any more."""
    wire = place.wire()
    statuses = [wire.get(f"/v2/task/{task_id}/")[0] for task_id in task_ids]
    wire.close()
    return statuses.count(404)
