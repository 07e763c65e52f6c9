"""Death of server, runner and machine in the middle of work: nothing accepted is lost, nothing runs twice at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from notes import ledger, open_gate, overlaps
from place import Place, is_alive, process_of, until

pytestmark = pytest.mark.e2e

LEASE = 12.0  # seconds; what takes less was not found by a lease that has run out

QUEUE = """
    import os, time
    from pathlib import Path
    from notes import gate, note
    from treadle import QueueDepthAutoscaler, TaskPolicy, task_queue

    @task_queue(workers=2, autoscaler=QueueDepthAutoscaler(max_containers=2),
                task_policy=TaskPolicy(retry_delay=0), keep_warm_seconds=60)
    def handler(folder, wait_for=""):
        note(folder, "start")
        while wait_for and not Path(folder, wait_for).exists():
            note(folder, "alive")
            time.sleep(0.002)
        note(folder, "end")
        return os.getpid()
"""


@pytest.fixture
def crashed(own_place: Place) -> Iterator[Place]:
    """A server of its own with the queue `q`, which must stop in good order and leave nothing behind at the end."""
    own_place.share_notes()
    own_place.up().deploy(QUEUE)
    yield own_place
    assert own_place.stop() == 0, own_place.log.read_text()
    assert own_place.processes() == []


def unix(time_of: str) -> float:
    return datetime.fromisoformat(time_of).timestamp()


def started(folder: Path) -> set[str]:
    return {line["task"] for line in ledger(folder, "start")}


def ended(folder: Path) -> set[str]:
    return {line["task"] for line in ledger(folder, "end")}


def child_of(line: dict[str, Any]) -> psutil.Process:
    """The process that has left this line."""
    child = process_of(line["container"], line["pid"])
    assert child is not None, line
    return child


def parent_of(child: psutil.Process) -> psutil.Process:
    """The runner's parent above a child: the first process of its container."""
    return psutil.Process(os.getsid(child.ppid()))


