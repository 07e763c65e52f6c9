"""The agent's WebSocket to the server: connects again for ever, sends in batches, keeps nothing while it is away."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from treadle.lines import Logger
from treadle.model import wire
from treadle.model.wire import AgentToServer, ServerToAgent

FIRST_RETRY = 0.05
LAST_RETRY = 1.0
_FRAME = 500  # messages


class Link:
    """`greet` gives the first messages of each connection, `receive` gets every message of the server."""

    def __init__(
        self,
        url: str,
        token: str,
        greet: Callable[[], Sequence[AgentToServer]],
        receive: Callable[[ServerToAgent], None],
        log: Logger,
    ) -> None:
        self._url = "ws" + url.rstrip("/").removeprefix("http") + wire.AGENT_PATH
        self._token = token
        self._greet = greet
        self._receive = receive
        self._log = log
        self._queue: asyncio.Queue[AgentToServer] | None = None
        self._heard = False

    def send(self, message: AgentToServer) -> None:
        """Send soon; dropped while there is no connection: `greet` says what counts when there is one again."""
        if self._queue is not None:
            self._queue.put_nowait(message)

    async def drain(self) -> None:
        """Return when everything given to `send` is on its way."""
        if self._queue is not None:
            await self._queue.join()

    async def run(self) -> None:
        """Hold a connection until cancelled."""
        delay = FIRST_RETRY
        while True:
            try:
                async with self._connect() as socket:
                    self._log.info("agent connected", url=self._url)
                    await self._talk(socket)
            except (OSError, WebSocketException, msgspec.MsgspecError) as error:
                self._log.info("agent has no connection", url=self._url, reason=str(error), retry_seconds=delay)
            finally:
                self._queue = None
            if self._heard:  # a server that accepts and refuses at once is not asked in a hurry
                self._heard, delay = False, FIRST_RETRY
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_RETRY)

    def _connect(self) -> connect:
        return connect(
            self._url,
            additional_headers={"Authorization": f"Bearer {self._token}"},
            max_size=wire.MAX_FRAME,
            compression=None,
            open_timeout=10,
            close_timeout=1,
            ping_interval=wire.BEAT_SECONDS,
            ping_timeout=wire.LEASE_SECONDS,
            proxy=None if _is_loopback(self._url) else True,
        )

    async def _talk(self, socket: ClientConnection) -> None:
        """Read, write and beat until one of them ends, then raise what ended it."""
        queue: asyncio.Queue[AgentToServer] = asyncio.Queue()
        for message in self._greet():
            queue.put_nowait(message)
        self._queue = queue
        parts = [asyncio.ensure_future(part) for part in (self._read(socket), _write(socket, queue), _beat(queue))]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
        finally:
            for part in parts:
                part.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError, WebSocketException, msgspec.MsgspecError):
                    await part

    async def _read(self, socket: ClientConnection) -> None:
        async for frame in socket:
            self._heard = True
            data = frame if isinstance(frame, bytes) else frame.encode()
            for message in wire.decode_for_agent(data):
                self._receive(message)


async def _write(socket: ClientConnection, queue: asyncio.Queue[AgentToServer]) -> None:
    while True:
        batch = [await queue.get()]
        while len(batch) < _FRAME and not queue.empty():
            batch.append(queue.get_nowait())
        await socket.send(wire.encode(batch))
        for _ in batch:
            queue.task_done()


async def _beat(queue: asyncio.Queue[AgentToServer]) -> None:
    while True:
        await asyncio.sleep(wire.BEAT_SECONDS)
        queue.put_nowait(wire.Beat())


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
