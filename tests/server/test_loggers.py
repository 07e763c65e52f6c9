"""What libraries log stands in our log like what we log ourselves: one line each, which nothing in it can break."""

from __future__ import annotations

import asyncio
import logging
import re
import socket

import pytest

from treadle.server import main
from treadle.server.asgi import Receive, Scope, Send
from treadle.server.loggers import Teller

WHEN = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[")
FORGED = "no\n2026-01-01 00:00:00 [info     ] all is well\r\x1b[2J\u2028x"


def _at_the_margin(printed: str) -> list[str]:
    lines = printed.splitlines()
    assert all(line.isprintable() for line in printed.split("\n"))
    return [line for line in lines if not line.startswith("    ")]


class Failing:
    """An application that fails at whatever it is asked."""

    enqueue = None

    async def __call__(self, _scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ValueError(FORGED)


async def _served() -> None:
    """A server whose application fails at the one request that it gets, and a task whose failure nobody asks for."""
    listener = socket.create_server(("127.0.0.1", 0))
    async with main._listening(Failing(), listener):  # type: ignore[arg-type]
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"500" in await asyncio.wait_for(reader.read(), 20)
        writer.close()
        asyncio.get_running_loop().call_exception_handler({"message": FORGED, "exception": ValueError(FORGED)})


def test_the_words_of_users_in_what_libraries_log_forge_no_line(capfd: pytest.CaptureFixture[str]) -> None:
    """The traceback of a failed request, and of a task of the event loop: indented, and nothing on standard error."""
    asyncio.run(_served())
    out, err = capfd.readouterr()
    lines = _at_the_margin(out)
    assert len(lines) == 2
    assert all(WHEN.match(line) for line in lines)
    assert "Exception in ASGI application  logger=uvicorn.error" in lines[0]
    assert out.count("    ValueError: no") == 2
    assert err == ""


def test_what_cannot_be_formatted_is_told_as_it_came(capfd: pytest.CaptureFixture[str]) -> None:
    """A wrong record of a library is no reason to lose it, nor to print it raw."""
    record = logging.LogRecord("websockets", logging.WARNING, "", 0, "%d of\n%s", ("x",), None)
    Teller(logging.WARNING).handle(record)
    out, err = capfd.readouterr()
    [line] = _at_the_margin(out)
    assert "%d of\\n%s" in line and "logger=websockets" in line
    assert err == ""
