"""Deployments off, on again and gone, and what becomes of their tasks."""

from __future__ import annotations

import pytest

from treadle.engine.fleet import Gone
from treadle.engine.switch import CLEAR_LIMIT, Which
from treadle.model.container import ContainerStatus
from treadle.model.deployment import Autoscaler, Deployment
from treadle.model.errors import Conflict, NoSpace, NotFound
from treadle.model.task import FailureKind, TaskStatus

from .making import Desk

C, S = ContainerStatus, TaskStatus


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.agent()
    return desk


def switch(desk: Desk, verb: str, deployment: Deployment) -> Deployment:
    after: Deployment = desk.ask(getattr(desk.engine.switch, verb), Which(desk.workspace.id, deployment.id))
    return after


def active(desk: Desk, deployment: Deployment) -> int:
    return sum(c.status is not C.STOPPING for c in desk.engine.roster.of(deployment.id))


def test_a_stopped_deployment_takes_no_tasks(desk: Desk) -> None:
    """They are refused, and taken again once it is started."""
    deployment = desk.deploy()
    off = switch(desk, "stop", deployment)
    assert (off.active, off.updated_at) == (False, desk.now)
    with pytest.raises(Conflict, match="Deployment is not active"):
        desk.submit(off)
    on = switch(desk, "start", deployment)
    assert desk.submit(on)


def test_what_waits_in_a_stopped_deployment_waits_on(desk: Desk) -> None:
    """No container is started for it before the deployment is."""
    deployment = desk.deploy()
    task_id = desk.submit(deployment)
    switch(desk, "stop", deployment)
    desk.tick(60)
    assert (desk.task(task_id).status, active(desk, deployment)) == (S.PENDING, 0)
    assert desk.engine.scaler.why(deployment.id, desk.now) == "its deployment is stopped"
    switch(desk, "start", deployment)
    desk.tick()
    desk.connect(desk.container(deployment))
    assert desk.work() == [(task_id, 1)]


def test_containers_of_a_stopped_deployment_leave_though_they_are_warm_or_the_least(desk: Desk) -> None:
    """Those at work get half a minute, those that start none."""
    deployment = desk.deploy(keep_warm_seconds=999, autoscaler=Autoscaler(max_containers=3, min_containers=2))
    desk.tick()
    first, second = (container.id for container in desk.engine.roster.of(deployment.id))
    desk.connect(first)
    task_id = desk.submit(deployment)
    switch(desk, "stop", deployment)
    desk.tick()
    assert [stop.grace for stop in desk.stopped(first)] == [30.0]
    assert (desk.status(first), desk.status(second)) == (C.STOPPING, C.STOPPED)
    assert desk.task(task_id).status is S.RUNNING
    desk.now += 31
    desk.ask(desk.engine.fleet.gone, Gone(first, "ended"))
    task = desk.task(task_id)
    assert (task.status, task.due) == (S.RETRY, desk.now)
    assert task.failure is not None and task.failure.kind is FailureKind.INTERRUPTED
    desk.tick(10)
    assert active(desk, deployment) == 0


def test_a_deleted_deployment_is_gone_and_its_waiting_tasks_are_cancelled(desk: Desk) -> None:
    """In slices, each with its webhook; finished tasks stay."""
    deployment = desk.deploy(max_pending_tasks=10_000)
    container, link = desk.started(deployment)
    done = desk.submit(deployment)
    desk.finish(container, link, done)
    running = desk.submit(deployment)
    waiting = [desk.submit(deployment, url="https://example.com/hook") for _ in range(CLEAR_LIMIT + 3)]
    switch(desk, "delete", deployment)
    (first,) = desk.run((desk.engine.switch.clear, None))
    (second,) = desk.run((desk.engine.switch.clear, None))
    assert (first, second) == (CLEAR_LIMIT, 3)
    assert {desk.task(task_id).status for task_id in waiting} == {S.CANCELLED}
    assert desk.task(waiting[0]).failure is not None
    assert len(desk.store.deliveries(waiting[0])) == 1
    assert (desk.task(done).status, desk.task(running).status) == (S.COMPLETE, S.RUNNING)
    assert desk.counts(deployment) == (0, 1)
    with pytest.raises(NotFound):
        switch(desk, "start", deployment)


def test_what_is_interrupted_in_a_deleted_deployment_ends_cancelled(desk: Desk) -> None:
    """Also after a new start of the server in between."""
    deployment = desk.deploy()
    container, _ = desk.started(deployment)
    task_id = desk.submit(deployment)
    switch(desk, "delete", deployment)
    desk.tick()
    desk.crash()
    desk.agent()
    desk.now += 31
    desk.ask(desk.engine.fleet.gone, Gone(container, "ended"))
    desk.tick()
    assert desk.task(task_id).status is S.CANCELLED


def test_the_version_before_a_deleted_one_stands_again(desk: Desk) -> None:
    """With its `min_containers`; the number of the deleted one is not used again."""
    least = Autoscaler(max_containers=3, min_containers=1)
    old, new = desk.deploy(autoscaler=least), desk.deploy(autoscaler=least)
    switch(desk, "delete", new)
    desk.tick()
    assert (active(desk, old), active(desk, new)) == (1, 0)
    assert desk.deploy(autoscaler=least).version == 3


def test_a_start_ends_the_cooldown(desk: Desk) -> None:
    """Whoever has put right what kept containers from starting need not wait."""
    deployment = desk.deploy()
    desk.submit(deployment)
    desk.tick()
    for _ in range(3):
        desk.ask(desk.engine.fleet.gone, Gone(desk.container(deployment), "ImportError: no", failed=True))
        desk.ask(desk.engine.scaler.scale)
    assert active(desk, deployment) == 0
    switch(desk, "start", deployment)
    desk.tick()
    assert active(desk, deployment) == 1


def test_only_named_deployments_of_the_workspace_are_switched(desk: Desk) -> None:
    """A draft, an unknown id and another workspace's are not found."""
    deployment, draft = desk.deploy(), desk.deploy("")
    for which in (Which(1, draft.id), Which(1, "nothing"), Which(2, deployment.id)):
        with pytest.raises(NotFound):
            desk.ask(desk.engine.switch.stop, which)
    assert desk.submit(deployment)


def test_a_switch_that_was_not_written_is_none(desk: Desk) -> None:
    """After a failed commit everybody sees the deployment as it was."""
    deployment = desk.deploy()
    desk.submit(deployment)
    desk.store.broken = 1
    (answer,) = desk.run((desk.engine.switch.stop, Which(desk.workspace.id, deployment.id)))
    assert isinstance(answer, NoSpace)
    desk.tick()
    assert active(desk, deployment) == 1
