"""User code under fire. What it does it writes into files of the machine, where no crash of the product reaches it.

This file is deployed. Every attempt holds a lock on its task's byte of the file `alive` for as long as it lives, so the
kernel itself tells whether two attempts of one task live at once, to the instant.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from pathlib import Path

from treadle import Output, QueueDepthAutoscaler, TaskPolicy, task_queue

FOLDER = Path(os.environ.get("CRASH_FOLDER", "/nowhere"))
CALLBACK = os.environ.get("CRASH_CALLBACK") or None
DEADLINE = 60.0
WIDE = QueueDepthAutoscaler(max_containers=2, tasks_per_container=3)
SETTINGS = {"keep_warm_seconds": 60, "env": {"CRASH_FOLDER": str(FOLDER)}, "callback_url": CALLBACK}


class Attempt:
    """One attempt, from the first line of user code to its last."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._ledger = os.open(FOLDER / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._alive = os.open(FOLDER / "alive", os.O_RDWR | os.O_CREAT)
        if not self._lock():
            self.note("twice")

    def _lock(self) -> bool:
        """Of the open file, not of the process: programs that inherit it count as the attempt's life, too."""
        byte = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, self._number, 1, 0)
        try:
            fcntl.fcntl(self._alive, fcntl.F_OFD_SETLK, byte)
        except BlockingIOError:
            return False
        return True

    def note(self, event: str) -> None:
        """One write to a file opened to append is whole."""
        fields = event, self._number, os.environ["TASK_ID"], os.environ["TASK_ATTEMPT"], os.environ["CONTAINER_ID"]
        os.write(self._ledger, " ".join([*map(str, fields), str(time.monotonic_ns())]).encode() + b"\n")

    def __enter__(self) -> Attempt:
        self.note("begin")
        return self

    def __exit__(self, *raised: object) -> None:
        self.note("raised" if raised[0] else "end")
        os.close(self._alive)
        os.close(self._ledger)


def attempt(number: int, seconds: float, save: bool, meet: int) -> dict[str, int]:
    with Attempt(number) as this:
        time.sleep(seconds)
        if meet:
            _meet(number, meet)
        if save:
            path = Path(f"saved-{number}")
            path.write_text(f"{number} {os.environ['TASK_ATTEMPT']}")
            Output(path=path).save()
            this.note("saved")
    return {"number": number, "attempt": int(os.environ["TASK_ATTEMPT"])}


def _meet(number: int, count: int) -> None:
    """Return when as many are in here at the same time: every child of a queue, if none is held to be busy in vain."""
    (FOLDER / f"met-{number}").touch()
    deadline = time.monotonic() + DEADLINE
    while len(list(FOLDER.glob("met-*"))) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"fewer than {count} came together")
        time.sleep(0.02)


@task_queue(workers=3, retries=100, autoscaler=WIDE, task_policy=TaskPolicy(retry_delay=0), **SETTINGS)
def patient(number: int, seconds: float = 0.0, save: bool = False, meet: int = 0) -> dict[str, int]:
    """Tried again as often as can be asked for."""
    return attempt(number, seconds, save, meet)


@task_queue(workers=3, retries=2, task_policy=TaskPolicy(retry_delay=0), **SETTINGS)
def brief(number: int, seconds: float = 0.0, save: bool = False, meet: int = 0) -> dict[str, int]:
    """Fails for good after the third attempt."""
    return attempt(number, seconds, save, meet)


@task_queue(workers=2, retries=0, **SETTINGS)
def once(number: int, seconds: float = 0.0, save: bool = False, meet: int = 0) -> dict[str, int]:
    """Never runs twice."""
    return attempt(number, seconds, save, meet)


@task_queue(workers=2, retries=100, checkpoint_enabled=True, task_policy=TaskPolicy(retry_delay=0), **SETTINGS)
def copied(number: int, seconds: float = 0.0, save: bool = False, meet: int = 0) -> dict[str, int]:
    """In children that are copies of a checkpoint."""
    return attempt(number, seconds, save, meet)


@task_queue(workers=2, retries=100, timeout=1, task_policy=TaskPolicy(retry_delay=0), **SETTINGS)
def overdue(number: int, seconds: float = 0.0) -> dict[str, int]:
    """Is given a second, and takes longer."""
    return attempt(number, seconds, save=False, meet=0)


@task_queue(retries=100, task_policy=TaskPolicy(retry_delay=0, ttl=2), **SETTINGS)
def stale(number: int, seconds: float = 0.0) -> dict[str, int]:
    """Is not begun after two seconds of waiting."""
    return attempt(number, seconds, save=False, meet=0)


@task_queue(
    workers=2, retries=100, autoscaler=QueueDepthAutoscaler(max_containers=2), task_policy=TaskPolicy(retry_delay=0), **SETTINGS
)
def waiting(number: int) -> dict[str, int]:
    """Waits for the gate of its attempt, and does what is written there before it returns."""
    this = os.environ["TASK_ATTEMPT"]
    with Attempt(number):
        gate = FOLDER / f"gate-{number}-{this}"
        while not gate.exists():
            time.sleep(0.02)
        deed = gate.read_text()
        if deed == "save":
            Path("late").write_text("too late")
            Output(path="late").save()
        if deed == "print":
            print(f"printed by attempt {this}", flush=True)
    return {"number": number, "attempt": int(this)}
