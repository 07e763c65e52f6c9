"""Logs: kept while their attempt runs, within limits, before whatever else their batch brings."""

from __future__ import annotations

from typing import Any

import pytest

from treadle.engine.effects import Printed
from treadle.engine.fleet import Gone, StopContainer
from treadle.engine.logs import Keep
from treadle.model.container import ContainerStatus
from treadle.model.deployment import Deployment
from treadle.model.errors import NotFound
from treadle.model.log import KEPT_BYTES, KEPT_LINES, MAX_LINE, Line, Stream
from treadle.model.wire import AttemptRef, Lines

from .making import NOW, Desk

Running = tuple[Desk, Deployment, str, int, str]


def said(*texts: str) -> list[Line]:
    return [Line(NOW, Stream.STDOUT, text) for text in texts]


def keep(desk: Desk, container_id: str, *texts: str, task: str = "", attempt: int = 1, starting: bool = False) -> tuple[Any, Keep]:
    ref = AttemptRef(task, attempt) if task else None
    return desk.engine.logs.keep, Keep(container_id, Lines(said(*texts), ref, starting))


def texts(desk: Desk, task_id: str) -> list[str]:
    return [line.text for chunk in desk.store.task_log(task_id, 0, 10_000) for line in chunk.lines]


def own(desk: Desk, container_id: str) -> list[str]:
    return [line.text for chunk in desk.store.container_log(container_id, 0, 100_000) for line in chunk.lines]


@pytest.fixture
def running(desk: Desk) -> Running:
    """A task that runs, and where."""
    desk.agent()
    deployment = desk.deploy(retry_delay=0.0)
    container, link = desk.started(deployment)
    return desk, deployment, container, link, desk.submit(deployment)


def test_lines_of_a_running_attempt_are_kept(running: Running) -> None:
    """In order, one chunk a message; those who follow the task, the container or the deployment are woken once."""
    desk, deployment, container, _, task_id = running
    desk.run(keep(desk, container, "a", "b", task=task_id), keep(desk, container, "c", task=task_id))
    assert texts(desk, task_id) == ["a", "b", "c"]
    assert desk.sent == [Printed(frozenset({task_id, container, deployment.id}))]


def test_lines_come_before_the_end_that_came_first(running: Running) -> None:
    """The end of another attempt in the batch does not have the lines of the second refused."""
    desk, _, container, link, task_id = running
    end = desk.engine.queue.finish, desk.report(container, link, task_id)
    desk.run(end, keep(desk, container, "the last words", task=task_id))
    assert texts(desk, task_id) == ["the last words"]


def test_a_fenced_attempt_writes_nothing(running: Running) -> None:
    """One that is over, one that never was, one that runs elsewhere, one of an unknown task."""
    desk, _, container, link, task_id = running
    desk.fail(container, link, task_id)
    desk.run(
        keep(desk, container, "over", task=task_id),
        keep(desk, container, "to come", task=task_id, attempt=3),
        keep(desk, "taskqueue-elsewhere", "elsewhere", task=task_id, attempt=2),
        keep(desk, container, "unknown", task="no such task"),
        keep(desk, container, "mine", task=task_id, attempt=2),
    )
    assert texts(desk, task_id) == ["mine"]


def test_an_attempt_that_says_too_much_is_not_heard(running: Running) -> None:
    """A runner that keeps to no limit is held to one; a later attempt begins anew."""
    desk, _, container, link, task_id = running
    for _ in range(30):
        desk.run(keep(desk, container, *["x"] * 1000, task=task_id))
    for _ in range(100):
        desk.run(keep(desk, container, *["y" * MAX_LINE] * 10, task=task_id))
    kept = texts(desk, task_id)
    assert KEPT_LINES <= len(kept) < 2 * KEPT_LINES
    assert KEPT_BYTES <= sum(map(len, kept)) < 2 * KEPT_BYTES
    desk.fail(container, link, task_id)
    desk.run(keep(desk, container, "again", task=task_id, attempt=2))
    assert texts(desk, task_id)[-1] == "again"


def test_a_containers_own_words_are_kept_to_the_last(running: Running) -> None:
    """The first are forgotten when there are too many."""
    desk, _, container, _, task_id = running
    desk.run(keep(desk, container, "of a task", task=task_id))
    for n in range(15):
        desk.run(keep(desk, container, *[f"{n}"] * 1000))
    kept = own(desk, container)
    assert kept[0] == "of a task"
    assert kept[-1] == "14"
    assert len(kept) == KEPT_LINES + 1


def test_what_a_container_says_at_its_start_is_for_the_task_that_caused_it(desk: Desk) -> None:
    """Two containers for two waiting tasks: to each its own, and nothing that comes later."""
    desk.agent()
    deployment = desk.deploy(autoscaler=desk.scale_of(2))
    tasks = [desk.submit(deployment), desk.submit(deployment)]
    desk.ask(desk.engine.scaler.scale)
    rows = desk.engine.roster.of(deployment.id)
    assert [row.for_task for row in rows] == tasks
    for row in rows:
        desk.run(keep(desk, row.id, f"start {row.for_task}", starting=True), keep(desk, row.id, "later"))
        assert any(isinstance(effect, Printed) and row.for_task in effect.ids for effect in desk.sent)
    assert [texts(desk, task_id) for task_id in tasks] == [[f"start {task_id}"] for task_id in tasks]


def test_failed_starts_are_in_the_log_of_the_task_that_waits(desk: Desk) -> None:
    """Each of them, for the same task."""
    desk.agent()
    deployment = desk.deploy()
    task_id = desk.submit(deployment)
    for n in range(2):
        desk.ask(desk.engine.scaler.scale)
        container = desk.container(deployment)
        desk.run(keep(desk, container, f"ImportError {n}", starting=True))
        desk.ask(desk.engine.fleet.gone, Gone(container, "could not load the handler", failed=True))
    assert texts(desk, task_id) == ["ImportError 0", "ImportError 1"]


def test_a_container_that_is_over_says_nothing_more(running: Running) -> None:
    """Nor does one that never was."""
    desk, _, container, _, _ = running
    desk.ask(desk.engine.fleet.gone, Gone(container, "killed"))
    desk.run(keep(desk, container, "late"), keep(desk, "taskqueue-none", "never"))
    assert own(desk, container) == []


def test_a_container_ends_when_it_is_asked_to(running: Running) -> None:
    """Running tasks get the grace; a stranger's container and one that is gone are not found."""
    desk, _, container, _, _ = running
    desk.ask(desk.engine.fleet.end, StopContainer(desk.workspace.id, container, 3.0))
    assert [stop.grace for stop in desk.stopped(container)] == [3.0]
    assert desk.status(container) is ContainerStatus.STOPPING
    for workspace, name in ((desk.workspace.id + 1, container), (desk.workspace.id, "taskqueue-none")):
        with pytest.raises(NotFound):
            desk.ask(desk.engine.fleet.end, StopContainer(workspace, name, 0.0))


def test_a_container_that_is_not_ready_ends_at_once(desk: Desk) -> None:
    """There is nothing to wait for."""
    desk.agent()
    deployment = desk.deploy()
    desk.submit(deployment)
    desk.ask(desk.engine.scaler.scale)
    container = desk.container(deployment)
    desk.ask(desk.engine.fleet.end, StopContainer(desk.workspace.id, container, 3.0))
    assert desk.status(container) is ContainerStatus.STOPPED
