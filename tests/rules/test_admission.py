"""The body of an enqueue request, mapped to arguments: the table of spec §3.4, with numbers kept as they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.model.errors import InvalidInput, QueueFull
from treadle.rules.admission import Payload, fitting, full, payload, payloads

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
PLAIN_KEYS = st.text().filter(lambda key: key not in ("args", "kwargs", "callback_url"))


def arguments(body: bytes | str, query: str = "") -> tuple[list[Any], dict[str, Any]]:
    raw = json.loads(payload(body.encode() if isinstance(body, str) else body, query).raw)
    assert raw.keys() == {"args", "kwargs"}
    return raw["args"], raw["kwargs"]


@pytest.mark.parametrize(
    ("body", "args", "kwargs"),
    [
        ("", [], {}),
        ("  \n", [], {}),
        ("{}", [], {}),
        ("null", [], {}),
        ('{"x": 2, "y": "b"}', [], {"x": 2, "y": "b"}),
        ('{"args":[1,2]}', [1, 2], {}),
        ('{"kwargs":{"x":2}}', [], {"x": 2}),
        ('{"args":[1],"kwargs":{"x":2},"z":9}', [1], {"x": 2}),
        ('{"args":[1],"z":9}', [1], {"z": 9}),
        ('{"args":"text"}', [], {"args": "text"}),
        ('{"kwargs":5}', [], {"kwargs": 5}),
        ('{"args":null,"kwargs":null}', [], {"args": None, "kwargs": None}),
        ('{"args":[],"kwargs":{}}', [], {}),
        ('{"x": 1} and more', [], {"x": 1}),
        ('{"x": 1}{"x": 2}', [], {"x": 1}),
        ('{"x": 1, "x": 2}', [], {"x": 2}),
        (' {"x": {"args": [1]}} ', [], {"x": {"args": [1]}}),
        ('{"x": "naïve ✓ \\ud83d\\ude00"}', [], {"x": "naïve ✓ 😀"}),
    ],
)
def test_the_table_of_bodies(body: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Each row of Beam's table."""
    assert arguments(body) == (args, kwargs)


CALLS = st.fixed_dictionaries({}, optional={"args": st.lists(JSON) | JSON, "kwargs": st.dictionaries(st.text(), JSON) | JSON})


@given(st.lists(CALLS | st.dictionaries(st.text(), JSON), min_size=1, max_size=5), st.booleans())
def test_a_batch_is_mapped_like_its_elements_alone(bodies: list[dict[str, Any]], ascii_only: bool) -> None:
    """Whether all of them are calls as the SDK sends them, or anything else."""
    together = payloads(json.dumps(bodies, ensure_ascii=ascii_only).encode())
    alone = [payload(json.dumps(body).encode()) for body in bodies]
    assert [json.loads(one.raw) for one in together] == [json.loads(one.raw) for one in alone]


@pytest.mark.parametrize("name", ["callback_url", "callback\\u005furl", "\\u0063allback_url"])
def test_a_batch_of_calls_may_name_webhooks(name: str) -> None:
    """Of each element alone, however the name is written."""
    bodies = b'[{"args": [], "kwargs": {}}, {"args": [], "kwargs": {"%b": "https://a.example/"}}]' % name.encode()
    assert [one.callback_url for one in payloads(bodies)] == [None, "https://a.example/"]


@pytest.mark.parametrize("element", ['{"args": "x}", "kwargs": {}}', '{"args": [], "kwargs": "{}}"}', '{"args": [1], "kwargs": [{}]}'])
def test_in_a_batch_what_only_looks_like_a_call_is_none(element: str) -> None:
    """`args` that are no list and `kwargs` that are no object are named arguments."""
    [one] = payloads(f"[{element}]".encode())
    assert json.loads(one.raw) == json.loads(payload(element.encode()).raw)


@pytest.mark.parametrize(
    "body",
    [
        "[]", "[1]", "5", '"text"', "true", "x=1&y=2", "{", '{"x"', '{"x": }', "{'x': 1}", '{"x": NaN}',
        '{"x": Infinity}', '{"x": -Infinity}', '{"x": 01}', '{"x": 1.}', "nulls", "{} x"[1:], "\ufeff{}", '{1: 2}',
    ],
)  # fmt: skip
def test_what_is_not_an_object_is_refused(body: str) -> None:
    """The answer says what to send instead."""
    with pytest.raises(InvalidInput) as refusal:
        payload(body.encode())
    assert refusal.value.advice


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe", b'{"x": "\xff"}', b'{"\xc3": 1}', b"\x00", b"%PDF-1.7", b'--x\r\nContent-Disposition: form-data\r\n'],
)
def test_what_is_not_text_is_refused(body: bytes) -> None:
    """Invalid UTF-8 must not reach the child."""
    with pytest.raises(InvalidInput):
        payload(body)