class Load:
    """Submits short tasks one after the other until the server refuses; `accepted` are those it has answered for."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.accepted: list[str] = []
        self._place, self._folder = place, folder
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                self.accepted.append(self._place.submit(folder=str(self._folder)))
        except (httpx2.TransportError, AssertionError):
            pass

    def end(self) -> list[str]:
        self._thread.join(20)
        return self.accepted


def test_nothing_accepted_is_lost_when_the_server_is_killed_under_load(crashed: Place, tmp_path: Path) -> None:
    """Four run, many wait, more come in: after kill -9 and a new start all are COMPLETE, each in one attempt.

    Two of the four end while there is no server and two run through the whole outage: their runners reconnect and
    deliver.
    """
    place = crashed
    through = [place.submit(folder=str(tmp_path), wait_for=gate) for gate in ("early", "early", "late", "late")]
    until(lambda: started(tmp_path) == set(through), what="four tasks at work")
    load = Load(place, tmp_path)
    until(lambda: len(load.accepted) >= 40, what="a backlog")
    place.kill9()
    waiting = load.end()
    open_gate(tmp_path, "early")
    until(lambda: ended(tmp_path) == set(through[:2]), what="the end of two tasks during the outage")
    assert started(tmp_path) == set(through), "nothing new can start without a server"

    place.up()
    open_gate(tmp_path, "late")
    tasks = [place.ended(task_id) for task_id in [*through, *waiting]]
    assert {task["status"] for task in tasks} == {"COMPLETE"}
    assert {len(task["attempts"]) for task in tasks} == {1}
    starts = [line["task"] for line in ledger(tmp_path, "start")]
    assert set(starts) >= {task["id"] for task in tasks}
    assert len(starts) == len(set(starts)), "user code ran once for each task"
    assert overlaps(ledger(tmp_path)) == []
    assert {line["pid"] for line in ledger(tmp_path)} == {line["pid"] for line in ledger(tmp_path, "start")}
    results = {task["id"]: task["result"] for task in tasks}
    assert all(results[line["task"]] == line["pid"] for line in ledger(tmp_path, "start") if line["task"] in results)


def test_tasks_whose_machine_died_with_the_server_are_retried_by_the_next_start(
    crashed: Place, tmp_path: Path
) -> None:
    """Server and containers are killed: what ran is told as lost and runs again at once, what waited runs once."""
    place = crashed
    running = [place.submit(folder=str(tmp_path), wait_for="gate") for _ in range(4)]
    waiting = [place.submit(folder=str(tmp_path)) for _ in range(4)]
    until(lambda: started(tmp_path) == set(running), what="four tasks at work")
    place.kill9()
    for process in place.processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # it went with its parent
            process.kill()
    until(lambda: not place.processes(), what="the end of the machine")
    open_gate(tmp_path)
    place.up()
    back = time.time()
    for task_id in running:
        task = place.ended(task_id)
        assert [a["failure_kind"] for a in task["attempts"]] == ["lost", ""]
        assert task["attempts"][0]["failure_reason"].startswith("lost: ")
        assert task["status"] == "COMPLETE"
        assert unix(task["ended_at"]) - back < LEASE
    for task_id in waiting:
        assert len(place.ended(task_id)["attempts"]) == 1
    assert overlaps(ledger(tmp_path)) == []


def test_a_killed_runner_takes_its_children_along_and_its_tasks_are_retried_at_once(
    crashed: Place, tmp_path: Path
) -> None:
    """kill -9 of the container's first process: both children are gone at once, both tasks run again elsewhere."""
    place = crashed
    ids = [place.submit(folder=str(tmp_path), wait_for="gate") for _ in range(2)]
    until(lambda: started(tmp_path) == set(ids), what="two tasks at work")
    by_container: dict[str, list[dict[str, Any]]] = {}
    for line in ledger(tmp_path, "start"):
        by_container.setdefault(line["container"], []).append(line)
    container, lines = next(iter(by_container.items()))
    killed = time.time()
    children = [child_of(line) for line in lines]
    parent_of(children[0]).kill()
    until(lambda: not any(is_alive(child.pid) for child in children), what="the end of the children")
    open_gate(tmp_path)
    for line in lines:
        task = place.ended(line["task"])
        first, second = task["attempts"]
        assert (task["status"], first["failure_kind"], first["container_id"]) == ("COMPLETE", "lost", container)
        assert first["failure_reason"].startswith("lost: killed by signal 9 (SIGKILL)")
        assert unix(first["ended_at"]) - killed < LEASE
        assert second["container_id"] != container
        assert unix(second["started_at"]) - killed < LEASE
    assert overlaps(ledger(tmp_path)) == []


def test_a_silent_runner_is_killed_past_its_lease_before_its_task_runs_again(crashed: Place, tmp_path: Path) -> None:
    """SIGSTOP of a runner's parent, whose child goes on: after 15 s the child is dead and then the task is retried."""
    place = crashed
    task_id = place.submit(folder=str(tmp_path), wait_for="gate")
    others = [place.submit(folder=str(tmp_path), wait_for="others") for _ in range(3)]
    until(lambda: started(tmp_path) == {task_id, *others}, what="four tasks in two containers")
    open_gate(tmp_path, "others")  # the other container has two free children now, ready for the retry
    for other in others:
        place.ended(other)
    line = next(line for line in ledger(tmp_path, "start") if line["task"] == task_id)
    child = child_of(line)
    parent = parent_of(child)
    stopped = time.time()
    parent.send_signal(signal.SIGSTOP)
    until(lambda: len(place.task(task_id)["attempts"]) == 2, 60, "the second attempt")
    assert not is_alive(parent.pid)
    assert not is_alive(child.pid)
    open_gate(tmp_path)
    task = place.ended(task_id)
    first, second = task["attempts"]
    assert (first["failure_kind"], first["failure_reason"]) == ("lost", "lost: no heartbeat for 15 seconds")
    assert 11 < unix(first["ended_at"]) - stopped < 40
    assert (task["status"], second["status"]) == ("COMPLETE", "COMPLETE")
    assert second["container_id"] != first["container_id"]
    assert overlaps(ledger(tmp_path)) == []
