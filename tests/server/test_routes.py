"""The routes behind the framework: tasks, deployments, outputs, and what each refuses."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode

import pytest

from treadle.engine.queue import CancelTasks
from treadle.model.errors import NoSpace

from .inside import Inside

ERROR = {"error", "code", "advice", "message"}
NOBODY = "00000000-0000-7000-8000-000000000000"
FIELDS = {
    "id", "external_id", "status", "failure_reason", "container_id", "created_at", "started_at", "ended_at",
    "updated_at", "deployment", "outputs", "stats", "result", "attempts", "why", "workspace", "external_workspace",
    "stub", "app",
}  # fmt: skip


# one task


def test_a_task_has_every_field_of_beams(server: Inside) -> None:
    """At both routes, with and without a slash at the end, and without the signing key."""
    deployment = server.deploy()
    task_id = server.submitted("resize")
    home = server.workspace.external_id
    for path in (f"/v2/task/{task_id}", f"/v2/task/{task_id}/", f"/api/v1/task/{home}/{task_id}", f"/api/v1/task/default/{task_id}"):
        answer = server.request("GET", path)
        task = answer.json()
        assert task.keys() >= FIELDS
        assert (task["id"], task["status"], task["result"], task["ended_at"]) == (task_id, "PENDING", None, None)
        assert task["deployment"] == {"id": deployment.id, "name": "resize", "version": 1}
        assert task["stats"] == {"active_containers": 0, "queue_depth": 1}
        assert task["why"]
        assert server.workspace.signing_key not in answer.text
        assert server.workspace.url_key not in answer.text


def test_the_config_of_a_stub_is_a_json_string_without_values_of_env(server: Inside) -> None:
    """As Beam's clients read it."""
    server.deploy(env={"KEY": "secret-value"})
    task_id = server.submitted("resize")
    answer = server.request("GET", f"/v2/task/{task_id}")
    config = json.loads(answer.json()["stub"]["config"])
    assert (config["handler"], config["env"]) == ("app:handler", ["KEY"])
    assert "secret-value" not in answer.text


@pytest.mark.parametrize("task_id", [NOBODY, "x", "%00", "..%2f..", "5c0e2a4d7b614a0e9f521b8f6c1f7a90", "é" * 40])
def test_a_task_that_is_none(shared: Inside, task_id: str) -> None:
    """404 in the one shape, whatever the id looks like."""
    answer = shared.request("GET", f"/v2/task/{task_id}")
    assert (answer.status_code, answer.json().keys()) == (404, ERROR)


def test_somebody_may_wait_for_the_end(server: Inside) -> None:
    """The answer comes with the final state, or as it is when the time is over."""
    server.deploy()
    task_id = server.submitted("resize")
    assert server.request("GET", f"/v2/task/{task_id}?wait=0.05").json()["status"] == "PENDING"
    waiting = server.wait_later("GET", f"/v2/task/{task_id}?wait=15")
    server.until(lambda: server.bridge._waiters)
    server.ask(server.engine.queue.cancel, CancelTasks(server.workspace.id, [task_id]))
    assert waiting.result(10).json()["status"] == "CANCELLED"
    assert server.bridge._waiters == {}
    assert server.request("GET", f"/v2/task/{task_id}?wait=15").json()["status"] == "CANCELLED"


@pytest.mark.parametrize("wait", ["-1", "61", "x", "nan"])
def test_a_wait_has_bounds(shared: Inside, wait: str) -> None:
    """400 names the parameter."""
    answer = shared.request("GET", f"/v2/task/{NOBODY}?wait={wait}")
    assert (answer.status_code, answer.json().keys()) == (400, ERROR)
    assert "wait" in answer.json()["error"]


# many tasks


def test_pages_are_walked_with_the_cursor(server: Inside) -> None:
    """Newest first, each once, also when more come meanwhile."""
    server.deploy()
    ids = [server.submitted("resize") for _ in range(7)]
    seen: list[str] = []
    cursor = ""
    while True:
        page = server.request("GET", "/v2/task", params={"limit": 3, "cursor": cursor}).json()
        seen += [task["id"] for task in page["data"]]
        server.submitted("resize")
        if not (cursor := page["next"]):
            break
    assert seen == ids[::-1]


