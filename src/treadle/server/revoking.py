"""What a token has begun ends with it: bodies are read no further, nothing more is told."""

from __future__ import annotations

import asyncio

from treadle.lines import Logger
from treadle.model.errors import Unauthorized
from treadle.server.asgi import ASGI, Event, Receive, Scope, Send, error_body, header, reply
from treadle.server.auth import Caller, Doors

log = Logger()


class Revocable:
    """Around routes: asks again whether the token is still good with each piece that comes in or goes out.

    It ends when it is revoked or switched off, and that of a container with the container. A body that a client sends
    slowly changes nothing afterwards, a long poll answers 401, and a log or a download that streams is cut off at its
    next piece (a silent log says that it lives every 15 s).
    """

    def __init__(self, app: ASGI, doors: Doors) -> None:
        self._app = app
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = header(scope, b"authorization")
        caller = self._doors.let_in(sent) if sent else None
        if caller is not None:
            await _Request(self._doors, caller, receive, send).serve(self._app, scope)
        else:
            await self._app(scope, receive, send)


class _Request:
    def __init__(self, doors: Doors, caller: Caller, receive: Receive, send: Send) -> None:
        self._doors = doors
        self._caller = caller
        self._receive = receive
        self._send = send
        self._task = asyncio.current_task()
        self._started = False
        self._sized = False
        self._cut: Unauthorized | None = None

    async def serve(self, app: ASGI, scope: Scope) -> None:
        try:
            await app(scope, self._incoming, self._outgoing)
        except (Exception, asyncio.CancelledError):
            if not self._cut:
                raise
            if self._task is not None:
                self._task.uncancel()
        if not self._cut:
            return
        if self._started:
            log.info("a token has ended: what it was being sent was cut off", path=scope["path"])
            if not self._sized:  # else the connection is closed in the middle of what was announced
                await self._send({"type": "http.response.body", "body": b""})
        else:
            await reply(self._send, self._cut.status, error_body(self._cut))

    async def _incoming(self) -> Event:
        event = await self._receive()
        if error := self._ended():
            raise error
        return event

    async def _outgoing(self, event: Event) -> None:
        """A stream is sent by a task of its own, and ended like one whose client has gone away."""
        if self._cut:
            return
        error = self._ended()
        if error is None:
            self._started = True
            self._sized |= any(name == b"content-length" for name, _ in event.get("headers", ()))
            await self._send(event)
        elif self._task is None or asyncio.current_task() is self._task:
            raise error
        else:
            self._task.cancel()

    def _ended(self) -> Unauthorized | None:
        self._cut = self._cut or self._doors.ended(self._caller)
        return self._cut
