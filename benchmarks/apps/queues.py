"""The task queues that are measured: each does as little as it can and still show what is asked of it."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from pathlib import Path

from treadle import QueueDepthAutoscaler, TaskPolicy, task_queue

NOTES = Path(os.environ.get("BENCH_NOTES", "."))  # a folder in memory, where handlers leave marks
ENV = {"BENCH_NOTES": str(NOTES)}
WARM = 5  # seconds: long enough within a measure, and the next queue finds room on a small machine
MANY = 10_000_000  # waiting tasks: the limit is not what is measured


def mark() -> None:
    """Append the time, which the caller's first line has taken, and this process."""
    now = time.time()
    with (NOTES / "marks").open("ab") as file:
        file.write(struct.pack("dq", now, os.getpid()))


def hold(gate: str) -> None:
    """Say that this child is held, and wait without using the processor until the file is no longer locked."""
    with (NOTES / gate).open("rb") as file:
        mark()
        fcntl.flock(file, fcntl.LOCK_SH)


@task_queue(workers=2, keep_warm_seconds=WARM, max_pending_tasks=MANY, env=ENV)
def noop(n: int = 0, gate: str = "") -> int:
    if gate:
        hold(gate)
    return n


@task_queue(workers=2, keep_warm_seconds=WARM, max_pending_tasks=MANY, env=ENV)
def marked() -> int:
    mark()
    return 1


@task_queue(workers=2, keep_warm_seconds=86_400, env=ENV)
def resting() -> int:
    return 1


@task_queue(keep_warm_seconds=0, env=ENV)
def cold() -> int:
    mark()
    return 1


@task_queue(workers=2, keep_warm_seconds=WARM, retries=3, task_policy=TaskPolicy(retry_delay=0), env=ENV)
def crashing(sample: int) -> int:
    mark()
    first_try = NOTES / f"tried-{sample}"
    if not first_try.exists():
        first_try.touch()
        time.sleep(60)  # to be killed meanwhile
    return sample


@task_queue(gpu="H100", max_pending_tasks=MANY, autoscaler=QueueDepthAutoscaler(max_containers=1))
def stuck() -> None:
    """Its tasks wait for a device that is not there."""


@task_queue(gpu="H100", max_pending_tasks=10)
def full() -> None:
    """So do these, and there is room for ten of them."""
