"""What lives on and what does not when server, runner or zygote are killed: counted in processes of the machine."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from place import Place, is_alive, until

from treadle.model.container import Isolation
from treadle.runtime.isolation import tried

pytestmark = pytest.mark.e2e

# A child that has started a program, and one that has left its session and whose parent has ended.
QUEUE = """
    import os, subprocess, sys, time
    from pathlib import Path
    from treadle import task_queue

    @task_queue(workers=2, keep_warm_seconds=60, retries=0, checkpoint_enabled=CHECKPOINT)
    def handler(seconds=0):
        if seconds:
            subprocess.Popen(["sleep", "600"])
            daemon = "import os; os.fork() and os._exit(0); os.setsid(); os.execvp('sleep', ['sleep', '600'])"
            subprocess.run([sys.executable, "-c", daemon], check=True)
            Path("begun").touch()
            end = time.monotonic() + seconds
            while time.monotonic() < end and not Path("gate").exists():
                time.sleep(0.01)
        return os.environ["CONTAINER_ID"]
"""
TROUBLES = tried(sys.executable)
LEVELS = [
    pytest.param(
        level,
        marks=pytest.mark.skipif(bool(TROUBLES.get(level)), reason=TROUBLES.get(level, "")),
        id=level.name.lower(),
    )
    for level in (Isolation.PROCESS, Isolation.NAMESPACES)
]


class Container:
    """The processes of the one container of a place, by its mark in their environment."""

    def __init__(self, place: Place, level: Isolation, *, checkpoint: bool = False, **env: str) -> None:
        self.env = {"TREADLE_ISOLATION": level.name.lower(), **env}
        place.up(env=self.env)
        place.deploy(QUEUE.replace("CHECKPOINT", str(checkpoint)))
        self.task_id = place.submit(seconds=100)
        place.running(self.task_id)
        self.id = place.task(self.task_id)["attempts"][-1]["container_id"]
        self.size = 6 + checkpoint  # parent, template, two children, two of `sleep`, checkpoint
        self.code = place.data / "agent" / "containers" / self.id / "code"
        until((self.code / "begun").exists, what="the programs")
        self.pids = until(lambda: len(found := marked(self.id)) == self.size and found, what="a whole container")
        self.runner = next(pid for pid in self.pids if psutil.Process(pid).ppid() not in self.pids)

    def open_gate(self) -> None:
        """Let the task end."""
        (self.code / "gate").touch()


def marked(container_id: str) -> set[int]:
    """Live processes that bear the mark of a container."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if f"CONTAINER_ID={container_id}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
    return {pid for pid in found if is_alive(pid)}


@pytest.fixture
def ending(own_place: Place) -> Iterator[Place]:
    """A place that leaves nothing behind."""
    yield own_place
    if own_place.process is not None and own_place.process.poll() is None:
        assert own_place.stop() == 0, own_place.log.read_text()
    until(lambda: not own_place.processes(), what="the end of all processes")


@pytest.mark.parametrize("checkpoint", [False, True], ids=["", "checkpoint"])
@pytest.mark.parametrize("level", LEVELS)
def test_nothing_is_left_of_a_container_whose_runner_is_killed(
    ending: Place, level: Isolation, checkpoint: bool
) -> None:
    """`kill -9` of its first process: children, programs and daemons that they have started are gone at once."""
    container = Container(ending, level, checkpoint=checkpoint)
    os.kill(container.runner, 9)
    until(lambda: not any(map(is_alive, container.pids)), what="the end of all of it")
    task = ending.ended(container.task_id)
    assert (task["status"], task["attempts"][0]["failure_kind"]) == ("FAILED", "lost")
    assert marked(container.id) == set()


@pytest.mark.parametrize("level", LEVELS)
def test_a_container_goes_on_without_its_server_and_is_adopted_by_the_next(ending: Place, level: Isolation) -> None:
    """`kill -9` of server and agent: every process lives, the next start has the same container, no second one."""
    container = Container(ending, level)
    ending.kill9()
    assert marked(container.id) == container.pids
    ending.up(env=container.env)
    container.open_gate()
    task = ending.ended(container.task_id)
    assert (task["status"], task["result"], len(task["attempts"])) == ("COMPLETE", container.id, 1)
    assert ending.ended(ending.submit())["result"] == container.id
    assert container.runner in marked(container.id)


@pytest.mark.parametrize("level", LEVELS)
def test_a_container_that_finds_no_server_ends_itself(ending: Place, level: Isolation) -> None:
    """After `orphan_grace` seconds without a server there is not one process left of it."""
    container = Container(ending, level, TREADLE_ORPHAN_GRACE="1")
    ending.kill9()
    until(lambda: not any(map(is_alive, container.pids)), what="the end of all of it")
    assert marked(container.id) == set()


@pytest.mark.parametrize("level", LEVELS)
def test_a_container_lives_on_without_its_zygote_and_the_next_one_starts(ending: Place, level: Isolation) -> None:
    """`kill -9` of the zygote costs no process of a container, and the next container has another."""
    container = Container(ending, level)
    (zygote,) = [process for process in ending.processes() if process.cmdline()[-1] == "treadle.runner.zygote"]
    zygote.kill()
    until(lambda: not is_alive(zygote.pid), what="its end")
    assert marked(container.id) == container.pids
    os.kill(container.runner, 9)
    ending.ended(container.task_id)
    assert ending.ended(ending.submit())["result"] != container.id
