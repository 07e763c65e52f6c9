"""Walls between workspaces: what one has, another's token neither sees nor touches."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from place import Place

from treadle.engine.assemble import open_store
from treadle.engine.catalog import open_workspace
from treadle.engine.tokens import add_token, token_hash
from treadle.model.container import Role, Token, Workspace

pytestmark = pytest.mark.e2e

FOREIGN = "foreign-" + "x" * 64
READER = "reader-" + "x" * 64
APP = """
    import pathlib, time
    from treadle import Output, task_queue

    @task_queue()
    def handler(go):
        pathlib.Path("saved.txt").write_text("text")
        output = Output(path="saved.txt").save()
        pathlib.Path(go + ".id").write_text(output.id)
        while not pathlib.Path(go).exists():
            time.sleep(0.01)
"""


def let_in(place: Place) -> None:
    """Write a second workspace with a token, and a token of the first that may only read; no command does that yet."""
    store = open_store(place.data)
    now = time.time()
    other = open_workspace(store, Workspace(0, "11111111-1111-7111-8111-111111111111", "other", "sk_x", "key", now))
    mine = store.workspace_by_name("default")
    assert mine is not None
    for number, (workspace, token, role) in enumerate(((other, FOREIGN, Role.ADMIN), (mine, READER, Role.READ))):
        token_id = f"22222222-2222-7222-8222-22222222222{number}"
        add_token(store, Token(token_id, workspace.id, token_hash(token), role, active=True, created_at=now))
    store.close()


@pytest.fixture(scope="module")
def walled(place: Place) -> Place:
    """A place with the two tokens."""
    assert place.stop() == 0
    let_in(place)
    return place.up()


def test_a_foreign_token_sees_nothing_and_changes_nothing(walled: Place, tmp_path: Path) -> None:
    """Queues, tasks and outputs of another workspace are not found; cancelling its tasks does nothing."""
    place = walled
    made = place.deploy(APP)
    go = tmp_path / "go"
    task_id = place.submit(go=str(go))
    place.running(task_id)
    for address in ("q", "q/v1", f"id/{made['stub_id']}"):
        assert place.request("POST", f"/taskqueue/{address}", token=FOREIGN, json={}).status_code == 404
    for path in (f"/v2/task/{task_id}/", f"/api/v1/task/default/{task_id}", f"/api/v1/task/other/{task_id}"):
        assert place.request("GET", path, token=FOREIGN).status_code == 404
    assert place.request("GET", "/v2/task/", token=FOREIGN).json() == {"data": [], "next": ""}
    assert place.request("GET", f"/v2/task/?task_ids={task_id}", token=FOREIGN).json()["data"] == []
    cancelled = place.request("DELETE", "/v2/task/cancel/", token=FOREIGN, json={"task_ids": [task_id]})
    assert (cancelled.status_code, cancelled.json()) == (200, {"cancelled": []})
    assert place.request("GET", "/v2/workspace", token=FOREIGN).json()["name"] == "other"
    go.touch()
    output = place.ended(task_id)["outputs"][0]["id"]
    assert place.request("GET", f"/v2/outputs/{output}/url", token=FOREIGN).status_code == 404
    assert place.request("GET", f"/v2/outputs/{output}/url").status_code == 200


def test_a_token_that_may_read_can_do_nothing_else(walled: Place) -> None:
    """403 with the role that it takes."""
    place = walled
    place.deploy("from treadle import task_queue\n\n@task_queue()\ndef handler(): pass\n", name="plain")
    task_id = place.submit("plain")
    assert place.request("GET", f"/v2/task/{task_id}/", token=READER).status_code == 200
    refused = [
        place.request("POST", "/taskqueue/plain", token=READER, json={}),
        place.request("DELETE", "/v2/task/cancel/", token=READER, json={"task_ids": [task_id]}),
        place.request("GET", "/v2/workspace/signing-key", token=READER),
        place.request("POST", "/v2/deployments", token=READER, json={}),
        place.request("PUT", "/v2/sources/" + "0" * 64, token=READER, content=b""),
    ]
    assert [answer.status_code for answer in refused] == [403] * 5
    assert all("'read'" in answer.json()["error"] and answer.json()["advice"] for answer in refused)
    assert place.ended(task_id)["status"] == "COMPLETE"
