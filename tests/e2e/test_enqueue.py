"""Enqueueing over HTTP: the addresses of a queue, what becomes of the payload, and every refusal."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from place import Place

pytestmark = pytest.mark.e2e

LIMIT = 16 * 1024 * 1024
ECHO = """
    from treadle import task_queue

    @task_queue(keep_warm_seconds=60)
    def handler(*args, **kwargs):
        return repr((args, kwargs))

    @task_queue(authorized=False)
    def public(word):
        return word
"""


@pytest.fixture(scope="module")
def echo(place: Place) -> Place:
    """A place with the queue `echo`, which answers with Python's own writing of its arguments."""
    place.deploy(ECHO, name="echo", file="echo.py")
    return place


def got(place: Place, answer: httpx2.Response) -> str:
    """The result of the task that was accepted."""
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["task_id"]
    task = place.ended(answer.json()["task_id"])
    assert task["status"] == "COMPLETE", task["failure_reason"]
    return str(task["result"])


def refusal(answer: httpx2.Response, status: int, code: str) -> str:
    """What the one error shape says, status and code being as expected; message and advice joined."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body.keys() == {"error", "code", "advice", "message"}
    assert all(isinstance(value, str) for value in body.values())
    assert body["code"] == code and body["message"] == body["error"] and body["advice"]
    return f"{body['error']} {body['advice']}"


# addresses


def test_a_queue_is_reached_by_name_version_and_id(echo: Place) -> None:
    """Name, `latest`, `v1` and id lead to the same deployment, with or without a slash at the end."""
    first = echo.task(echo.submit("echo", x=1))["deployment"]
    for address in ("echo", "echo/", "echo/latest", "echo/v1", f"id/{first['id']}", f"id/{first['id']}/"):
        task = echo.ended(echo.submit(address, x=1))
        assert (task["deployment"], task["result"]) == (first, "((), {'x': 1})"), address


def test_a_public_queue_needs_no_token_and_only_under_its_public_address(echo: Place) -> None:
    """`public/{id}` is open for `authorized=False` alone."""
    made = echo.deploy(ECHO, func="public", name="public-echo", file="echo.py")
    assert made["invoke_url"] == f"{echo.url}/taskqueue/public/{made['stub_id']}" and made["authorized"] is False
    assert got(echo, echo.request("POST", made["invoke_url"], token="", json={"word": "open"})) == "open"
    assert got(echo, echo.request("POST", "/taskqueue/public-echo", json={"word": "named"})) == "named"
    refusal(echo.request("POST", "/taskqueue/public-echo", token="", json={"word": "x"}), 401, "unauthorized")
    private = echo.task(echo.submit("echo"))["deployment"]["id"]
    told = refusal(echo.request("POST", f"/taskqueue/public/{private}", token="", json={}), 400, "invalid")
    assert "authorized=False" in told


# payload

BODIES = {
    b"": "((), {})",
    b" \n": "((), {})",
    b"{}": "((), {})",
    b"null": "((), {})",
    b'{"x": 2, "y": "b"}': "((), {'x': 2, 'y': 'b'})",
    b'{"args": [1, 2]}': "((1, 2), {})",
    b'{"kwargs": {"x": 2}}': "((), {'x': 2})",
    b'{"args": [1], "kwargs": {"x": 2}, "z": 9}': "((1,), {'x': 2})",
    b'{"args": [1], "z": 9}': "((1,), {'z': 9})",
    b'{"args": "text"}': "((), {'args': 'text'})",
    b'{"kwargs": 5}': "((), {'kwargs': 5})",
    b'{"args": "text", "kwargs": {"x": 1}}': "((), {'x': 1})",
    b'{"x": 1, "x": 2}': "((), {'x': 2})",
    b'{"x": 1} and the rest': "((), {'x': 1})",
    b'{"x": [null, true, false, {"y": []}]}': "((), {'x': [None, True, False, {'y': []}]})",
    b'{"x": 3.0}': "((), {'x': 3.0})",
    b'{"x": 3}': "((), {'x': 3})",
    b'{"x": -0.5e3}': "((), {'x': -500.0})",
    f'{{"x": {2**53 + 1}}}'.encode(): f"((), {{'x': {2**53 + 1}}})",
    f'{{"x": {2**70}, "y": {-(2**64)}}}'.encode(): f"((), {{'x': {2**70}, 'y': {-(2**64)}}})",
    '{"wörd": "ß \\u0000 \\ud83d\\ude00"}'.encode(): repr(((), {"wörd": "ß \0 \U0001f600"})),
}


@pytest.mark.parametrize("body", BODIES)
def test_a_body_becomes_arguments(echo: Place, body: bytes) -> None:
    """The table of the spec, with numbers of their own type and size, whatever the content type says."""
    assert got(echo, echo.request("POST", "/taskqueue/echo", content=body)) == BODIES[body]


QUERIES = {
    "n=3": "((), {'n': 3})",
    "n=3.5": "((), {'n': 3.5})",
    f"n={2**70}": f"((), {{'n': {2**70}}})",
    "n=abc": "((), {'n': 'abc'})",
    "n=nan": "((), {'n': 'nan'})",
    "n=inf": "((), {'n': 'inf'})",
    "n=": "((), {'n': ''})",
    "n=1&n=2": "((), {'n': [1, 2]})",
    "n=1&n=b": "((), {'n': ['1', 'b']})",
    "text=a%20b+c%2B": "((), {'text': 'a b c+'})",
    "auth_token=secret&n=1": "((), {'n': 1})",
}


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_parameter_becomes_a_named_argument(echo: Place, query: str) -> None:
    """Numbers are numbers, repeated keys are lists, and a token in the query is no argument."""
    assert got(echo, echo.request("POST", f"/taskqueue/echo?{query}")) == QUERIES[query]


def test_query_parameters_are_laid_over_the_body(echo: Place) -> None:
    """The same name in both is taken from the query."""
    answer = echo.request("POST", "/taskqueue/echo?x=2", json={"args": [0], "kwargs": {"x": 1, "y": 1}})
    assert got(echo, answer) == "((0,), {'x': 2, 'y': 1})"


@pytest.mark.parametrize(
    "body",
    [b"[1, 2]", b"5", b'"text"', b"true", b"x=1&y=2", b"{", b'{"x": }', b'{"x": NaN}', b"\xff\xfe", b'{"x": "\xff"}',
     b"--b\r\nContent-Disposition: form-data\r\n\r\n1\r\n--b--"],
    ids=lambda body: repr(body[:12]),
)  # fmt: skip
def test_a_body_that_is_not_a_json_object_is_refused(echo: Place, body: bytes) -> None:
    """Nothing is enqueued, and the answer says what to send."""
    assert "JSON object" in refusal(echo.request("POST", "/taskqueue/echo", content=body), 400, "invalid")


def test_a_body_nested_too_deeply_is_refused(echo: Place) -> None:
    """What no handler could read is not accepted."""
    body = b'{"x": ' * 5000 + b"1" + b"}" * 5000
    assert "nested too deeply" in refusal(echo.request("POST", "/taskqueue/echo", content=body), 400, "invalid")


# doors


@pytest.mark.parametrize(
    "form",
    [
        lambda token: f"Bearer {token}",
        lambda token: f"bearer {token}",
        lambda token: token,
        lambda token: f"Basic {token}",
        lambda token: "Basic " + base64.b64encode(f":{token}".encode()).decode(),
        lambda token: "Basic " + base64.b64encode(f"{token}:".encode()).decode(),
    ],
    ids=["Bearer", "bearer", "bare", "Basic plain", "Basic password", "Basic user"],
)
def test_a_token_is_taken_in_every_usual_form(echo: Place, form: Callable[[str], str]) -> None:
    """Bearer, bare and Basic, the last one plain as on Beam's page or coded as by curl -u."""
    headers = {"Authorization": form(echo.token)}
    assert echo.request("POST", "/taskqueue/echo", headers=headers, json={}).status_code == 200
    assert echo.request("GET", "/v2/task/", headers=headers).status_code == 200


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", "wrong", "Basic d3Jvbmc6d3Jvbmc=", "Digest x"])
def test_without_a_known_token_nothing_opens(echo: Place, header: str) -> None:
    """401 with the advice how to send one, for known and unknown queues alike."""
    for name in ("echo", "no-such-queue"):
        answer = echo.request("POST", f"/taskqueue/{name}", headers={"Authorization": header}, json={})
        assert "Authorization: Bearer" in refusal(answer, 401, "unauthorized")


