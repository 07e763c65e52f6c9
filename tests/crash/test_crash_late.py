"""A machine that froze for longer than a lease and wakes up: what it brings then is refused."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from . import verdict, victims
from .ground import Ground, How, is_alive, until
from .verdict import Note


def lines(ground: Ground, event: str) -> list[Note]:
    return [note for note in verdict.notes(ground.shared / "ledger") if note.event == event]


def begun(ground: Ground, task_id: str) -> list[Note]:
    return [note for note in lines(ground, "begin") if note.task == task_id]


def family(ground: Ground, container: str) -> list[int]:
    """The runner of a container first, then all below it."""
    (runner,) = [pid for pid in victims.runners(ground) if container in " ".join(psutil.Process(pid).cmdline())]
    return [runner, *(process.pid for process in psutil.Process(runner).children(recursive=True))]


def open_gate(ground: Ground, number: int, attempt: int, deed: str = "") -> None:
    """What is to be done is there with the gate, in one instant."""
    draft = ground.shared / "draft"
    draft.write_text(deed)
    draft.replace(ground.shared / f"gate-{number}-{attempt}")


def two_at_work(ground: Ground) -> tuple[dict[str, int], dict[str, int]]:
    """Tasks with their numbers, two in each of two containers."""
    tasks = {ground.submit("waiting", {"number": number}): number for number in range(1, 5)}
    until(lambda: all(begun(ground, task) for task in tasks), 60, "two containers at work")
    boxes: dict[str, dict[str, int]] = {}
    for task, number in tasks.items():
        boxes.setdefault(begun(ground, task)[0].container, {})[task] = number
    first, second = boxes.values()
    assert len(first) == len(second) == 2
    return first, second


def printed(ground: Ground, task_id: str) -> list[str]:
    return [line["text"] for line in ground.get(f"/v2/task/{task_id}/logs")["data"] if "printed" in line["text"]]


@pytest.mark.e2e
@pytest.mark.timeout(240)
def test_what_a_frozen_machine_brings_late_is_refused(tmp_path: Path) -> None:
    """Agent and container stop past the lease; their tasks run elsewhere; then one first attempt saves, and one returns.

    The output is refused, line and result are not taken though the runner calls again, and the books show two attempts of
    each and the results of the second.
    """
    ground = Ground(tmp_path, "")
    try:
        ground.start(How(apart=True))
        ground.deploy("waiting")
        here, elsewhere = two_at_work(ground)
        (saves, save_number), (prints, print_number) = here.items()
        for task, number in elsewhere.items():  # the other container is free then, and takes the tasks over
            open_gate(ground, number, 1)
            until(lambda task=task: ground.get(f"/v2/task/{task}/")["status"] == "COMPLETE", 20, "the end of another task")

        assert ground.agent is not None
        runner, *others = family(ground, begun(ground, saves)[0].container)
        frozen = [ground.agent.pid, runner, *others]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        until(lambda: all(len(begun(ground, task)) == 2 for task in here), 60, "the second attempts")
        for pid in others:
            os.kill(pid, signal.SIGCONT)
        open_gate(ground, save_number, 1, "save")
        until(lambda: lines(ground, "raised"), 20, "the refusal of the late output")
        open_gate(ground, print_number, 1, "print")
        until(lambda: ("end", prints) in [(note.event, note.task) for note in lines(ground, "end")], 20, "the late return")

        # The agent stays as it is, and a runner whom nobody answers goes on for a minute: it has called, and was refused.
        os.kill(runner, signal.SIGCONT)
        until(lambda: not any(map(is_alive, frozen[1:])), 30, "the end of the container that was given up")
        for task in here:
            found = ground.get(f"/v2/task/{task}/")
            assert (found["status"], found["outputs"], found["result"]) == ("RUNNING", [], None)
        os.kill(ground.agent.pid, signal.SIGCONT)

        for task, number in here.items():
            open_gate(ground, number, 2, "print")
            found = until(lambda task=task: (t := ground.get(f"/v2/task/{task}/"))["status"] == "COMPLETE" and t, 20, "its end")
            assert [attempt["failure_kind"] for attempt in found["attempts"]] == ["lost", ""]
            assert found["result"] == {"number": number, "attempt": 2}
            until(lambda task=task: printed(ground, task), 20, "its log")
            assert printed(ground, task) == ["printed by attempt 2"]
        ground.stop()
    finally:
        ground.kill_all()