@pytest.mark.parametrize(
    "cursor",
    [
        "x", "é", "AAAA", "====", "e30=", "W10=", "bnVsbA==", "eyJiZWZvcmUiOiAieCJ9", "-" * 2000,
        urlsafe_b64encode(b'{"before": 99999999999999999999}').decode(),
        urlsafe_b64encode(b'{"before": -1}').decode(),
        urlsafe_b64encode(b'{"before": 1.5}').decode(),
        urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
)  # fmt: skip
def test_a_cursor_is_one_of_ours_or_refused(shared: Inside, cursor: str) -> None:
    """400, never a failure."""
    answer = shared.request("GET", "/v2/task", params={"cursor": cursor})
    assert (answer.status_code, answer.json().keys()) == (400, ERROR)


def test_lists_are_filtered(server: Inside) -> None:
    """By status, id, deployment, name and time."""
    first = server.deploy("one")
    server.deploy("two")
    one, two = server.submitted("one"), server.submitted("two")
    server.ask(server.engine.queue.cancel, CancelTasks(server.workspace.id, [two]))
    created = server.request("GET", f"/v2/task/{one}").json()["created_at"]
    cases = {
        "status=pending": [one], "status=CANCELLED": [two], "status=PENDING,CANCELLED": [two, one],
        f"task_ids={one}": [one], f"task_ids={one},{two}": [two, one], f"stub_ids={first.id}": [one],
        "stub_names=two": [two], "stub_names=none": [], "container_ids=x": [], f"created_at_end={created}": [one],
        "created_at_start=2100-01-01": [], "created_at_start=2000-01-01T00:00:00%2B02:00": [two, one],
    }  # fmt: skip
    for query, expected in cases.items():
        answer = server.request("GET", f"/v2/task?{query}")
        assert [task["id"] for task in answer.json()["data"]] == expected, query


@pytest.mark.parametrize(
    "query", ["status=none", "limit=0", "limit=1001", "limit=x", "created_at_start=yesterday", "created_at_end=1", "created_at_end=2026-13-01"]
)
def test_filters_that_are_none(shared: Inside, query: str) -> None:
    """400, with what is allowed."""
    answer = shared.request("GET", f"/v2/task?{query}")
    assert (answer.status_code, answer.json().keys()) == (400, ERROR)


# cancel


def test_tasks_are_cancelled_by_body_and_by_query(server: Inside) -> None:
    """Both at once too; only those that were cancelled by this request are told."""
    server.deploy()
    one, two = server.submitted("resize"), server.submitted("resize")
    body = json.dumps({"task_ids": [one, NOBODY]}).encode()
    answer = server.request("DELETE", f"/v2/task/cancel/?task_ids={two}", content=body)
    assert sorted(answer.json()["cancelled"]) == sorted([one, two])
    again = server.request("DELETE", f"/api/v1/task/default?task_ids={one}")
    assert again.json() == {"cancelled": []}


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"task_ids": "x"}', b'{"task_ids": []}', b"\xff", b"{", b'{"task_ids": [1]}']
)
def test_a_cancel_must_name_tasks(shared: Inside, body: bytes) -> None:
    """400, with the form to send."""
    answer = shared.request("DELETE", "/v2/task/cancel", content=body)
    assert (answer.status_code, answer.json().keys()) == (400, ERROR)
    assert answer.json()["advice"]


# bodies of the framework's routes


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/v2/task/cancel"), ("POST", "/v2/deployments"), ("POST", "/v2/images")])
def test_every_body_has_a_limit(shared: Inside, method: str, path: str) -> None:
    """The one of max_body."""
    answer = shared.request(method, path, content=b" " * 1001)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert "1000" in answer.json()["error"]


@pytest.mark.parametrize(
    "config",
    [
        {}, {"handler": "x"}, {"handler": "app:f", "cpu": 1}, {"handler": "app:f", "workers": 0},
        {"handler": "app:f", "retries": "3"}, {"handler": "app:f", "callback_url": "x"}, {"handler": "app:f", "timeout": 1.5},
    ],
)  # fmt: skip
def test_a_definition_is_checked_on_receipt(shared: Inside, config: dict[str, object]) -> None:
    """Whoever sends it."""
    body = {"name": "x", "config": config, "source_id": "0" * 64, "image_id": "image-1"}
    answer = shared.request("POST", "/v2/deployments", content=json.dumps(body))
    assert (answer.status_code, answer.json().keys()) == (400, ERROR)


