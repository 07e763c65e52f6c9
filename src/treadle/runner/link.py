"""The runner's WebSocket to the server: kept, lost and found again, with an outbox sent once per turn of the loop."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from enum import Enum, auto

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from treadle.model.wire import (
    BEAT_SECONDS,
    LEASE_SECONDS,
    MAX_FRAME,
    RUNNER_PATH,
    Beat,
    Finished,
    Lines,
    RunnerToServer,
    RunSpec,
    ServerToRunner,
    decode_for_runner,
    encode,
)

UNWANTED_STATUS = frozenset({401, 403, 404, 410})
UNWANTED_CLOSE = 4003
FIRST_DELAY = 0.05
MAX_DELAY = 1.0
OPEN_SECONDS = 5.0
CLOSE_SECONDS = 2.0
BATCH = 256  # messages a frame
BATCH_BYTES = 8 * 1024 * 1024  # of results a frame; with the largest result still below MAX_FRAME


class End(Enum):
    """Why there is no link any more."""

    UNWANTED = auto()  # the server knows this container no longer
    ORPHANED = auto()  # no server has answered for `orphan_grace` seconds


class Link:
    """`greet` gives the first messages of each connection, `receive` takes each frame of the server.

    `say` tells people what goes wrong here.
    """

    def __init__(
        self,
        spec: RunSpec,
        greet: Callable[[], list[RunnerToServer]],
        receive: Callable[[list[ServerToRunner]], None],
        say: Callable[[str], None],
    ) -> None:
        self._spec = spec
        self._say = say
        self._greet = greet
        self._receive = receive
        self._connection: ClientConnection | None = None
        self._outbox: deque[RunnerToServer] = deque()
        self._filled = asyncio.Event()
        self.sent = asyncio.Event()  # set while nothing is left to send on a live connection

    def put(self, message: RunnerToServer, patience: float = 0.0) -> None:
        """Send a message with this turn's others, or with those of the next `patience` seconds.

        Without a connection it is dropped: `greet` tells the state.
        """
        self.sent.clear()
        if self._connection is None:
            return
        self._outbox.append(message)
        if not patience:
            self._filled.set()
        elif len(self._outbox) == 1:
            asyncio.get_running_loop().call_later(patience, self._filled.set)

    @property
    def connected(self) -> bool:
        return self._connection is not None

    async def run(self) -> End:
        """Hold the link until the server does not want this container, or nobody has answered for too long."""
        loop = asyncio.get_running_loop()
        answered = loop.time()
        delay = FIRST_DELAY
        while (left := answered + self._spec.orphan_grace - loop.time()) > 0:
            try:
                connection = await self._connect(min(left, OPEN_SECONDS))
            except InvalidStatus as exc:
                if exc.response.status_code in UNWANTED_STATUS:
                    return End.UNWANTED
            except (OSError, InvalidHandshake, ConnectionClosed):
                pass
            else:
                began = loop.time()
                await self._hold(connection)
                if connection.close_code == UNWANTED_CLOSE:
                    return End.UNWANTED
                answered = loop.time()
                left = self._spec.orphan_grace
                if answered - began > MAX_DELAY:
                    delay = FIRST_DELAY
            await asyncio.sleep(min(left, delay * (0.5 + random.random() / 2)))  # noqa: S311 -- jitter, not a secret
            delay = min(2 * delay, MAX_DELAY)
        return End.ORPHANED

    async def close(self) -> None:
        """Close the connection in good order: what was sent has arrived then."""
        if self._connection is not None:
            await self._connection.close()

    async def _connect(self, seconds: float) -> ClientConnection:
        return await connect(
            self._spec.url.rstrip("/").replace("http", "ws", 1) + RUNNER_PATH,
            additional_headers={"Authorization": f"Bearer {self._spec.token}"},
            compression=None,
            proxy=None,
            max_size=MAX_FRAME,
            open_timeout=seconds,
            close_timeout=CLOSE_SECONDS,
            ping_interval=BEAT_SECONDS,
            ping_timeout=LEASE_SECONDS,
        )

    async def _hold(self, connection: ClientConnection) -> None:
        """Send and receive until the connection ends."""
        self._connection = connection
        lines = [message for message in self._outbox if isinstance(message, Lines)]  # no greeting tells them again
        hello, *state = self._greet()
        self._outbox = deque([hello, *lines, *state])
        self._filled.set()
        try:
            async with asyncio.TaskGroup() as group:
                others = [group.create_task(self._send(connection)), group.create_task(self._beat())]
                await self._read(connection)
                for task in others:
                    task.cancel()
        finally:
            self._connection = None
            self.sent.clear()

    async def _read(self, connection: ClientConnection) -> None:
        try:
            async for frame in connection:
                self._receive(decode_for_runner(frame if isinstance(frame, bytes) else frame.encode()))
        except ConnectionClosed:
            pass
        except ValueError as exc:  # msgspec's errors are ValueErrors
            self._say(f"the server sent what this version cannot read: {exc}")
            await connection.close(1007)

    async def _send(self, connection: ClientConnection) -> None:
        try:
            while True:
                await self._filled.wait()
                self._filled.clear()
                while self._outbox:
                    await connection.send(encode(self._batch()))
                self.sent.set()
        except ConnectionClosed:
            pass  # the reader ends the connection

    def _batch(self) -> list[RunnerToServer]:
        batch: list[RunnerToServer] = []
        size = 0
        while self._outbox and len(batch) < BATCH and size < BATCH_BYTES:
            message = self._outbox.popleft()
            size += len(message.result or b"") if isinstance(message, Finished) else 0
            batch.append(message)
        return batch

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self.put(Beat())
