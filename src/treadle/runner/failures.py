"""What user code raised, told in words of a bounded size."""

from __future__ import annotations

import os
import traceback
from types import TracebackType

from treadle.model.wire import Raised

MAX_MESSAGE = 8 * 1024
MAX_TRACEBACK = 64 * 1024

_STDLIB = os.path.dirname(os.__file__)  # noqa: PTH120 -- pathlib is not worth its start-up time here
_NOT_THE_USERS = (
    os.path.dirname(__file__) + os.sep,  # noqa: PTH120
    os.path.join(_STDLIB, "asyncio") + os.sep,  # noqa: PTH118
    os.path.join(_STDLIB, "importlib") + os.sep,  # noqa: PTH118
    "<frozen importlib",
)


class NotLoaded(Exception):
    """The handler cannot be used; the message is one line for its author. The cause is what user code raised."""


def raised(exc: BaseException, retry_for: tuple[type[BaseException], ...], code: str) -> Raised:
    """The report of an exception. `retry_for` empty: any exception is worth another try. `code`: see traceback_of."""
    return Raised(
        type=type(exc).__name__,
        message=cut(message_of(exc)),
        traceback=traceback_of(exc, code),
        retryable=not retry_for or isinstance(exc, retry_for),
    )


def message_of(exc: BaseException) -> str:
    try:
        return str(exc)
    except BaseException:  # noqa: BLE001 -- str() of a user's exception is user code
        return "<its message cannot be read: str() of the exception raised>"


def one_line(exc: BaseException) -> str:
    """`Type: first line of the message`."""
    first = message_of(exc).strip().split("\n", 1)[0]
    return f"{type(exc).__name__}: {first}" if first else type(exc).__name__


def traceback_of(exc: BaseException, code: str) -> str:
    """The traceback as Python prints it, from the first frame that is the user's.

    Files below the folder `code` are named as the user names them: each container has a copy of its own.
    """
    try:
        text = "".join(traceback.format_exception(type(exc), exc, _users_part(exc.__traceback__)))
    except Exception as problem:  # noqa: BLE001 -- no memory left, or the user's __repr__ failed
        text = f"{type(exc).__name__} (its traceback cannot be printed: {type(problem).__name__})\n"
    return cut(text.replace(f'File "{code}{os.sep}', 'File "'), MAX_TRACEBACK)


def _users_part(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_NOT_THE_USERS):
        frames = frames.tb_next
    return frames


def cut(text: str, limit: int = MAX_MESSAGE) -> str:
    """At most `limit` bytes of UTF-8: head and tail, and between them how much was left out."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) > limit:
        half = limit // 2 - 32
        left_out = f"\n… {len(data) - 2 * half} bytes left out …\n"
        return data[:half].decode("utf-8", "ignore") + left_out + data[-half:].decode("utf-8", "ignore")
    return data.decode("utf-8")
