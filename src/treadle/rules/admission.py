"""What may enter a queue: the body of an enqueue request, mapped to positional and named arguments."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from treadle.model.deployment import check_url
from treadle.model.errors import InvalidInput, QueueFull

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
INTEGER = re.compile(r"[+-]?\d+")
MAX_DIGITS = 4300  # of an integer: what Python reads (sys.int_info.default_max_str_digits)
LONG_INTEGER = re.compile(rb"(?<!\d)\d{%d}" % (MAX_DIGITS + 1))
EMPTY = b'{"args":[],"kwargs":{}}'
TOKEN_PARAMETER = "auth_token"  # noqa: S105 - a query parameter's name: a credential, never an argument

MAX_BATCH = 10_000

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_objects = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_list = msgspec.json.Decoder(list[msgspec.Raw])
_encode = msgspec.json.Encoder().encode


class Payload(msgspec.Struct, frozen=True):
    """The arguments of a task as raw JSON `{"args": […], "kwargs": {…}}`, and the webhook they ask for."""

    raw: bytes
    callback_url: str | None = None


class _Call(msgspec.Struct, forbid_unknown_fields=True):
    """The body that the SDK sends: it needs no mapping."""

    args: msgspec.Raw
    kwargs: msgspec.Raw


_calls = msgspec.json.Decoder(list[_Call])


def payload(body: bytes, query: str = "") -> Payload:
    """Map a request to arguments by the table of Beam's queues (spec §3.4).

    An object's keys are named arguments; `args` (a list) and `kwargs` (an object) are taken apart. Query parameters
    are merged over the named ones. Numbers keep their type and size.

    Raises:
        InvalidInput: the body is not a JSON object, or its `callback_url` is not a URL.
    """
    fields = _fields(body)
    if not fields and not query:
        return Payload(EMPTY)
    return _mapped(fields, query)


def payloads(body: bytes) -> list[Payload]:
    """Map the body of a batch, a JSON array of objects, each like the body of a single request.

    Raises:
        InvalidInput: it is not such an array, is empty or longer than MAX_BATCH, or names a wrong `callback_url`.
    """
    try:
        str(body, "utf-8")
        batch = _calls_in(body) or _objects.decode(body)
        _check_integers(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(
            "invalid request payload: the body is not a JSON array of objects.", 'Send e.g. [{"x": 1}, {"x": 2}].'
        ) from error
    if not 1 <= len(batch) <= MAX_BATCH:
        raise InvalidInput(
            f"invalid request payload: a batch of {len(batch)} tasks is outside 1 to {MAX_BATCH}.", "Split it."
        )
    return [_as_sent(one) if isinstance(one, _Call) else _mapped(one) for one in batch]


def _calls_in(body: bytes) -> list[_Call]:
    """The calls of a batch as the SDK sends it; none if it holds anything else, or might name a webhook."""
    if b"callback_url" in body or b"\\" in body:  # with an escape, that name can be written in many ways
        return []
    try:
        return _calls.decode(body)
    except msgspec.ValidationError:
        return []


def _as_sent(call: _Call) -> Payload:
    raw = _encode(call)
    if raw.startswith(b'{"args":[') and raw.endswith(b"}}"):  # a list, and what ends like an object is one
        return Payload(raw)
    return _mapped({"args": call.args, "kwargs": call.kwargs})


def _mapped(fields: dict[str, msgspec.Raw], query: str = "") -> Payload:
    args, kwargs = _split(fields)
    if query:
        kwargs.update(_from_query(query))
    return Payload(_encode({"args": args, "kwargs": kwargs}), _callback(kwargs))


def _fields(body: bytes) -> dict[str, msgspec.Raw]:
    text = body.strip()
    if not text or text == b"null":
        return {}
    try:
        str(text, "utf-8")  # arguments stay raw until the child reads them: what is not text must not get that far
        fields = _object.decode(text)
        _check_integers(text)
        return fields
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _object_before_rest(text)
    except RecursionError as error:
        said = "invalid request payload: nested too deeply; 900 levels always fit, 1000 never."
        raise InvalidInput(said, "Flatten it.") from error


def _check_integers(text: bytes) -> None:
    """Refuse an integer that no child could read; digits of a text or of a fraction may be as many as they like."""
    if LONG_INTEGER.search(text) is None:
        return
    try:
        json.loads(text)
    except ValueError as error:
        raise InvalidInput(
            f"invalid request payload: an integer has over {MAX_DIGITS} digits.", "Send it as a string."
        ) from error


def _object_before_rest(text: bytes) -> dict[str, msgspec.Raw]:
    """Beam ignores what follows the first JSON value; so do we, at the price of reading it twice."""
    try:
        decoded = text.decode()
        _, end = json.JSONDecoder(parse_constant=_no_constant).raw_decode(decoded)
        return _object.decode(decoded[:end])
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        raise InvalidInput(
            "invalid request payload: the body is not a JSON object.", 'Send an object such as {"x": 1}.'
        ) from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _split(fields: dict[str, msgspec.Raw]) -> tuple[Any, dict[str, Any]]:
    args: Any = []
    named: Any = None
    if "args" in fields and _starts(fields["args"], b"["):
        args = fields.pop("args")
    if "kwargs" in fields and _starts(fields["kwargs"], b"{"):
        named = _object.decode(fields.pop("kwargs"))
    if named is None:
        return args, dict(fields)
    return args, named


def _starts(raw: msgspec.Raw, mark: bytes) -> bool:
    return bytes(memoryview(raw)[:1]) == mark


def _from_query(query: str) -> dict[str, Any]:
    found: dict[str, list[str]] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key != TOKEN_PARAMETER:
            found.setdefault(key, []).append(value)
    return {key: _one_or_many(values) for key, values in found.items()}


def _one_or_many(values: list[str]) -> Any:
    if len(values) == 1:
        return _number(values[0])
    numbers = [_number(value) for value in values]
    return values if any(isinstance(number, str) for number in numbers) else numbers


def _number(text: str) -> msgspec.Raw | float | str:
    """A number when it is written as one, of any size, else the text."""
    if INTEGER.fullmatch(text) and len(text) <= 300:
        return msgspec.Raw(str(int(text)).encode())
    if NUMBER.fullmatch(text):
        value = float(text)
        return text if value in (float("inf"), float("-inf")) else value
    return text


def _callback(kwargs: dict[str, Any]) -> str | None:
    given = kwargs.get("callback_url")
    if isinstance(given, msgspec.Raw):
        given = msgspec.json.decode(given) if _starts(given, b'"') else None
    if not isinstance(given, str) or not given:
        return None
    return check_url("callback_url", given)


def fitting(unfinished: int, count: int, limit: int) -> int:
    """How many of `count` new tasks a queue takes that has so many unfinished ones."""
    return max(0, min(count, limit - unfinished))


def full(limit: int) -> QueueFull:
    """The refusal of what does not fit."""
    return QueueFull(f"exceeded max pending tasks: {limit}.", "Wait for tasks to finish or raise max_pending_tasks.")
