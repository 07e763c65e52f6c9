"""Containers from their first call to their end, as agents, runners and the clock tell it."""

from __future__ import annotations

import pytest

from treadle.engine.effects import ScaleDue
from treadle.engine.fleet import Drain, Gone
from treadle.model.container import ContainerStatus
from treadle.model.errors import NoSpace, NotFound
from treadle.model.task import Failure, FailureKind, TaskStatus
from treadle.model.wire import LEASE_SECONDS, AttemptRef

from .making import NOW, Desk

C, S = ContainerStatus, TaskStatus


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.agent()
    return desk


# connect


def test_a_call_that_was_overtaken_by_a_later_one_changes_nothing(desk: Desk) -> None:
    """The hello of a broken link may be read after that of the next one: what the later one has told counts."""
    deployment = desk.deploy()
    container, link = desk.started(deployment, free=0)
    desk.connect(container, free=1, link=link - 1)
    assert desk.free(deployment) == 0
    desk.ready(container, link)
    assert desk.free(deployment) == 1


def test_the_first_call_makes_a_container_run(desk: Desk) -> None:
    """It is running from then on, holds a lease, and takes work as soon as a child is free."""
    deployment = desk.deploy()
    task_id = desk.submit(deployment)
    desk.ask(desk.engine.scaler.scale)
    container = desk.container(deployment)
    assert desk.status(container) is C.STARTING
    desk.now += 2
    link = desk.connect(container, free=0)
    row = desk.row(container)
    assert (row.status, row.started_at, row.lease_until, row.limits) == (
        C.RUNNING, NOW + 2, NOW + 2 + LEASE_SECONDS, "watchdog",
    )  # fmt: skip
    assert desk.work() == []
    desk.ready(container, link)
    assert desk.work(container) == [(task_id, 1)]


def test_a_container_that_is_over_is_refused(desk: Desk) -> None:
    """Also one that never was."""
    container, _ = desk.started(desk.deploy())
    desk.gone(container)
    for name in (container, "taskqueue-x-1"):
        with pytest.raises(NotFound, match=name):
            desk.connect(name)


def test_a_closed_link_gets_no_work_and_keeps_its_lease(desk: Desk) -> None:
    """Tasks wait until the runner calls again, or somebody else is there."""
    deployment = desk.deploy()
    container, link = desk.started(deployment)
    desk.disconnect(container, link)
    task_id = desk.submit(deployment)
    assert (desk.work(), desk.status(container)) == ([], C.RUNNING)
    desk.connect(container)
    assert desk.work(container) == [(task_id, 1)]


def test_the_order_of_a_batch_does_not_cut_a_new_link_off(desk: Desk) -> None:
    """The end of the old link may be handled after the start of the new one."""
    deployment = desk.deploy()
    container, old = desk.started(deployment)
    desk.connect(container, link=999)
    desk.disconnect(container, old)
    task_id = desk.submit(deployment)
    assert desk.work(container) == [(task_id, 1)]


# the end of containers


def test_what_ran_in_a_container_that_ended_is_retried(desk: Desk) -> None:
    """At once elsewhere, if there is a free child; the reason is told."""
    deployment = desk.deploy(retry_delay=0.0)
    one, _ = desk.started(deployment)
    task_id = desk.submit(deployment)
    desk.gone(one, "killed by signal 9 (SIGKILL)")
    task = desk.task(task_id)
    assert (task.status, desk.status(one)) == (S.RETRY, C.STOPPED)
    assert task.failure is not None
    assert (task.failure.kind, task.failure.reason) == (FailureKind.LOST, "lost: killed by signal 9 (SIGKILL)")
    assert ScaleDue() in desk.sent
    assert desk.wanted() == []
    desk.ask(desk.engine.scaler.scale)
    two = desk.container(deployment)
    desk.connect(two)
    assert desk.work(two) == [(task_id, 2)]


def test_containers_that_end_together_are_not_given_each_others_tasks(desk: Desk) -> None:
    """No attempt is wasted on a container that is known to be gone."""
    deployment = desk.deploy(retry_delay=0.0, autoscaler=desk.scale_of(2))
    names, tasks = desk.pair(deployment)
    desk.run(*((desk.engine.fleet.gone, Gone(name, "machine lost")) for name in names))
    assert desk.work() == []
    assert [desk.task(t).attempts for t in tasks] == [1, 1]


def test_an_end_is_told_twice_and_counts_once(desk: Desk) -> None:
    """The runner's own word and the agent's."""
    deployment = desk.deploy()
    container, _ = desk.started(deployment)
    task_id = desk.submit(deployment)
    desk.gone(container)
    desk.gone(container)
    assert desk.task(task_id).attempts == 1
    assert len(desk.store.attempts(task_id)) == 1


# agents


def test_an_agent_is_told_what_to_run(desk: Desk) -> None:
    """With the token until the runner has called, and never again after."""
    deployment = desk.deploy()
    desk.submit(deployment)
    desk.ask(desk.engine.scaler.scale)
    (spec,) = desk.wanted() or []
    container = desk.container(deployment)
    assert (spec.container_id, spec.deployment_id, spec.config, spec.started) == (
        container, deployment.id, deployment.config, False,
    )  # fmt: skip
    assert spec.token
    desk.connect(container)
    desk.agent(running=[container])
    (spec,) = desk.wanted() or []
    assert (spec.token, spec.started) == ("", True)


