"""Treadle in the peers' harness: the script that its producer process runs, and the app that the container runs.

The server (one process with its agent) is there from `reset` on, and so is the container. "No worker running" is
made by holding both children at a gate, which the harness's worker command (treadle_gate.py) opens.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from common import DATA, STAMP, TICK, stamp, tick  # type: ignore[import-not-found]  # the harness's own

import treadle
from treadle import task_queue
from treadle.client import Client
from treadle.model.settings import load

GATE = Path(f"{TICK}_gate")
HELD = Path(f"{TICK}_held")
ENV = {"BENCH_TICK": TICK, "BENCH_STAMP": STAMP}
HOME = Path(DATA) / "treadle"
client: Client
if treadle.env.is_local():
    os.environ["TREADLE_DATA"] = str(HOME)
    os.environ["TREADLE_SHARED_FOLDERS"] = str(GATE.parent)  # containers have a /dev/shm of their own


@task_queue(workers=2, keep_warm_seconds=3600, max_pending_tasks=10_000_000, env=ENV)
def work(what: str = "tick") -> int:
    if what == "hold":
        with HELD.open("ab") as file:
            file.write(b".")
        GATE.open("rb").close()  # a named pipe: waits until somebody has it open for writing
        return 0
    return int({"tick": tick, "stamp": stamp}[what]())


def reset() -> None:
    """A new server on an empty data folder, both children held."""
    _treadle("down", check=False)
    for path in (HELD, GATE):
        path.unlink(missing_ok=True)
    shutil.rmtree(HOME, ignore_errors=True)
    HELD.touch()
    os.mkfifo(GATE)
    _treadle("up", "--detach", "--port", "0")
    for _ in range(2):
        work.put("hold")
    deadline = time.monotonic() + 30
    while HELD.stat().st_size < 2:
        if time.monotonic() > deadline:
            raise TimeoutError("the container was not there after 30 s")
        time.sleep(0.01)


def open_client() -> None:
    global client  # noqa: PLW0603 - the harness calls functions of this module
    settings = load()
    client = Client(settings.url, settings.token)


def enqueue() -> None:
    work.put()


def enqueue_stamp() -> None:
    work.put("stamp")


def roundtrip() -> None:
    handle = work.put("stamp")
    assert handle
    handle.result(wait=True, timeout=20)


def pending(expected: int) -> int:  # noqa: ARG001 - as the harness calls it
    """What the server says is not finished: 0 or some."""
    return len(client.tasks(1, statuses=["PENDING", "RUNNING", "RETRY"]).data)


def bulk(n: int) -> None:
    for done in range(0, n, 1000):
        work.put_many(["tick"] * min(1000, n - done))


def _treadle(*args: str, check: bool = True) -> None:
    command = [sys.executable, "-m", "treadle", *args, "--data", str(HOME)]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=None if check else subprocess.DEVNULL, check=check)
