"""What routes take from a request: its body within a limit, and how much of a list one may name."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import msgspec
from litestar import Request

from treadle.engine.face import Upload
from treadle.model.errors import InvalidInput, TooLarge

SEE = "See /openapi.json for what it may hold."
MAX_LIMIT = 1000  # rows, ids or versions in one request
AnyRequest = Request[Any, Any, Any]
T = TypeVar("T")


async def take_in(request: AnyRequest, upload: Upload, limit: int, also: Any = None) -> None:
    """Write a streamed body to an upload.

    Raises:
        TooLarge: it is over `limit` bytes.
    """
    _check_declared(request, limit)
    async for chunk in request.stream():
        if upload.size + len(chunk) > limit:
            raise _too_large(limit)
        if also is not None:
            also(chunk)
        await asyncio.to_thread(upload.write, chunk)


async def small_body(request: AnyRequest, limit: int) -> bytes:
    """The whole body.

    Raises:
        TooLarge: it is over `limit` bytes.
    """
    _check_declared(request, limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _check_declared(request: AnyRequest, limit: int) -> None:
    """Refuse at once what says of itself that it is too large."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is over the limit of {limit} bytes.", "Send less in one request.")


async def decode_body(request: AnyRequest, kind: type[T], limit: int) -> T:
    return decode(await small_body(request, limit), kind)


def decode(body: bytes, kind: type[T], advice: str = SEE) -> T:
    """A body as what it should be. Raises InvalidInput, which says where it is not."""
    try:
        str(body, "utf-8")  # also what is skipped
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"The body is not a {kind.__name__}: {error}.", advice) from error
