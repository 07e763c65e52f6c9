"""What the others may do: how long an idle queue takes while a crowd is at other queues of the same server."""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.figures import Figure
from benchmarks.load import percentile
from benchmarks.marks import MeasureFailed
from benchmarks.measures_accept import HUNDRED, ONE
from benchmarks.measures_latency import enqueue_to_first_line
from benchmarks.place import Place

FLOOD = 16  # connections, each of which asks again as soon as it was refused
LISTENERS = 10_000
WAITING = 100_000
SPARE = 500  # files of a process beside its connections
SHARES = (0.5, 0.9)  # the slowest of some hundred samples are the disk's own stalls


def crowd(place: Place, samples: int, listeners: int, waiting: int) -> Iterator[Figure]:
    """Under a flood of refused requests, beside open long polls and event streams, and beside a long line of tasks.

    The machine changes its pace within minutes: each is held against what was measured alone just before.
    """
    for name, begin in (
        ("a flood of 429s", _flood),
        (f"{listeners} open long polls and event streams", lambda place: _listening(place, listeners)),
        (f"{waiting} waiting tasks", lambda place: _line(place, waiting)),
    ):
        alone = _sample(place, samples)
        with begin(place):
            beside = _sample(place, samples)
        for share in SHARES:
            before, after = percentile(alone, share), percentile(beside, share)
            yield Figure(f"crowd: enqueue to first line, beside {name}, p{share * 100:.0f}", after, "ms")
            yield Figure(f"crowd: beside {name}, p{share * 100:.0f}, cost", after / before, "× alone")


def _sample(place: Place, samples: int) -> list[float]:
    place.marks.new()
    return enqueue_to_first_line(place, samples)


@contextlib.contextmanager
def _flood(place: Place) -> Iterator[None]:
    """Clients of a queue that is full, who do not take no for an answer."""
    queue = place.queue("full")
    wire = place.wire()
    while wire.post(queue.path, b"{}")[0] == 200:
        pass
    wire.close()
    asked = {"host": place.host, "port": place.port, "path": queue.path, "token": place.token, "body": ONE.decode()}
    asked |= {"count": 1_000_000_000, "connections": FLOOD, "status": 429}
    with _running("benchmarks.load", asked) as process:
        time.sleep(1)
        yield
        if process.poll() is not None:
            raise MeasureFailed(f"the flood ended early: {_said(process)}")


@contextlib.contextmanager
def _listening(place: Place, count: int) -> Iterator[None]:
    """So many connections that wait for news of tasks that do not come."""
    if (room := resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE) < count:
        raise MeasureFailed(f"{count} connections take more files than the {room} that `ulimit -Hn` allows")
    task_id = place.submit(place.queue("stuck"))
    asked = {"host": place.host, "port": place.port, "token": place.token, "task_id": task_id, "count": count}
    with _running("benchmarks.listen", asked) as process:
        assert process.stdout is not None
        if process.stdout.readline().strip() != b"open":
            raise MeasureFailed(f"{count} connections could not be opened: {_said(process)}")
        yield
        if process.poll() is not None:
            raise MeasureFailed(f"the listeners ended early: {_said(process)}")


@contextlib.contextmanager
def _running(module: str, asked: dict[str, object]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", module, json.dumps(asked)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _said(process: subprocess.Popen[bytes]) -> str:
    process.kill()
    return process.communicate()[1].decode().strip()[-300:]


@contextlib.contextmanager
def _line(place: Place, count: int) -> Iterator[None]:
    """So many tasks that wait in a queue whose one worker does not end."""
    queue, wire = place.queue("stuck"), place.wire()
    for _ in range(count // 100):
        status, answer = wire.post(f"{queue.path}/batch", HUNDRED)
        if status != 200:
            raise MeasureFailed(f"a batch was answered {status}: {answer[:200]!r}")
    wire.close()
    yield
