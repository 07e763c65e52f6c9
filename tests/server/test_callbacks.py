"""Who may choose where a webhook goes: strangers never, containers without a network never; and whose choice is trusted."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from treadle.model.container import Isolation, Role

from .inside import Inside
from .test_links import agent, runner, wanted_container

URL = "http://hooks.example/x"
# The ways to name one: the path behind that of the queue, and the body.
WAYS: list[tuple[str, Any]] = [
    ("", {"callback_url": URL}), ("", {"kwargs": {"callback_url": URL}}), ("?callback_url=" + URL, {}),
    ("/batch", [{}, {"kwargs": {"callback_url": URL}, "args": []}]), ("", b'{"callb\\u0061ck_url": "http://hooks.example/x"}'),
]  # fmt: skip


def tasks(server: Inside) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.request("GET", "/v2/task").json()["data"]
    return found


def is_trusted(server: Inside, task_id: str) -> bool:
    task = server.store.reader().task(task_id)
    assert task is not None and task.callback_url
    return task.callback_trusted


@pytest.mark.parametrize(("behind", "body"), WAYS)
def test_a_request_without_a_token_names_no_webhook(server: Inside, behind: str, body: Any) -> None:
    """Whoever knows a public URL would have the server call, signed, whatever it can reach. A token sent along changes nothing."""
    public = server.deploy("open", authorized=False)
    for token in ("", server.token):
        answer = server.enqueue(f"public/{public.id}{behind}", body, token=token)
        assert answer.status_code == 400
        assert "callback_url" in answer.json()["error"]
    assert tasks(server) == []


def test_a_public_queue_has_its_own_webhook(server: Inside) -> None:
    """The one of its definition, which is trusted whoever submits."""
    public = server.deploy("open", authorized=False, callback_url=URL)
    answer = server.enqueue(f"public/{public.id}", {"x": 1, "callback_url": None}, token="")
    assert is_trusted(server, answer.json()["task_id"])


@pytest.mark.parametrize(("role", "trusted"), [(Role.ADMIN, True), (Role.DEPLOY, True), (Role.SUBMIT, False)])
def test_who_may_deploy_is_trusted_with_a_webhook(server: Inside, role: Role, trusted: bool) -> None:
    """It runs code of its choice on the machine anyway; who may only submit does not."""
    server.deploy(callback_url=URL)
    token = server.add_token(role)
    named = server.enqueue("resize", {"callback_url": "http://127.0.0.1:1"}, token=token).json()["task_id"]
    assert is_trusted(server, named) is trusted
    [batched] = server.enqueue("resize/batch", [{"callback_url": "http://127.0.0.1:1"}], token=token).json()["task_ids"]
    assert is_trusted(server, batched) is trusted
    assert is_trusted(server, server.enqueue("resize", {}, token=token).json()["task_id"])


def _container(server: Inside, **fields: Any) -> str:
    """The token of a container that works."""
    server.deploy(**fields)
    line = agent(server, Isolation.NAMESPACES)
    server.submitted("resize")
    container_id, token = wanted_container(server, line)
    runner(server, container_id, token).hear()
    return token


@pytest.mark.parametrize(("behind", "body"), WAYS)
def test_a_container_without_a_network_names_no_webhook(server: Inside, behind: str, body: Any) -> None:
    """It would be a way out for whatever it has read: in the URL, and in the result of the task."""
    token = _container(server, block_network=True)
    answer = server.enqueue(f"resize{behind}", body, token=token)
    assert answer.status_code == 403
    assert "block_network" in answer.json()["error"]
    assert server.enqueue("resize", {"x": 1}, token=token).status_code == 200
    assert len(tasks(server)) == 2


def test_a_container_with_a_network_names_webhooks_that_are_not_trusted(server: Inside) -> None:
    """They go where those of a submit token go."""
    token = _container(server)
    answer = server.enqueue("resize", {"callback_url": URL}, token=token)
    assert not is_trusted(server, answer.json()["task_id"])


@pytest.mark.parametrize("url", ["http://ann:secret@hooks.example/", "http://ann@hooks.example", "https://:x@hooks.example/", "http://@hooks.example/"])
def test_a_webhook_carries_no_password(server: Inside, url: str) -> None:
    """A URL is shown in lists and logs, and Basic auth would open doors that the server alone reaches."""
    server.deploy()

    def refused(answer: httpx2.Response) -> None:
        assert answer.status_code == 400
        assert "user" in answer.json()["advice"]

    refused(server.enqueue("resize", {"callback_url": url}))
    config = {"handler": "app:handler", "callback_url": url}
    body = json.dumps({"name": "x", "config": config, "source_id": "0" * 64, "image_id": "image-1"})
    refused(server.request("POST", "/v2/deployments", content=body))