# refusals


@pytest.mark.parametrize(
    "address",
    ["no-such-queue", "no-such-queue/v1", "echo/v99", "id/00000000-0000-0000-0000-000000000000", "id/x", "echo/v1/x",
     "", "%2e%2e"],
)  # fmt: skip
def test_an_unknown_queue_is_not_found(echo: Place, address: str) -> None:
    """404 with the command that makes one."""
    told = refusal(echo.request("POST", f"/taskqueue/{address}", json={}), 404, "not_found")
    assert "treadle deploy" in told


def test_a_version_of_another_form_is_refused(echo: Place) -> None:
    """It says which forms there are."""
    assert "latest" in refusal(echo.request("POST", "/taskqueue/echo/newest", json={}), 400, "invalid")


def test_a_queue_takes_only_post(echo: Place) -> None:
    """Another method is refused in the same shape."""
    assert "POST" in refusal(echo.request("GET", "/taskqueue/echo"), 405, "method_not_allowed")


def chunked(size: int) -> Iterator[bytes]:
    """A JSON object of so many bytes that does not say its length beforehand."""
    yield b'{"x": "'
    left = size - 9
    while left:
        piece = min(left, 1024 * 1024)
        yield b"y" * piece
        left -= piece
    yield b'"}'


def test_a_body_over_the_limit_is_refused_with_the_limit(echo: Place) -> None:
    """16 MiB are allowed unless configured otherwise, told by the length header or not."""
    for content in (b"".join(chunked(LIMIT + 1)), chunked(LIMIT + 1)):
        answer = echo.request("POST", "/taskqueue/echo", content=content)
        assert str(LIMIT) in refusal(answer, 413, "too_large")