def test_a_deploy_names_what_is_missing(shared: Inside) -> None:
    """An unknown source or image, a name that cannot be part of a URL."""
    known = {"config": {"handler": "app:f"}, "source_id": "0" * 64, "image_id": "image-1"}
    for name, also in (("a b", {}), ("latest", {}), ("x", {"source_id": "1" * 64}), ("x", {"image_id": "none"})):
        answer = shared.request("POST", "/v2/deployments", content=json.dumps({"name": name, **known, **also}))
        assert answer.status_code == 400, answer.text


# sources


def test_a_source_is_stored_under_its_hash(shared: Inside) -> None:
    """Known afterwards, for its agents to read; bytes that do not fit the hash are refused."""
    packed = b"PK" + bytes(5000)
    source_id = hashlib.sha256(packed).hexdigest()
    path = f"/v2/sources/{source_id}"
    assert shared.request("HEAD", path).status_code == 404
    assert shared.request("PUT", path, content=packed[:-1]).status_code == 400
    assert shared.request("HEAD", path).status_code == 404
    assert shared.request("PUT", path, content=packed).status_code == 201
    assert shared.request("HEAD", path).status_code == 200
    read = shared.request("GET", path, token="agent-" + "x" * 64)
    assert (read.content, read.headers["content-length"]) == (packed, str(len(packed)))


def test_bytes_of_a_source_without_a_row_go_again(server: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """If they were not there before: those of another workspace's stay."""
    packed = b"PK" + bytes(5000)
    source_id = hashlib.sha256(packed).hexdigest()

    async def full(*_: object) -> None:
        raise NoSpace

    def refused() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(server.bridge, "ask", full)
            assert server.request("PUT", f"/v2/sources/{source_id}", content=packed).status_code == 507

    refused()
    assert server.house.blob.size(f"sources/{source_id}.zip") is None
    assert server.request("PUT", f"/v2/sources/{source_id}", content=packed).status_code == 201
    refused()
    assert server.house.blob.size(f"sources/{source_id}.zip") == len(packed)


@pytest.mark.parametrize("source_id", ["x", "A" * 64, "1" * 63, "..%2f" + "1" * 59])
def test_a_source_id_is_a_hash(shared: Inside, source_id: str) -> None:
    """Nothing else names a file of ours."""
    for method in ("PUT", "GET"):
        answer = shared.request(method, f"/v2/sources/{source_id}", token="agent-" + "x" * 64 if method == "GET" else None)
        assert answer.status_code in (400, 404)


# outputs


@pytest.mark.parametrize(
    "query", ["", "expires=9999999999", "expires=9999999999&signature=x", "expires=x&signature=y", "signature=é"]
)
def test_an_output_without_a_genuine_url(shared: Inside, query: str) -> None:
    """Is refused in one way, whether there is such an output or not."""
    answer = shared.request("GET", f"/output/id/{NOBODY}?{query}", token="")
    assert (answer.status_code, answer.json().keys()) == (400, ERROR)


def test_only_a_container_saves(shared: Inside) -> None:
    """Not even an admin."""
    answer = shared.request("PUT", f"/v2/outputs?task_id={NOBODY}&name=a&attempt=1", content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


# everything else


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("POST", "/v2/task", 405), ("PUT", "/v2/deployments", 405), ("PUT", "/health", 405), ("GET", "/v2", 404)],
)
def test_what_is_not_there_has_the_same_shape(shared: Inside, method: str, path: str, status: int) -> None:
    """Errors of the framework are told like ours."""
    answer = shared.request(method, path)
    assert (answer.status_code, answer.json().keys()) == (status, ERROR)


def test_health_needs_no_token(shared: Inside) -> None:
    """It says who answers."""
    body = shared.request("GET", "/health", token="").json()
    assert (body["status"], body["version"]) == ("ok", "0.0.0")


def test_the_signing_key_is_for_admins(shared: Inside) -> None:
    """At our route and at Beam's."""
    for path in ("/v2/workspace/signing-key", "/api/v1/token/default/signing-key"):
        assert shared.request("GET", path).json() == {"signing_key": shared.workspace.signing_key}
    assert shared.request("GET", "/api/v1/token/other/signing-key").status_code == 404
