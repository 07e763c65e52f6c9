"""What every store must do when it lists tasks: newest first, by cursor, with every filter."""

from __future__ import annotations

import pytest

from treadle.model.task import TaskStatus
from treadle.store.base import Reader, Store

from .making import DEPLOYMENT, NOW, claim, deployment, ids, insert, listed, read, task


@pytest.fixture
def tasks(store: Store) -> None:
    """Six tasks of workspace 1 in two named deployments, one of workspace 2."""
    with store.transaction():
        store.insert_deployment(deployment(DEPLOYMENT, name="cats", version=1))
        store.insert_deployment(deployment("deployment-2", name="cats", version=2))
        store.insert_deployment(deployment("deployment-3", name="dogs", version=1))
        store.insert_deployment(deployment("foreign", name="cats", version=1, workspace_id=2))
    insert(
        store,
        task("t1", created_at=NOW + 1),
        task("t2", created_at=NOW + 2, status=TaskStatus.COMPLETE),
        task("t3", created_at=NOW + 3, deployment_id="deployment-2", status=TaskStatus.FAILED),
        task("foreign", created_at=NOW + 3, workspace_id=2, deployment_id="foreign"),
        task("t4", created_at=NOW + 4, deployment_id="deployment-2"),
        task("t5", created_at=NOW + 5, deployment_id="deployment-3", status=TaskStatus.FAILED),
        task("t6", created_at=NOW + 6),
    )
    claim(store, "t6", container_id="box")


@pytest.mark.usefixtures("tasks")
@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, "t6 t5 t4 t3 t2 t1"),
        ({"statuses": (TaskStatus.PENDING, TaskStatus.RUNNING)}, "t6 t4 t1"),
        ({"statuses": (TaskStatus.PENDING, TaskStatus.RUNNING), "deployment_ids": (DEPLOYMENT,)}, "t6 t1"),
        ({"statuses": (TaskStatus.PENDING,), "task_ids": ("t1", "t2", "t6")}, "t1"),
        ({"statuses": (TaskStatus.FAILED, TaskStatus.TIMEOUT), "limit": 1}, "t5"),
        ({"limit": 2}, "t6 t5"),
        ({"statuses": (TaskStatus.FAILED,)}, "t5 t3"),
        ({"statuses": (TaskStatus.COMPLETE, TaskStatus.RUNNING)}, "t6 t2"),
        ({"statuses": (TaskStatus.TIMEOUT,)}, ""),
        ({"task_ids": ("t1", "t5", "unknown", "foreign")}, "t5 t1"),
        ({"deployment_ids": ("deployment-2",)}, "t4 t3"),
        ({"deployment_ids": ("deployment-2", "deployment-3")}, "t5 t4 t3"),
        ({"deployment_ids": ("foreign",)}, ""),
        ({"names": ("cats",)}, "t6 t4 t3 t2 t1"),
        ({"names": ("dogs", "birds")}, "t5"),
        ({"container_ids": ("box",)}, "t6"),
        ({"created_from": NOW + 3, "created_to": NOW + 5}, "t5 t4 t3"),
        ({"names": ("cats",), "statuses": (TaskStatus.FAILED,), "created_to": NOW + 4, "limit": 1}, "t3"),
        ({"task_ids": ("t1' OR '1'='1", "t1") * 50}, "t1"),
    ],
)
def test_filters(reader: Reader, filters: dict[str, object], expected: str) -> None:
    """Filters are combined; a restriction of several values lets each of them through; time bounds are inclusive."""
    assert listed(reader, **filters) == expected.split()


@pytest.mark.usefixtures("tasks")
@pytest.mark.parametrize("deployments", [(), (DEPLOYMENT,), (DEPLOYMENT, "deployment-2", "deployment-3")])
def test_the_cursor_walks_through_all(store: Store, reader: Reader, deployments: tuple[str, ...]) -> None:
    """Pages by `before_seq` give each task once, also when newer ones arrive in between."""
    whole, pages = listed(reader, deployment_ids=deployments), []
    cursor = None
    while page := listed(reader, deployment_ids=deployments, before_seq=cursor, limit=2):
        pages += page
        cursor = read(reader, page[-1]).seq
        insert(store, task(f"new{len(pages)}"))

    assert pages == whole


@pytest.mark.usefixtures("tasks")
def test_listed_tasks_are_whole(store: Store, reader: Reader) -> None:
    """A listed task equals the one asked for by its id."""
    found = store.waiting(DEPLOYMENT, NOW, 9, most=1_000_000)

    assert ids([each for each, _ in found]) == ["t1"]
    assert found[0][0] == reader.task("t1")
    assert store.running_in("box") == [reader.task("t6")]