def test_too_deep_is_refused() -> None:
    """A body that would overflow the stack of a parser is an error of its sender."""
    with pytest.raises(InvalidInput):
        payload(b'{"x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}")


@pytest.mark.parametrize(
    ("given_as", "arrives"),
    [
        ("3", 3), ("3.0", 3.0), ("-0", 0), ("1e3", 1000.0), ("9007199254740993", 9007199254740993),
        ("123456789012345678901234567890", 123456789012345678901234567890), ("0.1", 0.1), ("1E-2", 0.01),
    ],
)  # fmt: skip
def test_numbers_keep_type_and_size(given_as: str, arrives: float) -> None:
    """An integer of any size stays that integer, and a float stays a float: unlike Beam's."""
    _, kwargs = arguments(f'{{"n": {given_as}, "deep": [{{"n": {given_as}}}]}}')
    assert kwargs == {"n": arrives, "deep": [{"n": arrives}]}
    assert type(kwargs["n"]) is type(arrives)


@pytest.mark.parametrize(
    ("query", "kwargs"),
    [
        ("n=3", {"n": 3}),
        ("n=3.0", {"n": 3.0}),
        ("n=-2e3", {"n": -2000.0}),
        ("n=9007199254740993", {"n": 9007199254740993}),
        ("n=007", {"n": 7}),
        ("n=0x10", {"n": "0x10"}),
        ("n=nan", {"n": "nan"}),
        ("n=inf", {"n": "inf"}),
        ("n=1e999", {"n": "1e999"}),
        ("n=" + "9" * 400, {"n": "9" * 400}),
        ("n=", {"n": ""}),
        ("n=1_000", {"n": "1_000"}),
        ("n=1&n=2", {"n": [1, 2]}),
        ("n=1&n=b", {"n": ["1", "b"]}),
        ("a=x%20y&b=%C3%A9", {"a": "x y", "b": "é"}),
        ("x=9", {"x": 9}),
        ("auth_token=secret&n=1", {"n": 1}),
    ],
)
def test_query_parameters_are_merged_over_the_body(query: str, kwargs: dict[str, Any]) -> None:
    """A number when it is written as one, else text; a repeated key is a list; a credential is no argument."""
    _, merged = arguments('{"x": 1}', query)
    assert merged == {"x": 1, **kwargs}


@pytest.mark.parametrize(
    ("body", "query", "url"),
    [
        ("{}", "", None),
        ('{"callback_url": "https://a.example/x"}', "", "https://a.example/x"),
        ('{"kwargs": {"callback_url": "https://a.example/x"}}', "", "https://a.example/x"),
        ('{"callback_url": "https://a.example/x"}', "callback_url=https://b.example", "https://b.example"),
        ('{"callback_url": null}', "", None),
        ('{"callback_url": ""}', "", None),
        ('{"callback_url": 5}', "", None),
        ('{"callback_url": 1e999}', "", None),
        ('{"args": [1], "kwargs": {}, "callback_url": "https://a.example"}', "", None),
    ],
)
def test_a_task_may_name_its_own_webhook(body: str, query: str, url: str | None) -> None:
    """It stays among the arguments, as in Beam; what is no text is an argument alone."""
    found = payload(body.encode(), query)
    assert found.callback_url == url
    if url:
        assert json.loads(found.raw)["kwargs"]["callback_url"] == url


@pytest.mark.parametrize(
    "url", ["x", "ftp://a.example", "//a.example", "http://", "https:// a", "http://:80/x", "http://[::1", "http://a:b/"]
)
def test_a_webhook_must_be_a_url(url: str) -> None:
    """It is refused at the door, not after the task."""
    with pytest.raises(InvalidInput, match="callback_url"):
        payload(json.dumps({"callback_url": url}).encode())


@given(st.dictionaries(PLAIN_KEYS, JSON, max_size=6))
def test_any_object_comes_through_as_named_arguments(kwargs: dict[str, Any]) -> None:
    """Whatever JSON can say arrives as it was sent."""
    for ascii_only in (True, False):
        try:
            body = json.dumps(kwargs, ensure_ascii=ascii_only).encode()
        except UnicodeEncodeError:
            continue
        assert arguments(body) == ([], kwargs)


@given(st.lists(JSON, max_size=4), st.dictionaries(st.text(), JSON, max_size=4))
def test_any_args_and_kwargs_come_through(args: list[Any], kwargs: dict[str, Any]) -> None:
    """Both forms that `put` sends."""
    kwargs.pop("callback_url", None)
    assert arguments(json.dumps({"args": args, "kwargs": kwargs}).encode()) == (args, kwargs)


def _admitted(body: bytes, query: str = "") -> None:
    try:
        found = payload(body, query)
    except InvalidInput:
        return
    assert isinstance(found, Payload)
    decoded = json.loads(found.raw)
    assert isinstance(decoded["args"], list) and isinstance(decoded["kwargs"], dict)


@given(st.binary(max_size=60), st.text(max_size=30))
def test_garbage_is_taken_or_refused_and_nothing_else(body: bytes, query: str) -> None:
    """No bytes at all make the server fail."""
    _admitted(body, query)


@given(st.text(alphabet='{}[]":,\\ue0d8nulltrfas1.-+E callback_urkwg', max_size=60))
def test_almost_json_is_taken_or_refused_and_nothing_else(text: str) -> None:
    """Nor do bytes that look like JSON, e.g. half of a surrogate pair in a callback_url."""
    _admitted(text.encode())
    _admitted(('{"callback_url": "' + text + '"}').encode())


@pytest.mark.parametrize(
    ("unfinished", "count", "limit", "fit"),
    [(0, 1, 1, 1), (1, 1, 1, 0), (9, 1, 10, 1), (11, 1, 10, 0), (7, 5, 10, 3), (0, 5, 10, 5)],
)
def test_a_queue_takes_no_more_than_its_limit(unfinished: int, count: int, limit: int, fit: int) -> None:
    """`max_pending_tasks` unfinished tasks are enough, running ones included."""
    assert fitting(unfinished, count, limit) == fit


def test_a_full_queue_says_its_limit() -> None:
    """The refusal has Beam's words."""
    refusal = full(10)
    assert isinstance(refusal, QueueFull)
    assert refusal.message == "exceeded max pending tasks: 10."
