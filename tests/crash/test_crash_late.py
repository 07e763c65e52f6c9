"""A machine that froze for longer than a lease and wakes up: what it brings then is refused."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from . import verdict, victims
from .ground import Ground, How, until
from .verdict import Note


def lines(ground: Ground, event: str) -> list[Note]:
    return [note for note in verdict.notes(ground.shared / "ledger") if note.event == event]


def begun(ground: Ground, task_id: str) -> list[Note]:
    return [note for note in lines(ground, "begin") if note.task == task_id]


def family(ground: Ground, container: str) -> list[int]:
    """The runner of a container first, then all below it."""
    (runner,) = [pid for pid in victims.runners(ground) if container in " ".join(psutil.Process(pid).cmdline())]
    return [runner, *(process.pid for process in psutil.Process(runner).children(recursive=True))]


@pytest.mark.e2e
@pytest.mark.timeout(200)
def test_what_a_frozen_machine_brings_late_is_refused(tmp_path: Path) -> None:
    """Agent and container stop past the lease; the task runs elsewhere; then the first attempt saves and finishes.

    Its output is refused, its finish changes nothing, and the books show two attempts and the result of the second.
    """
    ground = Ground(tmp_path, "")
    try:
        ground.start(How(apart=True))
        ground.deploy("waiting")
        first, second = (ground.submit("waiting", {"number": number}) for number in (1, 2))
        until(lambda: begun(ground, first) and begun(ground, second), 40, "two containers at work")
        (ground.shared / "gate-2").touch()  # the other container is free, and takes the task over
        until(lambda: ground.get(f"/v2/task/{second}/")["status"] == "COMPLETE", 20, "the end of the other task")

        assert ground.agent is not None
        frozen = [ground.agent.pid, *family(ground, begun(ground, first)[0].container)]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        until(lambda: len(begun(ground, first)) == 2, 60, "the second attempt")
        for pid in frozen[-1:]:
            os.kill(pid, signal.SIGCONT)
        (ground.shared / "late").touch()
        until(lambda: lines(ground, "raised"), 20, "the refusal of the late output")
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
        until(lambda: not any(map(psutil.pid_exists, frozen[1:])), 20, "the end of the container that was given up")

        task = ground.get(f"/v2/task/{first}/")
        assert (task["status"], task["outputs"]) == ("RUNNING", [])
        (ground.shared / "gate-1").touch()
        task = until(lambda: (t := ground.get(f"/v2/task/{first}/"))["status"] == "COMPLETE" and t, 20, "its end")
        assert [attempt["failure_kind"] for attempt in task["attempts"]] == ["lost", ""]
        assert task["result"] == {"number": 1, "attempt": 2}
        ground.stop()
    finally:
        ground.kill_all()
