"""The words of ASGI that our bare routes use, and how they answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from treadle.lines import Logger
from treadle.model.api import ErrorBody
from treadle.model.errors import TreadleError

JSON = (b"content-type", b"application/json")
NO_SNIFF = ("x-content-type-options", "nosniff")  # a browser takes no answer for another kind than it says it is
_NO_SNIFF = tuple(word.encode() for word in NO_SNIFF)
_encode = msgspec.json.Encoder().encode
log = Logger()

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]


def header(scope: Scope, name: bytes) -> str:
    """A request header by its lower-case name, "" when it was not sent."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""


def error_body(error: TreadleError) -> bytes:
    """The one error shape."""
    return _encode(ErrorBody(error.message, error.code, error.advice, error.message))


def failure(error: Exception, path: str) -> tuple[int, bytes]:
    """The status and body that tell a client of an error; one that nobody foresaw is told to our log."""
    if not isinstance(error, TreadleError):
        log.error("request failed", path=path, exc_info=error)
        error = TreadleError("The server failed on this request.", "See its log.")
    return error.status, error_body(error)


async def reply(send: Send, status: int, body: bytes) -> None:
    headers = [JSON, _NO_SNIFF, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
