"""Which values are results, and how failures are cut to size."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from typing import Any

import pytest

from treadle.runner.failures import MAX_MESSAGE, MAX_TRACEBACK, raised
from treadle.runner.results import NotJson, to_json


class Colour(enum.IntEnum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int = 0


def circular() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (None, b"null"),
        ((1, (2,)), b"[1,[2]]"),
        ({1: "a", None: "b"}, b'{"1":"a","null":"b"}'),
        ("ä\u2028", '"ä\u2028"'.encode()),
        (Colour.RED, b"1"),
        (10**40, b"1" + b"0" * 40),
    ],
)
def test_json_values_are_results(value: object, data: bytes) -> None:
    """What `json.dumps` writes is a result; tuples become lists and simple keys become strings, as there."""
    assert to_json(value) == data


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ({1, 2}, "set"),
        (b"x", "bytes"),
        (Point(), "Point"),
        (datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), "datetime"),
        (object(), "object"),
        ((n for n in "ab"), "generator"),
        (float("nan"), "nan and infinity"),
        ([float("inf")], "nan and infinity"),
        ({(1, 2): 3}, "tuple"),
        (circular(), "circular"),
        ("\ud800", "lone surrogate"),
        (10**5000, "4300"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() else "",
)
def test_other_values_are_refused_with_their_type(value: object, word: str) -> None:
    """What is not JSON is refused, never written as something near it; the message names it."""
    with pytest.raises(NotJson, match=word):
        to_json(value)


def test_a_result_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result larger than the link carries fails with its size and the limit."""
    monkeypatch.setattr("treadle.runner.results.MAX_RESULT", 10)
    with pytest.raises(NotJson, match="12 bytes of JSON; at most 10"):
        to_json("0123456789")


def test_messages_and_tracebacks_are_cut_in_the_middle() -> None:
    """A huge message is kept by head and tail, within its limit, with word of what is missing."""
    told = raised(ValueError("<" + "é" * 100_000 + ">"), (), "/code")
    assert len(told.message.encode()) <= MAX_MESSAGE
    assert len(told.traceback.encode()) <= MAX_TRACEBACK
    assert told.message[0] == "<"
    assert told.message[-1] == ">"
    assert "bytes left out" in told.message


def test_an_exception_that_cannot_be_read_is_still_told() -> None:
    """An exception whose own str() raises, or is no valid text, does not break the report."""

    class Rude(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert raised(Rude(), (), "/code").type == "Rude"
    assert raised(ValueError("\ud800"), (), "/code").message == "\\ud800"