def test_an_agents_old_link_may_end_after_its_new_one_began(desk: Desk) -> None:
    """It is there all the same."""
    old = desk.agent()
    desk.agent()
    desk.ask(desk.engine.fleet.agent_gone, old)
    deployment = desk.deploy()
    desk.submit(deployment)
    desk.ask(desk.engine.scaler.scale)
    assert desk.container(deployment)


# the server


def test_a_new_server_gives_running_attempts_one_lease(desk: Desk) -> None:
    """A runner that comes back in time goes on; what it holds is not run twice."""
    deployment = desk.deploy()
    container, _ = desk.started(deployment)
    task_id = desk.submit(deployment)
    desk.now += 1000
    desk.crash()
    assert desk.row(container).lease_until == desk.now + LEASE_SECONDS
    desk.beat_and_sweep(14)
    link = desk.connect(container, free=0, held=[AttemptRef(task_id, 1)])
    assert (desk.task(task_id).status, desk.work()) == (S.RUNNING, [])
    desk.finish(container, link, task_id)
    assert desk.task(task_id).status is S.COMPLETE


def test_a_new_server_loses_what_does_not_come_back(desk: Desk) -> None:
    """After one lease."""
    deployment = desk.deploy(retry_delay=0.0)
    container, _ = desk.started(deployment)
    task_id = desk.submit(deployment)
    desk.crash()
    desk.beat_and_sweep(16)
    assert (desk.status(container), desk.task(task_id).status) == (C.STOPPED, S.RETRY)


def test_a_new_server_sends_what_the_old_one_had_committed_and_not_sent(desk: Desk) -> None:
    """The claim is on disk, the work was never on the wire."""
    deployment = desk.deploy()
    container, _ = desk.started(deployment)
    task_id = desk.submit(deployment, payload=b'{"args":[],"kwargs":{"x":1}}')
    desk.crash()
    desk.agent(running=[container])
    desk.connect(container, free=1, held=[])
    (work,) = desk.to_runner(type(desk.to_runner(object)[0]), container)
    assert (work.ref, work.payload) == (AttemptRef(task_id, 1), b'{"args":[],"kwargs":{"x":1}}')


def test_a_new_server_knows_how_many_wait(desk: Desk) -> None:
    """Counts are made from the rows, and waiting tasks are given out."""
    deployment = desk.deploy(max_pending_tasks=3)
    container, _ = desk.started(deployment)
    first, second = desk.submit(deployment), desk.submit(deployment)
    desk.crash()
    assert desk.counts(deployment) == (1, 1)
    desk.agent()
    link = desk.connect(container, free=0, held=[AttemptRef(first, 1)])
    desk.finish(container, link, first)
    assert desk.work(container) == [(second, 1)]


def test_draining_lets_running_tasks_finish(desk: Desk) -> None:
    """Containers take no more work, those that have not begun end at once, and none is started."""
    deployment = desk.deploy(autoscaler=desk.scale_of(2))
    container, link = desk.started(deployment)
    running, waiting = desk.submit(deployment), desk.submit(deployment)
    desk.ask(desk.engine.scaler.scale)
    starting = desk.container(deployment)
    desk.ask(desk.engine.fleet.drain, Drain(30.0))
    assert [s.grace for s in desk.stopped(container)] == [30.0]
    assert (desk.status(container), desk.status(starting)) == (C.STOPPING, C.STOPPED)
    desk.finish(container, link, running)
    assert (desk.task(running).status, desk.work()) == (S.COMPLETE, [])
    desk.ask(desk.engine.scaler.scale)
    assert len(desk.engine.roster.live) == 1
    desk.gone(container)
    assert (desk.engine.roster.live, desk.task(waiting).status) == ({}, S.PENDING)


def test_a_stopping_container_past_its_grace_is_taken_away(desk: Desk) -> None:
    """Heartbeats do not keep it: its agent is to kill it, and what ran there was interrupted, at no charge."""
    deployment = desk.deploy(retry_delay=0.0)
    container, _ = desk.started(deployment)
    task_id = desk.submit(deployment)
    desk.ask(desk.engine.fleet.drain, Drain(5.0))
    desk.beat_and_sweep(19, container)
    assert (desk.status(container), desk.task(task_id).status) == (C.STOPPING, S.RUNNING)
    desk.beat_and_sweep(8, container)
    assert (desk.status(container), desk.task(task_id).status) == (C.STOPPED, S.RETRY)
    assert desk.task(task_id).failure == Failure(FailureKind.INTERRUPTED, "interrupted: shut down")


def test_a_stop_that_was_not_written_is_none(desk: Desk) -> None:
    """After a failed commit the container is in the line as before."""
    deployment = desk.deploy(keep_warm_seconds=0)
    container, _ = desk.started(deployment)
    desk.store.broken = 1
    (answer,) = desk.run((desk.engine.scaler.scale, None))
    assert isinstance(answer, NoSpace)
    task_id = desk.submit(deployment)
    assert desk.work(container) == [(task_id, 1)]
