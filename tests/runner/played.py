"""A real parent in this process, between a link, a template and children that a test plays: so it sets the order.

What crosses on the way (a report and a cancel, a death and a report) meets in real processes by chance only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from treadle.model.deployment import QueueConfig
from treadle.model.wire import AttemptRef, Finished, Ready, RunnerToServer, RunSpec, ServerToRunner, Stop, Work
from treadle.runner import parent
from treadle.runner.child import FILES
from treadle.runner.frames import FORK, LOAD, ORDER, WORK, Gone, Loaded, decode_for_child, pack
from treadle.runner.tokens import Turnstile

T = TypeVar("T", bound=RunnerToServer)


class PlayedLink:
    """In the place of the parent's link: keeps what it says, and tells it a frame in the middle of a turn."""

    connected = True

    def __init__(
        self,
        spec: RunSpec,
        greet: Callable[[], list[RunnerToServer]],
        receive: Callable[[list[ServerToRunner]], None],
        say: Callable[[str], None],
    ) -> None:
        self.greet = greet
        self.receive = receive
        self.said: list[RunnerToServer] = []
        self.sent = asyncio.Event()
        self.sent.set()

    def put(self, message: RunnerToServer, patience: float = 0.0) -> None:
        self.said.append(message)

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None: ...


class PlayedChild:
    """The child's ends: it takes tokens and work as a child does, and says what the test wants."""

    def __init__(self, word: bytes, number: int, sock: int, tokens: int, *printing: int) -> None:
        self.number = number
        self._tokens = tokens
        self._files = [tokens, *printing]
        self._sock = socket.socket(fileno=sock)
        self._frames = self._sock.makefile("rb")
        self._turnstile = Turnstile(tokens)
        if word == FORK:
            self.say(Ready(1))

    def say(self, message: Ready | Finished | Loaded) -> None:
        self._sock.sendall(pack(message))

    def take_token(self) -> int | None:
        assert self.waits(), "the parent has put a token"
        return self._turnstile.wait()

    def waits(self) -> bool:
        """Whether a token is there to be taken."""
        return bool(select.select([self._tokens], [], [], 0)[0])

    def begin(self) -> AttemptRef:
        """Take a token, and the work to it."""
        token = self.take_token()
        number = None
        while number != token:
            size, number = WORK.unpack(self._frames.read(WORK.size))
            body = self._frames.read(size)
        return decode_for_child(body).ref

    def end(self, ref: AttemptRef) -> None:
        self.say(Finished(ref, result=b"1", free=True))

    def close(self) -> None:
        self._frames.close()
        self._sock.close()
        for file in self._files:
            os.close(file)


class Played:
    """The parent with its link, and the template's end of its socket."""

    def __init__(self, link: PlayedLink, template: socket.socket) -> None:
        self.link = link
        self._template = template
        template.setblocking(False)
        self.children: list[PlayedChild] = []  # that live
        self._played: list[PlayedChild] = []
        self.killed: list[int] = []

    def obey(self) -> None:
        """Note the orders that the parent has given: a child for each FORK, loaded, and for a LOAD one that loads."""
        with contextlib.suppress(BlockingIOError):
            while True:
                order, fds, _, _ = socket.recv_fds(self._template, ORDER.size, FILES)
                word, number = ORDER.unpack(order)
                if word in (FORK, LOAD):
                    self._played.append(PlayedChild(word, number, *fds))
                    self.children.append(self._played[-1])
                else:
                    self.killed.append(number)

    async def turn(self) -> None:
        """Have the parent read all that was said to it, and carry out its orders."""
        for _ in range(3):
            for _ in range(5):
                await asyncio.sleep(0)
            self.obey()

    def work(self, *names: str) -> list[AttemptRef]:
        """Send these tasks in one frame."""
        refs = [AttemptRef(name, 1) for name in names]
        self.link.receive([Work(ref, b"{}") for ref in refs])
        return refs

    def bury(self, child: PlayedChild, status: int = -9) -> None:
        """Tell the parent that a child has ended."""
        self._template.sendall(pack(Gone(child.number, status)))
        self.children.remove(child)

    def take(self, kind: type[T]) -> list[T]:
        """The messages of this kind that the parent has said since the last time."""
        taken = [message for message in self.link.said if isinstance(message, kind)]
        self.link.said = [message for message in self.link.said if not isinstance(message, kind)]
        return taken

    async def end(self) -> None:
        self.link.receive([Stop(0.0)])
        for child in [*self.children]:
            self.bury(child)
        await self.turn()
        for child in self._played:
            child.close()


@contextlib.asynccontextmanager
async def played(folder: Path, monkeypatch: pytest.MonkeyPatch, **config: Any) -> AsyncIterator[Played]:
    """A parent whose children are all loaded, but for a checkpoint."""
    links: list[PlayedLink] = []

    def link(*given: object) -> PlayedLink:
        links.append(PlayedLink(*given))  # type: ignore[arg-type]
        return links[0]

    monkeypatch.setattr(parent, "Link", link)
    queue = QueueConfig(handler="app:handler", **config)
    spec = RunSpec("http://127.0.0.1:1", "c1", "d1", "token", queue, str(folder), "3.11.7")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        running = asyncio.create_task(parent.Parent(spec, ours, folder / "last_words").run())
        await asyncio.sleep(0)
        play = Played(links[0], theirs)
        await play.turn()
        play.take(Ready)
        try:
            yield play
        finally:
            await play.end()
            running.cancel()
