"""Submitting: what is inserted, claimed at once, refused, and in which order it runs."""

from __future__ import annotations

import pytest

from treadle.engine.effects import ScaleDue
from treadle.model.errors import Conflict, QueueFull
from treadle.model.task import TaskStatus

from .making import NOW, Desk

S = TaskStatus
URL = "https://example.com/hook"


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.agent()
    return desk


def test_a_task_that_finds_a_free_child_is_inserted_claimed(desk: Desk) -> None:
    """One commit: the row, the attempt and the work."""
    deployment = desk.deploy(workers=2)
    container, _ = desk.started(deployment, free=2)
    task_id = desk.submit(deployment, payload=b'{"args":[],"kwargs":{"x":1}}')
    assert desk.work(container) == [(task_id, 1)]
    task = desk.task(task_id)
    assert (task.status, task.attempts, task.container_id, task.started_at) == (S.RUNNING, 1, container, NOW)
    assert [a.status for a in desk.store.attempts(task_id)] == [S.RUNNING]
    assert desk.counts(deployment) == (0, 1)
    assert ScaleDue() not in desk.sent


def test_without_a_free_child_it_waits_and_the_fleet_is_looked_at(desk: Desk) -> None:
    """Nothing is sent, and somebody sizes the fleet at once."""
    deployment = desk.deploy()
    task_id = desk.submit(deployment)
    assert (desk.task(task_id).status, desk.work()) == (S.PENDING, [])
    assert ScaleDue() in desk.sent
    assert desk.counts(deployment) == (1, 0)


def test_nobody_is_overtaken(desk: Desk) -> None:
    """Tasks run in the order in which they were accepted, also those of one batch."""
    deployment = desk.deploy()
    waiting = [desk.submit(deployment) for _ in range(3)]
    desk.ask(desk.engine.scaler.scale)
    container = desk.container(deployment)
    link = desk.connect(container, free=1)
    assert desk.work() == [(waiting[0], 1)]
    late = desk.submission(deployment)
    desk.run((desk.engine.queue.submit, late))
    for done, following in zip(waiting, [*waiting[1:], late.task_id], strict=True):
        desk.finish(container, link, done)
        assert desk.work() == [(following, 1)]


def test_a_batch_takes_as_many_children_as_are_free(desk: Desk) -> None:
    """The first tasks run, the rest waits."""
    deployment = desk.deploy(workers=2)
    container, _ = desk.started(deployment, free=2)
    asked = [desk.submission(deployment) for _ in range(4)]
    desk.run(*((desk.engine.queue.submit, request) for request in asked))
    assert desk.work(container) == [(asked[0].task_id, 1), (asked[1].task_id, 1)]
    assert desk.counts(deployment) == (2, 2)


def test_a_new_task_runs_beside_delayed_ones(desk: Desk) -> None:
    """A task that waits for its retry keeps nobody from a free child."""
    deployment = desk.deploy(retry_delay=100.0, retry_delay_max=100.0)
    container, link = desk.started(deployment)
    delayed = desk.submit(deployment)
    desk.fail(container, link, delayed)
    assert desk.task(delayed).status is S.RETRY
    fresh = desk.submit(deployment)
    assert desk.work() == [(fresh, 1)]
    assert desk.counts(deployment) == (1, 1)


def test_a_full_queue_refuses(desk: Desk) -> None:
    """Running tasks count; as soon as one is over there is room."""
    deployment = desk.deploy(max_pending_tasks=2)
    container, link = desk.started(deployment)
    first = desk.submit(deployment)
    desk.submit(deployment)
    with pytest.raises(QueueFull, match="exceeded max pending tasks: 2"):
        desk.submit(deployment)
    desk.finish(container, link, first)
    desk.submit(deployment)


def test_a_batch_is_refused_from_the_limit_on(desk: Desk) -> None:
    """Those before it are accepted."""
    deployment = desk.deploy(max_pending_tasks=2)
    asked = [(desk.engine.queue.submit, desk.submission(deployment)) for _ in range(4)]
    assert [isinstance(answer, QueueFull) for answer in desk.run(*asked)] == [False, False, True, True]


def test_an_id_is_taken_once(desk: Desk) -> None:
    """A second task with the id of another is refused, and the others of the batch are not."""
    deployment = desk.deploy()
    request = desk.submission(deployment)
    other = desk.submission(deployment)
    desk.run((desk.engine.queue.submit, request))
    twice, fine = desk.run((desk.engine.queue.submit, request), (desk.engine.queue.submit, other))
    assert isinstance(twice, Conflict)
    assert fine == other.task_id
    assert desk.counts(deployment) == (2, 0)


@pytest.mark.parametrize(("own", "of_queue", "expected"), [(URL, None, URL), (None, URL, URL), (URL, "https://b.example", URL)])
def test_a_task_keeps_its_webhook(desk: Desk, own: str | None, of_queue: str | None, expected: str) -> None:
    """Its own goes before that of the queue."""
    task_id = desk.submit(desk.deploy(callback_url=of_queue), url=own)
    assert desk.task(task_id).callback_url == expected
