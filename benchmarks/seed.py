"""Fills the store of a stopped server: `python -m benchmarks.seed DATA --finished N --waiting N …`.

It writes through the store itself, so that the file is as if all of it had been lived through.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from treadle.model.container import Container, ContainerStatus
from treadle.model.ids import uuid7
from treadle.model.task import Attempt, Change, NewTask, Task, TaskStatus
from treadle.store.sqlite import SqliteStore

STEP = 1000
HERE = "seeded"  # the container in which all this ran
PAYLOAD = b'{"args": [], "kwargs": {"n": 1}}'


def finished(deployment_id: str, ended_at: float) -> tuple[NewTask, Change]:
    """A task that was claimed when it came, and what made it COMPLETE."""
    began = ended_at - 0.002
    running = Task(
        uuid7(began, os.urandom(10)), 1, deployment_id, TaskStatus.RUNNING, began, began, began,
        attempts=1, started_at=began, container_id=HERE,
    )  # fmt: skip
    done = Task(
        running.id, 1, deployment_id, TaskStatus.COMPLETE, began, ended_at, began,
        attempts=1, started_at=began, ended_at=ended_at, container_id=HERE,
    )  # fmt: skip
    ended = Attempt(running.id, 1, HERE, TaskStatus.COMPLETE, began, ended_at)
    return NewTask(running, PAYLOAD), Change(
        done, expected=TaskStatus.RUNNING, expected_attempts=1, attempt=ended, result=b"1"
    )  # fmt: skip


def seed_finished(store: SqliteStore, deployment_id: str, count: int, age: float) -> None:
    """So many finished tasks; the oldest ended `age` seconds ago, the newest at half that."""
    now = time.time()
    with store.transaction():
        store.insert_container(
            Container(HERE, 1, deployment_id, "seed", ContainerStatus.STOPPED, HERE, now - age, now, ended_at=now)
        )
    for done in range(0, count, STEP):
        part = [
            finished(deployment_id, now - age + age / 2 * number / count)
            for number in range(done, min(done + STEP, count))
        ]
        with store.transaction():
            store.insert_tasks([new for new, _ in part])
            written = store.commit([change for _, change in part])
        assert all(written)
        print(part[0][0].task.id)  # one id of each step, for whoever asks for tasks from all over the store
        if done % 100_000 == 0:
            print(f"seeding: {done:,} of {count:,}", file=sys.stderr, flush=True)


def seed_waiting(store: SqliteStore, deployment_id: str, count: int) -> None:
    """So many tasks that wait."""
    now = time.time()
    for done in range(0, count, STEP):
        tasks = [
            Task(uuid7(now, os.urandom(10)), 1, deployment_id, TaskStatus.PENDING, now, now, now)
            for _ in range(min(STEP, count - done))
        ]
        with store.transaction():
            store.insert_tasks([NewTask(task, PAYLOAD) for task in tasks])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--finished", type=int, default=0)
    parser.add_argument("--finished-of", default="", help="deployment id")
    parser.add_argument("--age", type=float, default=3600, help="seconds since the oldest ended")
    parser.add_argument("--waiting", type=int, default=0)
    parser.add_argument("--waiting-of", default="", help="deployment id")
    asked = parser.parse_args()
    (found,) = asked.data.glob("*.db")
    store = SqliteStore.open(found)
    try:
        if asked.finished:
            seed_finished(store, asked.finished_of, asked.finished, asked.age)
        if asked.waiting:
            seed_waiting(store, asked.waiting_of, asked.waiting)
    finally:
        store.close()


if __name__ == "__main__":
    main()
