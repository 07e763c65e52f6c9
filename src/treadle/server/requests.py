"""What routes take from a request: its body within a limit, and how much of a list one may name."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import msgspec
from litestar import Request

from treadle.engine.face import Upload
from treadle.model.errors import InvalidInput, TooLarge

MAX_LIMIT = 1000  # rows, ids or versions in one request
AnyRequest = Request[Any, Any, Any]
T = TypeVar("T")


async def take_in(request: AnyRequest, upload: Upload, limit: int, also: Any = None) -> None:
    """Write a streamed body to an upload.

    Raises:
        TooLarge: it is over `limit` bytes.
    """
    async for chunk in request.stream():
        if upload.size + len(chunk) > limit:
            raise TooLarge(f"The body is over the limit of {limit} bytes.")
        if also is not None:
            also(chunk)
        await asyncio.to_thread(upload.write, chunk)


async def small_body(request: AnyRequest, limit: int) -> bytes:
    """The whole body.

    Raises:
        TooLarge: it is over `limit` bytes.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise TooLarge(f"The body is over the limit of {limit} bytes.")
    return bytes(body)


async def decode_body(request: AnyRequest, kind: type[T], limit: int) -> T:
    try:
        return msgspec.json.decode(await small_body(request, limit), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"The body is not a {kind.__name__}: {error}.") from error
