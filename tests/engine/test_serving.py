"""Serving: always a container of the newest code, which older ones stand in for until it is ready."""

from __future__ import annotations

import msgspec
import pytest

from treadle.engine.catalog import Deploy
from treadle.engine.effects import Served, TaskEnded
from treadle.engine.fleet import Gone
from treadle.engine.serving import EndServe, Reload
from treadle.model.container import ContainerStatus
from treadle.model.deployment import Deployment, DeploymentKind, QueueConfig
from treadle.model.errors import NotFound, TreadleError
from treadle.model.task import TaskStatus

from .making import IMAGE, SOURCE, Desk


def made(desk: Desk, new_id: str = "served-1", **fields: object) -> Deploy:
    config = QueueConfig(handler="app:handler", **fields)  # type: ignore[arg-type]
    return Deploy(new_id, desk.workspace.id, "", config, SOURCE, IMAGE.id)


@pytest.fixture
def served(desk: Desk) -> tuple[Desk, Deployment]:
    """Something that is served, and a machine to run it."""
    desk.agent()
    deployment: Deployment = desk.ask(desk.engine.serving.start, made(desk))
    desk.tick()
    return desk, deployment


Here = tuple[Desk, Deployment]


def reload(desk: Desk, deployment: Deployment, **fields: object) -> Deployment:
    desk.now += 1
    after: Deployment = desk.ask(desk.engine.serving.reload, Reload(deployment.id, made(desk, **fields)))
    desk.tick()
    return after


def test_what_is_served_has_a_container_before_its_first_task(served: Here) -> None:
    """It is no draft that `.put()` could find, and Beam has a word for it."""
    desk, deployment = served
    assert len(desk.engine.roster.of(deployment.id)) == 1
    assert (deployment.kind, deployment.stub_type) == (DeploymentKind.SERVE, "taskqueue/serve")
    desk.connect(desk.container(deployment))
    task_id = desk.submit(deployment)
    assert desk.work() == [(task_id, 1)]


def test_old_code_works_until_new_code_is_ready(served: Here) -> None:
    """A task that comes meanwhile runs at once; the next one after that runs in the new container."""
    desk, deployment = served
    old = desk.container(deployment)
    old_link = desk.connect(old)
    after = reload(desk, deployment, timeout=7)
    new = desk.container(deployment)
    assert new != old
    meanwhile = desk.submit(after)
    assert desk.work(old) == [(meanwhile, 1)]
    desk.finish(old, old_link, meanwhile)
    desk.connect(new)
    assert Served(deployment.id, "ready", new) in desk.sent
    assert [stop.reason for stop in desk.stopped(old)] == ["replaced by newer code"]
    task_id = desk.submit(after)
    assert desk.work(new) == [(task_id, 1)]
    assert desk.engine.queue.config(deployment.id).timeout == 7


def test_new_code_that_cannot_be_loaded_leaves_the_old_at_work(served: Here) -> None:
    """However often it is tried; whoever follows is told why, and the next save is tried at once."""
    desk, deployment = served
    old = desk.container(deployment)
    desk.connect(old)
    after = reload(desk, deployment)
    for _ in range(3):
        new = desk.container(deployment)
        desk.connect(new, free=0)
        desk.ask(desk.engine.fleet.load_failed, Gone(new, "ImportError: no", failed=True))
        assert Served(deployment.id, "failed", "ImportError: no") in desk.sent
        desk.ask(desk.engine.fleet.gone, Gone(new, "ended"))
        desk.tick()
    assert desk.status(old) is ContainerStatus.RUNNING
    task_id = desk.submit(after)
    assert desk.work(old) == [(task_id, 1)]
    reload(desk, deployment)
    newest = desk.container(deployment)
    assert desk.status(newest) is ContainerStatus.STARTING
    desk.connect(newest)
    assert desk.stopped(old)


def test_a_container_that_was_overtaken_before_it_was_ready_is_given_up(served: Here) -> None:
    """Two saves in a row: one container of the newest code, and none of the code between."""
    desk, deployment = served
    first = desk.container(deployment)
    reload(desk, deployment)
    assert desk.status(first) is ContainerStatus.STOPPED
    second = desk.container(deployment)
    reload(desk, deployment)
    assert desk.status(second) is ContainerStatus.STOPPED
    assert len(desk.engine.roster.of(deployment.id)) == 1


def test_a_task_that_runs_on_replaced_code_may_finish(served: Here) -> None:
    """It has some time; its report counts."""
    desk, deployment = served
    old = desk.container(deployment)
    link = desk.connect(old)
    task_id = desk.submit(deployment)
    reload(desk, deployment)
    desk.connect(desk.container(deployment))
    desk.finish(old, link, task_id)
    assert desk.task(task_id).status is TaskStatus.COMPLETE
    assert TaskEnded(task_id, deployment.id) in desk.sent


def test_ending_leaves_nothing(served: Here) -> None:
    """No container, no waiting task, no new one; a second end and a reload find nothing."""
    desk, deployment = served
    container = desk.container(deployment)
    desk.connect(container)
    running, waiting = desk.submit(deployment), desk.submit(deployment)
    over: Deployment = desk.ask(desk.engine.serving.end, EndServe(desk.workspace.id, deployment.id))
    assert not over.served
    assert [stop.grace for stop in desk.stopped(container)] == [1.0]
    desk.ask(desk.engine.fleet.gone, Gone(container, "ended"))
    desk.ask(desk.engine.switch.clear)
    desk.tick()
    assert desk.task(waiting).status is TaskStatus.CANCELLED
    desk.ask(desk.engine.switch.clear)
    assert desk.task(running).status in (TaskStatus.CANCELLED, TaskStatus.RETRY, TaskStatus.FAILED)
    assert desk.engine.roster.of(deployment.id) == []
    with pytest.raises(TreadleError, match="not active"):
        desk.submit(over)
    for verb, request in (
        (desk.engine.serving.end, EndServe(desk.workspace.id, deployment.id)),
        (desk.engine.serving.reload, Reload(deployment.id, made(desk))),
    ):
        with pytest.raises(NotFound):
            desk.ask(verb, request)


def test_it_is_served_on_after_a_crash_of_the_server(served: Here) -> None:
    """With the newest definition, and a container."""
    desk, deployment = served
    reload(desk, deployment, timeout=9)
    desk.crash()
    assert [found.id for found in desk.store.served()] == [deployment.id]
    assert desk.engine.queue.config(deployment.id).timeout == 9
    desk.agent()
    desk.tick()
    assert len(desk.engine.roster.of(deployment.id)) == 1


def test_only_what_is_served_is_replaced(served: Here) -> None:
    """A draft, a named version, another workspace's, something whose source was never uploaded."""
    desk, deployment = served
    named = desk.deploy()
    with pytest.raises(NotFound):
        desk.ask(desk.engine.serving.reload, Reload(named.id, made(desk)))
    stranger = msgspec.structs.replace(made(desk), workspace_id=desk.workspace.id + 1)
    with pytest.raises(TreadleError):
        desk.ask(desk.engine.serving.reload, Reload(deployment.id, stranger))
    missing = msgspec.structs.replace(made(desk), source_id="f" * 64)
    with pytest.raises(TreadleError, match="never uploaded"):
        desk.ask(desk.engine.serving.reload, Reload(deployment.id, missing))
    assert desk.store.deployment(deployment.id) == deployment
