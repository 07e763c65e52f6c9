"""The short way to a queue: from the HTTP parser to the commit and back, with no ASGI in between.

For each request uvicorn makes a scope, an event and a task, and speaks ASGI with it: a third of what the server does
for a task. Where a plain POST to a queue comes in, a `Passage` stands in for uvicorn's request cycle; everything else
goes uvicorn's way, and so does what is pipelined behind an unfinished request.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

import httptools

from treadle.model.errors import TooLarge
from treadle.server.app import App
from treadle.server.asgi import NO_SNIFF, failure
from treadle.server.cork import Corked, CorkedHttp
from treadle.server.hot import PREFIX, Aim, check_size

START = PREFIX.encode()
ALWAYS = b"content-type: application/json\r\n%s: %s\r\n" % tuple(word.encode() for word in NO_SNIFF)
HEADS = {status.value: f"HTTP/1.1 {status} {status.phrase}\r\n".encode() + ALWAYS for status in HTTPStatus}


class _Silent:
    """In the place of the event by which uvicorn wakes an application: nobody waits here."""

    def set(self) -> None:
        pass


class Passage:
    """One request to a queue and its answer. What is public is what uvicorn's protocol asks of a request cycle."""

    message_event = _Silent()

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False
        self.aim: Aim | None = None
        self.query = b""
        self.body = bytearray()  # pieces are as small as their sender likes: as objects, many times as large


class LaneHttp(CorkedHttp):
    """An HTTP connection. Its application must be an `App`."""

    _passage: Passage | None = None  # the request that came in last, if it goes this way
    _timer: asyncio.TimerHandle | None = None
    _resting_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._enqueue = cast(App, self.app).enqueue

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        self._passage = None
        free = self.cycle is None or self.cycle.response_complete
        if free and self.url.startswith(START) and self._is_plain_post():
            self._begin()
        else:
            super().on_headers_complete()

    def _is_plain_post(self) -> bool:
        parser = self.parser
        return (
            parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and not self.expect_100_continue
            and not parser.should_upgrade()
        )

    def _begin(self) -> None:
        passage = self._passage = Passage(keep_alive=self.parser.should_keep_alive())
        self.cycle = cast(Any, passage)
        url = httptools.parse_url(self.url)
        passage.query = url.query or b""
        authorization, declared = "", 0
        for name, value in self.headers:
            if name == b"authorization":
                authorization = authorization or value.decode("latin-1")
            elif name == b"content-length":
                declared = int(value)  # the parser has looked at it
        try:
            check_size(declared, self._enqueue.max_body)
            passage.aim = self._enqueue.aim(unquote(url.path.decode("ascii")), authorization)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            self._answer(passage, *failure(error, PREFIX))

    def on_body(self, body: bytes) -> None:
        passage = self._passage
        if passage is None:
            super().on_body(body)
        elif not passage.response_complete:
            passage.body += body
            try:
                check_size(len(passage.body), self._enqueue.max_body)
            except TooLarge as error:
                self._answer(passage, *failure(error, PREFIX))

    def on_message_complete(self) -> None:
        passage = self._passage
        if passage is None:
            super().on_message_complete()
        elif not passage.response_complete:
            try:
                assert passage.aim is not None, "without an aim it was answered"
                self._enqueue.ask(
                    passage.aim, passage.query, bytes(passage.body), lambda *said: self._answer(passage, *said)
                )
            except Exception as error:  # noqa: BLE001 - as above
                self._answer(passage, *failure(error, PREFIX))

    def _answer(self, passage: Passage, status: int, body: bytes) -> None:
        passage.response_complete = True
        if self.transport.is_closing():
            return
        close = b"" if passage.keep_alive else b"connection: close\r\n"
        head = HEADS[status]
        cast(Corked, self.transport).write_whole(b"%scontent-length: %d\r\n%s\r\n%s" % (head, len(body), close, body))
        if not passage.keep_alive:
            self.transport.close()
        if self.pipeline or self.transport.is_closing():
            self.on_response_complete()
        else:
            self._rest()

    def _rest(self) -> None:
        """Wait for the next request. uvicorn sets a timer after each; here one goes on, and looks how long it was."""
        self._resting_since = self.loop.time()
        if self._timer is None:
            self._timer = self.loop.call_later(self.timeout_keep_alive, self._look)

    def _look(self) -> None:
        """Close the connection if it has rested for long enough, else look again when it may have."""
        self._timer = None
        if self.timeout_keep_alive_task is not None:
            return  # another request came since, and uvicorn waits for the next
        left = self._resting_since + self.timeout_keep_alive - self.loop.time()
        if not self.cycle.response_complete or left > 0:
            self._timer = self.loop.call_later(max(left, 1.0), self._look)
        else:
            self.timeout_keep_alive_handler()
