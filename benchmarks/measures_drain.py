"""Work that was waiting, and work that one producer makes while it runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.figures import Figure
from benchmarks.load import run_load
from benchmarks.marks import MeasureFailed
from benchmarks.measures_accept import ONE
from benchmarks.place import HERE, Place, Queue


def drain(place: Place, count: int) -> Iterator[Figure]:
    """So many tasks are enqueued while both children are held; then they are let go, until all results are stored."""
    queue = place.queue("noop")
    with place.held(queue):
        load = run_load(place, queue.path, ONE, count, 64)
        time.sleep(0.5)  # what was accepted is left to settle
    began = time.perf_counter()
    ended = place.finish(queue, load.last_ids)
    yield Figure("accept only (children held), 64 connections", count / (load.ended - load.began), "tasks/s")
    yield Figure("drain", count / (ended - began), "tasks/s")


def put(place: Place, count: int) -> Iterator[Figure]:
    """`handler.put()` in a loop of one process, and until all that it made is done."""
    _produce(place, "loop", 200)
    said = _produce(place, "loop", count)
    ended = place.finish(_draft(place, said["last_ids"]), said["last_ids"])
    yield Figure("put() in a loop", count / (said["ended"] - said["began"]), "tasks/s")
    yield Figure("end to end, one producer", count / (ended - said["began"]), "tasks/s")


def put_many(place: Place, count: int) -> Iterator[Figure]:
    """`handler.put_many()` of a thousand at a time in one process, and until all is done."""
    _produce(place, "loop", 200)
    said = _produce(place, "many", count)
    ended = place.finish(_draft(place, said["last_ids"]), said["last_ids"])
    yield Figure("put_many(1000)", count / (said["ended"] - said["began"]), "tasks/s")
    yield Figure("put_many(1000), until all is done", count / (ended - said["began"]), "tasks/s")
    draft = _draft(place, said["last_ids"])
    with place.held(draft):
        said = _produce(place, "many", count)
    place.finish(draft, said["last_ids"])
    yield Figure("put_many(1000), children held", count / (said["ended"] - said["began"]), "tasks/s")


def produce_waiting(place: Place, what: str, count: int) -> dict[str, Any]:
    """Samples of `put` and `result(wait=True)` from a script (producer.py): "wait" with pauses, "call" without."""
    return _produce(place, what, count)


def _produce(place: Place, what: str, count: int, seconds: float = 120) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "producer.py"), what, str(count)]
    try:
        done = subprocess.run(
            command, cwd=place.code, env=place.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise MeasureFailed(f"the script was not done after {seconds:g} s") from error
    if done.returncode:
        raise MeasureFailed(f"the script failed: {done.stderr.strip()[-500:]}")
    said: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    return said


def _draft(place: Place, ids: list[str]) -> Queue:
    """The draft that `put` made."""
    stub_id = place.client.task(ids[-1]).stub.id
    return Queue(f"id/{stub_id}", stub_id)
