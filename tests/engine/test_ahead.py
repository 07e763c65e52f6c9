"""Short tasks are sent ahead of free children, and asked back when they lie behind a long one."""

from __future__ import annotations

import pytest

from treadle.engine.effects import Linked
from treadle.engine.fleet import StopContainer
from treadle.engine.hints import AHEAD_MOST
from treadle.engine.queue import RECALL_SECONDS, GivenBack
from treadle.model.deployment import Deployment
from treadle.model.task import TaskStatus
from treadle.model.wire import AttemptRef, Recall

from .making import Desk

S = TaskStatus
Busy = tuple[Desk, Deployment, str, int]


@pytest.fixture
def busy(desk: Desk) -> Busy:
    """A desk, a deployment, its container with one child, and the link: one task has run for a millisecond."""
    desk.agent()
    deployment = desk.deploy()
    container, link = desk.started(deployment)
    desk.finish(container, link, desk.submit(deployment), ran=0.001)
    return desk, deployment, container, link


def test_what_a_child_does_in_twenty_milliseconds_is_sent_ahead(busy: Busy) -> None:
    """Of tasks that take a millisecond a child may hold twenty; the others wait in the store, in their order."""
    desk, deployment, container, _ = busy
    tasks = [desk.submit(deployment) for _ in range(25)]
    running = {task.id for task in desk.store.running_in(container)}
    assert running == set(tasks[:20])
    assert desk.counts(deployment) == (5, 20)


def test_no_more_than_the_most_is_sent_ahead(busy: Busy) -> None:
    """However short the tasks are."""
    desk, deployment, container, link = busy
    for _ in range(30):
        desk.finish(container, link, desk.submit(deployment), ran=0.00001)
    for _ in range(AHEAD_MOST + 5):
        desk.submit(deployment)
    assert desk.counts(deployment) == (5, AHEAD_MOST)


@pytest.mark.parametrize(("retries", "ran"), [(0, 0.0001), (3, 0.5)])
def test_nothing_is_sent_ahead(desk: Desk, retries: int, ran: float) -> None:
    """Not of tasks that take long, and not where a container that is lost with them would cost them their only try."""
    desk.agent()
    deployment = desk.deploy(retries=retries)
    container, link = desk.started(deployment)
    desk.finish(container, link, desk.submit(deployment), ran=ran)
    desk.submit(deployment), desk.submit(deployment)
    assert desk.counts(deployment) == (1, 1)


def test_a_free_child_elsewhere_goes_before_sending_ahead(desk: Desk) -> None:
    """Work is spread over the children before any of them gets a second task."""
    desk.agent()
    deployment = desk.deploy(autoscaler=desk.scale_of(2))
    names, _ = desk.pair(deployment)
    desk.engine.hints.slots.took(deployment.id, [0.001])
    for name in names:
        link = desk.connect(name, free=0, held=[AttemptRef(desk.task_of(name), 1)])
        desk.finish(name, link, desk.task_of(name), ran=0.001)
    new = [desk.submit(deployment), desk.submit(deployment)]
    assert {desk.task(task_id).container_id for task_id in new} == set(names)


def test_work_behind_a_long_task_is_asked_back(busy: Busy) -> None:
    """When nothing has ended for a while where work lies ahead, its runner is asked for it; elsewhere nobody is."""
    desk, deployment, container, _ = busy
    desk.submit(deployment), desk.submit(deployment)
    desk.ask(desk.engine.queue.recall)
    assert desk.to_runner(Recall) == []
    desk.now += RECALL_SECONDS + 0.1
    desk.ask(desk.engine.queue.recall)
    assert desk.to_runner(Recall, container) == [Recall()]


def test_what_is_given_back_waits_at_its_old_place_and_costs_no_attempt(busy: Busy) -> None:
    """It is PENDING as if it had never been sent, goes before younger tasks, and is not sent ahead again."""
    desk, deployment, container, link = busy
    first, second, third = (desk.submit(deployment) for _ in range(3))
    given = GivenBack(container, [AttemptRef(second, 1), AttemptRef(third, 1)], link)
    desk.ask(desk.engine.queue.take_back, given)
    younger = desk.submit(deployment)
    assert [(desk.task(t).status, desk.task(t).attempts) for t in (second, third)] == [(S.PENDING, 0)] * 2
    assert desk.store.attempts(second) == []
    assert desk.counts(deployment) == (3, 1)
    desk.finish(container, link, first, ran=0.9)
    assert desk.work() == [(second, 1)]
    desk.finish(container, link, second, ran=0.9)
    assert desk.work() == [(third, 1)]
    assert desk.task(younger).status is S.PENDING


def test_what_an_old_link_gives_back_is_not_taken(busy: Busy) -> None:
    """The runner has connected anew since, and was sent again what it did not name."""
    desk, deployment, container, link = busy
    first, second = desk.submit(deployment), desk.submit(deployment)
    desk.connect(container, free=0, held=[AttemptRef(first, 1)])
    assert desk.work() == [(second, 1)]
    desk.ask(desk.engine.queue.take_back, GivenBack(container, [AttemptRef(second, 1)], link))
    assert desk.task(second).status is S.RUNNING


def test_a_stopping_runner_gives_back_over_a_new_link_too(busy: Busy) -> None:
    """It was told to stop, was cut off and has called again: what it never began costs no attempt."""
    desk, deployment, container, link = busy
    first, second = desk.submit(deployment), desk.submit(deployment)
    desk.ask(desk.engine.fleet.end, StopContainer(desk.workspace.id, container, 10.0))
    desk.disconnect(container, link)
    anew = desk.connect(container, free=0, held=[AttemptRef(first, 1), AttemptRef(second, 1)])
    desk.ask(desk.engine.queue.take_back, GivenBack(container, [AttemptRef(second, 1)], anew))
    assert (desk.task(second).status, desk.task(second).attempts) == (S.PENDING, 0)


def test_a_late_hello_of_a_stopping_runner_takes_no_link_over(busy: Busy) -> None:
    """Messages go to the newest link, in whatever order they were greeted."""
    desk, _, container, link = busy
    desk.ask(desk.engine.fleet.end, StopContainer(desk.workspace.id, container, 10.0))
    desk.connect(container, free=0, link=link + 2)
    desk.connect(container, free=0, link=link + 1)
    assert not any(isinstance(effect, Linked) for effect in desk.sent)


def test_a_report_of_what_was_given_back_is_refused(busy: Busy) -> None:
    """Its number may be given again, to another container: only that one's report counts."""
    desk, deployment, container, link = busy
    _, second = desk.submit(deployment), desk.submit(deployment)
    desk.ask(desk.engine.queue.take_back, GivenBack(container, [AttemptRef(second, 1)], link))
    desk.finish(container, link, second, free=False)
    assert desk.task(second).status is S.PENDING
