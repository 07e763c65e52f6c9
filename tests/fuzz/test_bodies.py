"""JSON that is large, deep, odd or none, and values that are out of any range, to every route that takes a body."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.runner.results import arguments
from treadle.server import house

from .effort import effort
from .listening import Listening, check_error, check_refusal

DEEP = b"[" * 40_000 + b"]" * 40_000
BODIES = [("POST", path) for path in ("/v2/secrets", "/v2/volumes", "/v2/deployments", "/v2/images", "/v2/images/prune", "/v2/serve", "/v2/tokens", "/v2/volumes/x/move")]
BODIES += [("PUT", "/v2/serve/x"), ("PATCH", "/v2/secrets/A"), ("DELETE", "/v2/task/cancel")]
QUEUES = [("POST", "/taskqueue/resize"), ("POST", "/taskqueue/resize/batch")]
ODD = [
    b'{"x": NaN}', b'{"x": -Infinity}', b'{"x": 01}', b'{"x": 1', b"{]", b"\xff\xfe{\x00}\x00", b'{"\xed\xa0\x80": 1}',
    rb'{"x": "\ud800"}', b'{"x": "\x00"}', b"[" * 9, b'{"x": %s}' % DEEP, b'[{"x": %s}]' % DEEP, DEEP, b"5", b'"x"',
]  # fmt: skip


@pytest.mark.parametrize("body", ODD, ids=lambda body: repr(body[:24]))
@pytest.mark.parametrize(("method", "path"), BODIES + QUEUES)
def test_what_is_no_json_is_refused(server: Listening, method: str, path: str, body: bytes) -> None:
    """NaN, infinity, lone surrogates, half a body, and what is nested deeper than anybody reads, by every route."""
    answer = server.request(method, path, content=body)
    check_refusal(answer)
    assert answer.status_code == (413 if path == "/v2/tokens" and len(body) > 9000 else 400)


FORM, PART = "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"
PARTS = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="a.json"\r\n\r\n%s\r\n--x--\r\n'
FORMS = [(FORM, b"name=MINE&value=x&role=admin"), (PART, PARTS % (b"name", b"MINE")), (PART, PARTS % (b"file", b'{"x": 1}'))]
LISTS = ("/v2/task", "/v2/secrets", "/v2/volumes", "/v2/tokens", "/v2/deployments")


@pytest.mark.parametrize("body", [body for _, body in FORMS], ids=["form", "part", "file"])
@pytest.mark.parametrize("kind", [FORM, PART, "multipart/form-data", "text/plain", "application/msgpack", "\xff", ""])
@pytest.mark.parametrize(("method", "path"), BODIES + QUEUES)
def test_what_a_page_sends_is_no_json_whatever_it_says_to_be(server: Listening, method: str, path: str, kind: str, body: bytes) -> None:
    """A form, or parts of one, from somebody who may do all of it, under any type or none: refused, and nothing is taken."""
    before = [server.request("GET", listed).json() for listed in LISTS]
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\nConnection: close\r\n"
    head += f"Content-Length: {len(body)}\r\n" + (f"Content-Type: {kind}\r\n" if kind else "")
    told = server.raw(head.encode("latin-1") + b"\r\n" + body)
    status = int(told.split(b" ", 2)[1])
    assert status in (400, 415), told
    check_error(status, json.loads(told.partition(b"\r\n\r\n")[2]))
    assert [server.request("GET", listed).json() for listed in LISTS] == before


@pytest.mark.parametrize("levels", [900, 1001])
def test_how_deep_arguments_may_be_nested(server: Listening, levels: int) -> None:
    """What is taken can be read where it is run."""
    answer = server.request("POST", "/taskqueue/resize", content=b'{"x": %s}' % (b"[" * levels + b"]" * levels))
    assert (answer.status_code == 200) == (levels == 900)
    assert levels == 900 or "900 levels" in answer.json()["error"]
    deepest = b"[" * 1000 + b"]" * 1000  # beyond what any server takes
    arguments(b'{"args": [], "kwargs": {"x": %s}}' % deepest)


@pytest.mark.parametrize("path", ["/taskqueue/resize", "/taskqueue/resize/batch"])
def test_an_integer_that_no_child_could_read_is_refused(server: Listening, path: str) -> None:
    """Of 4300 digits it may be; a text or a fraction may have more."""

    def taken(value: bytes) -> int:
        body = b'{"x": %s}' % value
        return server.request("POST", path, content=b"[%s]" % body if "batch" in path else body).status_code

    assert taken(b"9" * 4300) == 200
    assert taken(b"9" * 4301) == 400
    assert taken(b'"%s"' % (b"9" * 5000)) == 200
    assert taken(b"0.%s" % (b"9" * 5000)) == 200


@pytest.mark.parametrize("field", ["cpu", "memory", "timeout", "retries", "workers", "max_pending_tasks", "gpu_count", "min_isolation"])
@pytest.mark.parametrize("value", ["9" * 300, "9" * 400, "9" * 5000, "-1", str(2**63), str(2**64)])
def test_a_number_out_of_range_is_refused_in_few_words(server: Listening, field: str, value: str) -> None:
    """Of however many digits."""
    body = f'{{"name":"n","source_id":"s","image_id":"i","config":{{"handler":"a:b","{field}":{value}}}}}'
    answer = server.request("POST", "/v2/deployments", content=body.encode())
    check_refusal(answer)
    assert answer.status_code == 400
    assert field in answer.json()["error"]


@pytest.mark.parametrize(
    ("field", "entry"),
    [("volumes", '{"name":"v","mount_path":"%d"}'), ("secrets", '"A%d"'), ("gpus", '"A%d"'), ("retry_for", '"A%d"')],
)
def test_a_list_of_thousands_in_a_definition_is_refused_in_few_words(server: Listening, field: str, entry: str) -> None:
    """Before anything is done with each of its entries."""
    entries = ",".join(entry % number for number in range(2500))
    body = f'{{"name":"n","source_id":"s","image_id":"i","config":{{"handler":"a:b","{field}":[{entries}]}}}}'
    answer = server.request("POST", "/v2/deployments", content=body.encode())
    check_refusal(answer)
    assert answer.status_code == 400
    assert "with 2500 entries" in answer.json()["error"]


@pytest.mark.parametrize(("method", "path"), [("POST", "/v2/deployments"), ("POST", "/v2/serve"), ("PUT", "/v2/serve/x"), ("POST", "/v2/images")])
def test_a_definition_has_a_limit_of_its_own(server: Listening, monkeypatch: pytest.MonkeyPatch, method: str, path: str) -> None:
    """Smaller than that of arguments: it is kept for good, and read with each task."""
    monkeypatch.setattr(house, "MAX_DEFINITION", 1000)
    answer = server.request(method, path, content=b" " * 1001)
    check_refusal(answer)
    assert answer.status_code == 413
    assert "1000 bytes" in answer.json()["error"]


def test_a_refusal_does_not_repeat_a_large_value(server: Listening) -> None:
    """It names it by its beginning."""
    config = {"handler": "x" * 90_000}
    answer = server.request("POST", "/v2/deployments", json={"name": "n", "source_id": "s", "image_id": "i", "config": config})
    check_refusal(answer)
    assert "handler='xxx" in answer.json()["error"]
    check_refusal(server.request("GET", "/v2/task", params={"limit": "9" * 5000}))
    check_refusal(server.request("GET", f"/v2/{'x' * 5000}"))


@pytest.mark.parametrize(
    "cursor", [b'{"before":%s}' % (b"9" * 30), b'{"before":1e5}', b'{"before":-1}', b'{"before":"x"}', b"[]", b"\xff", b"{", b'{"before":%s}' % (b"[" * 5000)]
)
def test_a_cursor_that_is_not_ours_is_refused(server: Listening, cursor: bytes) -> None:
    """Whatever was put into it."""
    answer = server.request("GET", "/v2/task", params={"cursor": base64.urlsafe_b64encode(cursor).decode()})
    check_refusal(answer)
    assert answer.status_code == 400


@effort(40)
@given(
    path=st.sampled_from(["/v2/task", "/v2/deployments", "/v2/containers", "/v2/task/{}/logs", "/v2/containers/{}/logs", "/v2/volumes/{}/files", "/output/id/{}", "/v2/task/{}/result"]),
    word=st.text(min_size=1, max_size=20),
    query=st.dictionaries(
        st.sampled_from(["limit", "cursor", "status", "task_ids", "created_at_start", "created_at_end", "wait", "ended", "path", "deep", "expires", "signature", "active", "name"]),
        st.one_of(st.text(max_size=20), st.sampled_from(["nan", "inf", "-0", "1e400", "0x1", "٣", "9" * 400, "true", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])),
        max_size=3,
    ),
)
def test_no_query_makes_the_server_fail(server: Listening, path: str, word: str, query: dict[str, str]) -> None:
    """Numbers that are none, times at the ends of the calendar, characters of all kinds."""
    if query.get("wait", "0") not in ("nan", "inf", "1e400"):
        query.pop("wait", None)
    check_refusal(server.request("GET", path.format(quote(word, safe="")), params=query))


texts = st.text(max_size=8) | st.sampled_from(["args", "kwargs", "callback_url", "__proto__", "auth_token"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(texts, below, max_size=3),
    max_leaves=8,
)


def _twice(pairs: list[tuple[str, Any]]) -> bytes:
    """An object in which keys may come twice."""
    return b"{%s}" % b",".join(f"{json.dumps(key)}:{json.dumps(value)}".encode() for key, value in pairs)


@effort(60)
@given(pairs=st.lists(st.tuples(texts, values), max_size=4), query=st.text(max_size=20))
def test_what_a_queue_takes_can_be_read_by_a_child(server: Listening, pairs: list[tuple[str, Any]], query: str) -> None:
    """Keys that come twice, odd names, any query: a list of arguments and an object of them, or a refusal."""
    answer = server.request("POST", "/taskqueue/resize", content=_twice(pairs), params={"q": query})
    check_refusal(answer)
    if answer.status_code == 200:
        reader = server.store.reader()
        args, kwargs = arguments(reader.payload(answer.json()["task_id"]) or b"")
        reader.close()
        assert isinstance(args, list) and isinstance(kwargs, dict)
        assert "callback_url" not in kwargs or not kwargs["callback_url"] or not isinstance(kwargs["callback_url"], str) or "://" in kwargs["callback_url"]