def test_a_body_of_the_limit_is_run(echo: Place) -> None:
    """The largest payload that is accepted reaches the handler whole."""
    echo.deploy(
        """
        from treadle import task_queue

        @task_queue(memory=512)
        def handler(x):
            return len(x)
        """,
        name="large",
        file="large.py",
    )
    assert got(echo, echo.request("POST", "/taskqueue/large", content=chunked(LIMIT))) == str(LIMIT - 9)


def test_a_full_queue_is_refused_with_its_limit_and_takes_tasks_again(echo: Place, tmp_path: Path) -> None:
    """`max_pending_tasks` counts all unfinished tasks, the running one too."""
    echo.deploy(
        """
        import pathlib, time
        from treadle import task_queue

        @task_queue(max_pending_tasks=2)
        def handler(go):
            while not pathlib.Path(go).exists():
                time.sleep(0.01)
        """,
        name="full",
        file="full.py",
    )
    go = tmp_path / "go"
    accepted = [echo.submit("full", go=str(go)) for _ in range(2)]
    told = refusal(echo.request("POST", "/taskqueue/full", json={"go": str(go)}), 429, "queue_full")
    assert "exceeded max pending tasks: 2" in told and "max_pending_tasks" in told
    go.touch()
    assert [echo.ended(task_id)["status"] for task_id in accepted] == ["COMPLETE"] * 2
    assert echo.ended(echo.submit("full", go=str(go)))["status"] == "COMPLETE"


# many at once


def test_requests_at_the_same_time_each_get_a_task_of_their_own(echo: Place) -> None:
    """100 requests over 10 connections make 100 tasks, every one with its own arguments and result."""

    def one(number: int) -> tuple[int, str]:
        return number, echo.submit("echo", number=number)

    with ThreadPoolExecutor(10) as pool:
        accepted = dict(pool.map(one, range(100)))
    assert len(set(accepted.values())) == 100
    results: dict[int, Any] = {number: echo.ended(task_id)["result"] for number, task_id in accepted.items()}
    assert results == {number: f"((), {{'number': {number}}})" for number in range(100)}


def test_a_task_that_was_accepted_is_known_at_once(echo: Place) -> None:
    """The id that a request got can be read by the next one, and the payload is not in the record."""
    answer = echo.request("POST", "/taskqueue/echo", json={"secret": "payload-7431"})
    record = echo.task(answer.json()["task_id"])
    assert record["id"] == answer.json()["task_id"]
    ended = echo.ended(record["id"])
    del ended["result"]
    assert "payload-7431" not in json.dumps(ended)


# batches


def test_a_batch_is_accepted_whole_and_in_order(echo: Place) -> None:
    """An array of bodies gives an array of ids, and each task gets the arguments of its own element."""
    bodies = [{"n": 1}, {"args": [2]}, {}, {"kwargs": {"n": 2**70}}]
    answer = echo.request("POST", "/taskqueue/echo/batch", json=bodies)
    assert answer.status_code == 200, answer.text
    results = [echo.ended(task_id)["result"] for task_id in answer.json()["task_ids"]]
    assert results == ["((), {'n': 1})", "((2,), {})", "((), {})", f"((), {{'n': {2**70}}})"]


@pytest.mark.parametrize("body", [b"{}", b"[]", b"[1]", b'[{"x": 1}', b""])
def test_a_batch_that_is_none_is_refused(echo: Place, body: bytes) -> None:
    """Anything but an array of 1 to 10 000 objects is a 400."""
    said = refusal(echo.request("POST", "/taskqueue/echo/batch", content=body), 400, "invalid")
    assert said.startswith("invalid request payload")


def test_a_batch_over_the_queues_limit_is_refused_whole(echo: Place) -> None:
    """`max_pending_tasks` counts the whole batch before any of it is accepted."""
    echo.deploy(
        """
        from treadle import task_queue

        @task_queue(max_pending_tasks=3)
        def handler(n):
            return n
        """,
        name="small",
        file="small.py",
    )
    said = refusal(echo.request("POST", "/taskqueue/small/batch", json=[{"n": n} for n in range(4)]), 429, "queue_full")
    assert "3" in said
    page = echo.request("GET", "/v2/task/", params={"stub_names": "small"}).json()
    assert page["data"] == []


def test_put_many_gives_handles_in_order(echo: Place) -> None:
    """Tuples are positional, dicts named, anything else the one argument."""
    echo.app(
        """
        from treadle import task_queue

        @task_queue()
        def add(a, b=10):
            return a + b
        """,
        "many.py",
    )
    done = echo.script(
        """
        from many import add
        print([handle.result(wait=True, timeout=30) for handle in add.put_many([(1, 2), {"a": 3}, 4])])
        """
    )
    assert done.stdout.splitlines()[-2:] == ["=> Enqueued 3 tasks", "[3, 13, 14]"], done.stdout + done.stderr
