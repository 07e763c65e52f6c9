"""Tasks and the decisions on them, in the few forms that the store's tests need."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from treadle.model.container import Container, ContainerStatus
from treadle.model.deployment import Autoscaler, Deployment, DeploymentKind, ImageSpec, QueueConfig
from treadle.model.task import Attempt, Change, Failure, FailureKind, NewTask, Task, TaskFilter, TaskStatus
from treadle.store.base import Reader, Store

NOW = 1_000_000.0
DEPLOYMENT = "deployment-1"
CONTAINER = "taskqueue-deployment-1-0123abcd"
URL = "https://example.com/hook"
CONFIG = QueueConfig(
    handler="app:work",
    gpus=("A10G", "T4"),
    image=ImageSpec(python_packages=("pillow>=12",), env_vars={"A": "1"}),
    env={"KEY": "välue"},
    retry_for=("ValueError",),
    callback_url=URL,
    autoscaler=Autoscaler(max_containers=3),
)
RAISED = Failure(FailureKind.EXCEPTION, "ValueError: no", "ValueError", "no", "Traceback …")


def task(task_id: str, **fields: object) -> Task:
    """A PENDING task of DEPLOYMENT, due NOW."""
    pending = Task(task_id, 1, DEPLOYMENT, TaskStatus.PENDING, NOW, NOW, NOW)
    return msgspec.structs.replace(pending, **fields)


def payload_of(task_id: str) -> bytes:
    return b'{"args":[],"kwargs":{"id":"%s"}}' % task_id.encode()


def deployment(deployment_id: str, name: str = "", version: int = 0, **fields: object) -> Deployment:
    """A named deployment, or a draft when `name` is empty."""
    kind = DeploymentKind.DEPLOYMENT if name else DeploymentKind.DRAFT
    made = Deployment(
        deployment_id, 1, kind, name, version, CONFIG, "source", "image", f"digest of {deployment_id}", True, NOW, NOW
    )
    return msgspec.structs.replace(made, **fields)


def container(container_id: str, **fields: object) -> Container:
    made = Container(
        container_id, 1, "d", "agent", ContainerStatus.STARTING, f"hash of {container_id}", NOW, NOW + 15
    )  # fmt: skip
    return msgspec.structs.replace(made, **fields)


def furnish(store: Store, *tasks: Task) -> None:
    """Have the deployments and containers there that these tasks name."""
    for each in tasks:
        if store.deployment(each.deployment_id) is None:
            store.insert_deployment(deployment(each.deployment_id, workspace_id=each.workspace_id))
        if each.container_id and store.container(each.container_id) is None:
            store.insert_container(container(each.container_id))


def insert(store: Store, *tasks: Task) -> None:
    with store.transaction():
        furnish(store, *tasks)
        store.insert_tasks([NewTask(each, payload_of(each.id)) for each in tasks])


def claimed(waiting: Task, at: float = NOW + 1, container_id: str = CONTAINER) -> Change:
    """The decision to start a waiting task's next attempt."""
    number = waiting.attempts + 1
    running = msgspec.structs.replace(
        waiting, status=TaskStatus.RUNNING, attempts=number, started_at=at, updated_at=at, container_id=container_id
    )
    return Change(running, waiting.status, waiting.attempts)


def attempt_of(running: Task) -> Attempt:
    """The running attempt of a task."""
    assert running.started_at is not None
    return Attempt(running.id, running.attempts, running.container_id, TaskStatus.RUNNING, running.started_at)


def ended(running: Task, status: TaskStatus, at: float = NOW + 2, **fields: object) -> Change:
    """The decision to end a task with its running attempt; `fields` are the change's (result, notify)."""
    failure = None if status is TaskStatus.COMPLETE else RAISED
    after = msgspec.structs.replace(running, status=status, ended_at=at, updated_at=at, failure=failure)
    return msgspec.structs.replace(
        Change(after, TaskStatus.RUNNING, running.attempts, _end(running, status, at)), **fields
    )


def retried(running: Task, due: float, at: float = NOW + 2) -> Change:
    """The decision to let a task wait for its next attempt after this one failed."""
    after = msgspec.structs.replace(
        running, status=TaskStatus.RETRY, due=due, updated_at=at, container_id="", failure=RAISED
    )
    return Change(after, TaskStatus.RUNNING, running.attempts, _end(running, TaskStatus.FAILED, at))


def _end(running: Task, status: TaskStatus, at: float) -> Attempt:
    failure = None if status is TaskStatus.COMPLETE else RAISED
    assert running.started_at is not None
    return Attempt(running.id, running.attempts, running.container_id, status, running.started_at, at, failure)


def write(store: Store, *changes: Change) -> list[bool]:
    with store.transaction():
        furnish(store, *(change.task for change in changes))
        return store.commit(changes)


def claim(store: Store, task_id: str, container_id: str = CONTAINER) -> Task:
    """Start the task's next attempt; its row afterwards."""
    assert write(store, claimed(read(store, task_id), container_id=container_id)) == [True]
    return read(store, task_id)


def read(reader: Reader, task_id: str) -> Task:
    found = reader.task(task_id)
    assert found is not None
    return found


def ids(tasks: Sequence[Task]) -> list[str]:
    return [each.id for each in tasks]


def listed(reader: Reader, **filters: object) -> list[str]:
    """Ids of the tasks of workspace 1 that the filter lets through."""
    return ids(reader.tasks(msgspec.structs.replace(TaskFilter(1), **filters)))
