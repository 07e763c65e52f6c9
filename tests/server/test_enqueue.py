"""The door of every queue: which URL means which queue, what is taken, and how it is refused."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treadle.server.hot import read_body

from .inside import Inside

ERROR = {"error", "code", "advice", "message"}


def test_a_task_is_on_disk_when_its_id_is_given(server: Inside) -> None:
    """A second look at the store finds it, with its payload."""
    server.deploy()
    task_id = server.submitted("resize", {"x": 1})
    reader = server.store.reader()
    task = reader.task(task_id)
    assert task is not None
    assert json.loads(reader.payload(task_id) or b"") == {"args": [], "kwargs": {"x": 1}}
    reader.close()


def test_a_queue_has_several_urls(server: Inside) -> None:
    """The name, `latest`, a version, and the id; a slash at the end does no harm."""
    old = server.deploy()
    new = server.deploy()
    urls = {
        "resize": new, "resize/": new, "resize/latest": new, "resize/v1": old, "resize/v2": new, f"id/{old.id}": old,
    }  # fmt: skip
    for path, deployment in urls.items():
        task = server.store.reader().task(server.submitted(path))
        assert task is not None
        assert task.deployment_id == deployment.id


def test_a_name_means_its_newest_version_at_once(server: Inside) -> None:
    """A deploy that was answered counts for the next request."""
    source = {"source_id": "0" * 64, "image_id": "image-1"}
    server.deploy()
    server.submitted("resize")
    body = json.dumps({"name": "resize", "config": {"handler": "app:handler"}, **source})
    made = server.request("POST", "/v2/deployments", content=body).json()
    task = server.store.reader().task(server.submitted("resize"))
    assert task is not None
    assert (task.deployment_id, made["version"]) == (made["deployment_id"], 2)
    assert made["invoke_url"] == "http://treadle/taskqueue/resize/v2"


def test_a_public_queue_needs_no_token(shared: Inside) -> None:
    """And a queue that is not public cannot be reached that way."""
    public, private = shared.deploy("open", authorized=False), shared.deploy("closed")
    assert shared.enqueue(f"public/{public.id}", token="").status_code == 200
    assert shared.enqueue(f"public/{private.id}", token="").status_code == 400
    assert shared.enqueue("open", token="").status_code == 401


def test_nobody_learns_without_a_token_which_queues_there_are(shared: Inside) -> None:
    """A queue that is not public, one that was deleted and one that never was are answered alike."""
    gone, private, never = shared.deploy("gone", authorized=False), shared.deploy("closed"), "0" * 8 + "-0000" * 3 + "-" + "0" * 12
    assert shared.request("DELETE", f"/v2/deployments/{gone.id}").status_code == 200
    answers = {one: shared.enqueue(f"public/{one}", token="") for one in (gone.id, private.id, never, "x")}
    said = {(answer.status_code, answer.text.replace(one, "ID")) for one, answer in answers.items()}
    assert len(said) == 1
    [(status, text)] = said
    assert status == 400
    assert json.loads(text)["error"].startswith("invalid stub id")


VERSIONS = ["v0", "v01", "v001", "v\u0661", "v\uff11", "v1\n", "v+1", "v1_0", "v1234567890", "V1", "v", "v-1", "Latest"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_has_one_spelling(shared: Inside, version: str) -> None:
    """`v` and a number as it is written: no zeros before it, no digits of other scripts."""
    answer = shared.enqueue(f"resize/{quote(version)}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert "'v1'" in answer.json()["advice"]


def test_what_is_remembered_does_not_grow_with_spellings(server: Inside) -> None:
    """A deployment is remembered once under each of its versions and once as the newest."""
    server.deploy()
    for version in ("", "/latest", "/v1", *(f"/{quote(version)}" for version in VERSIONS)):
        server.enqueue(f"resize{version}")
    assert len(server.house.lookup._named) == 2


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("nothing", 404), ("resize/v9", 404), ("resize/9", 400), ("resize/v", 400), ("resize/V1", 400), ("", 404),
        ("resize/v1/x", 404), ("id/unknown", 404), ("id/", 404), ("%2e%2e", 404), ("re%73ize/v9", 404),
    ],
)  # fmt: skip
def test_what_is_no_queue(shared: Inside, path: str, status: int) -> None:
    """Is told in the one shape, with the way to one."""
    answer = shared.enqueue(path)
    assert answer.status_code == status
    assert answer.json().keys() == ERROR
    assert answer.json()["advice"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_refused(shared: Inside, method: str) -> None:
    """A queue is posted to."""
    answer = shared.request(method, "/taskqueue/resize")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


@pytest.mark.parametrize("body", [b"[]", b"5", b"x=1", b"\xff", b'{"x"', b'{"callback_url": "nowhere"}'])
def test_bodies_that_are_refused(shared: Inside, body: bytes) -> None:
    """400, and nothing is written."""
    before = shared.request("GET", "/v2/task").json()
    answer = shared.enqueue("resize", body)
    assert (answer.status_code, answer.json().keys()) == (400, ERROR)
    assert shared.request("GET", "/v2/task").json()["data"] == before["data"]


def test_a_body_has_a_limit(server: Inside) -> None:
    """Up to it everything goes; beyond it the limit is named, whether the length was told or not."""
    server.deploy()
    assert server.enqueue("resize", b'{"x": "%s"}' % (b"a" * 991)).status_code == 200
    answer = server.enqueue("resize", b'{"x": "%s"}' % (b"a" * 992))
    assert answer.status_code == 413
    assert "limit of 1000 bytes" in answer.json()["error"]

    async def drops() -> object:
        for _ in range(50):
            yield b" " * 100

    answer = server.request("POST", "/taskqueue/resize", content=drops())
    assert answer.status_code == 413


def test_a_full_queue_answers_429(server: Inside) -> None:
    """And names its limit."""
    server.deploy(max_pending_tasks=1)
    server.submitted("resize")
    answer = server.enqueue("resize")
    assert (answer.status_code, answer.json()["code"]) == (429, "queue_full")
    assert "max pending tasks: 1" in answer.json()["error"]


def test_a_draining_server_takes_nothing(server: Inside) -> None:
    """It says so, and so does its health."""
    server.deploy()
    server.draining = True
    assert (server.enqueue("resize").status_code, server.request("GET", "/health").status_code) == (503, 503)
    assert server.request("GET", "/health").json()["status"] == "draining"


@settings(max_examples=60, suppress_health_check=[*settings().suppress_health_check, HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80), st.text(alphabet="abc=&%0123+;é", max_size=20))
def test_no_bytes_make_the_server_fail(shared: Inside, body: bytes, query: str) -> None:
    """Taken or refused."""
    answer = shared.request("POST", f"/taskqueue/resize?{query}", content=body)
    assert answer.status_code in (200, 400)


def test_a_body_in_many_pieces_is_put_together_once() -> None:
    """Not again for each piece, which would hold up all others for seconds."""
    pieces = iter([b"x" * 200] * 20_000)

    async def receive() -> dict[str, Any]:
        piece = next(pieces, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    before = time.thread_time()
    body = asyncio.run(read_body({"headers": []}, receive, 10_000_000))
    assert len(body) == 4_000_000
    assert time.thread_time() - before < 0.5
