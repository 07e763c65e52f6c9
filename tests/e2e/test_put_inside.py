"""`.put()` from inside a container: a task that makes more tasks, of its own queue and of others of its source."""

from __future__ import annotations

from typing import Any

import pytest
from place import FINAL, Place, until

pytestmark = pytest.mark.e2e

APP = """
    import os
    from treadle import task_queue

    @task_queue(keep_warm_seconds=60, memory=256)
    def tree(depth):
        os.chdir("/")
        if depth == 0:
            return 1
        return 1 + sum(int(bool(task.id)) for task in tree.put_many([depth - 1, depth - 1]))

    @task_queue(keep_warm_seconds=60)
    def leaf(x):
        return [x, os.environ.get("TASK_ID") is not None]

    @task_queue(keep_warm_seconds=60)
    def parent(x):
        return leaf.put(x=x).result(wait=True, timeout=60)

    @task_queue(keep_warm_seconds=60, env={"MODE": "other"})
    def names():
        leaf.deploy("leaf-from-inside")
"""


@pytest.mark.parametrize("level", ["process", "namespaces"])
def test_a_task_waits_for_one_that_it_put(own_place: Place, level: str) -> None:
    """Its own container makes the draft of the other queue, of the same source, at every level."""
    own_place.up(env={"TREADLE_ISOLATION": level})
    own_place.deploy(APP, "parent", name="parent")
    task = own_place.ended(own_place.submit("parent", x=7))
    assert (task["status"], task["result"]) == ("COMPLETE", [7, True]), task["failure_reason"]


def test_a_task_fans_out_over_its_own_queue(place: Place) -> None:
    """All of them run: 1 + 2 + 4, in one draft, wherever the task has gone with its working directory."""
    place.deploy(APP, "tree", name="tree")
    root = place.ended(place.submit("tree", depth=2))
    assert root["result"] == 3, root["failure_reason"]

    def put() -> list[dict[str, Any]]:
        tasks = place.request("GET", "/v2/task/").json()["data"]
        mine = [task for task in tasks if task["stub"]["id"] != root["stub"]["id"]]
        return mine if len(mine) == 6 and all(task["status"] in FINAL for task in mine) else []

    tasks = until(put, what="the end of all six")
    assert sorted(task["result"] for task in tasks) == [1, 1, 1, 1, 3, 3]
    assert len({task["stub"]["id"] for task in tasks}) == 1


def test_a_task_makes_no_name(place: Place) -> None:
    """A deploy from inside fails with what to do instead."""
    place.deploy(APP, "names", name="names")
    failed = place.ended(place.submit("names"))
    assert failed["status"] == "FAILED"
    assert "A container may use drafts only" in failed["failure_reason"]
