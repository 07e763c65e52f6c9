"""Arguments and results: raw JSON on the way in and out, read and written once, here.

The standard library's `json`, not msgspec: integers of any size stay integers, and what is not JSON (dates, sets,
bytes, dataclasses) is refused instead of being written as something that looks like it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

DEEPER = 1000  # levels
MAX_RESULT = 32 * 1024 * 1024  # half a frame of the link

ADVICE = (
    "Return None, a bool, a number, a str, or lists and dicts of them"
    " (str keys); save files with Output(path=…).save()."
)

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class NotJson(Exception):
    """The handler returned what cannot be a result. `type` is the class of the error below it."""

    def __init__(self, message: str, type_name: str) -> None:
        super().__init__(f"{message} {ADVICE}")
        self.type = type_name


def arguments(payload: bytes) -> tuple[list[Any], dict[str, Any]]:
    """The positional and named arguments of a task."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + DEEPER)  # what the server has accepted is read, wherever it drew the line
    try:
        call = json.loads(payload.decode("utf-8"))
    finally:
        sys.setrecursionlimit(limit)
    return call["args"], call["kwargs"]


def to_json(value: object) -> bytes:
    """The result as JSON.

    Raises:
        NotJson: the value is not JSON, or more than MAX_RESULT bytes of it; says which type and what to return.
    """
    try:
        data = _encode(value).encode("utf-8")
    except (TypeError, ValueError, RecursionError, OverflowError) as exc:
        told = f"The result (a {type(value).__name__}) is not JSON: {_why(exc)}."
        raise NotJson(told, type(exc).__name__) from None
    if len(data) > MAX_RESULT:
        told = f"The result is {len(data)} bytes of JSON; at most {MAX_RESULT} are kept."
        raise NotJson(told, "ValueError")
    return data


def _why(exc: Exception) -> str:
    if isinstance(exc, UnicodeEncodeError):
        return "it holds a str with a lone surrogate, which UTF-8 cannot carry"
    if isinstance(exc, RecursionError):
        return "it is nested too deeply"
    text = str(exc).rstrip(".").replace("Out of range float values", "nan and infinity")
    return text[:1].lower() + text[1:]
