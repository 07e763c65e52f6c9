"""Zygotes, one for each image in use: processes that have the runner loaded already and fork it in milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from treadle.model import wire
from treadle.model.wire import START, Ended, Spawn, Spawned, Surroundings
from treadle.runtime import files, processes

KEPT = 4  # zygotes that have no container: the last used
PATIENCE = 2.0  # seconds to be up, to answer, and to tell of an end
RETRY_SECONDS = 60.0  # until one that could not be started is tried again
PACKET = 64 * 1024  # bytes
_MARK_ROOM = "-" * 256  # the runner writes its container's id here
_TITLE_ROOM = "-" * 1024  # and its command line here

T = TypeVar("T")
Command = Callable[[Path], list[str]]
End = asyncio.Future[int | None]  # of a runner: its exit code, or minus the signal; None when its zygote went first
Forked = tuple[int, End]  # the pid of a runner, and its end


def zygote_command(python: Path) -> list[str]:
    return [str(python), "-P", "-m", "treadle.runner.zygote"]


async def status_of(end: End) -> int | None:
    """How a runner has ended that is gone already; None when its zygote does not tell."""
    await asyncio.wait({end}, timeout=PATIENCE)
    return end.result() if end.done() else None


class Lost(Exception):
    """The zygote has ended or does not answer: there may be a runner, or not."""


class Zygote:
    """One zygote as the agent sees it. Made in the event loop that it then lives in."""

    def __init__(self, argv: list[str]) -> None:
        self._loop = asyncio.get_running_loop()
        self.told = asyncio.Event()  # that it is up, or that it has ended
        self.loaded = self.ended = False
        self.since = time.monotonic()
        self._asked: deque[asyncio.Future[Forked | None]] = deque()
        self._ends: dict[int, End] = {}
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(
                [*argv, str(theirs.fileno()), _TITLE_ROOM],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={**START, processes.MARK: _MARK_ROOM},
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._loop.add_reader(self._sock, self._read)

    @property
    def busy(self) -> bool:
        """Whether it has containers, or is asked for one."""
        return bool(self._ends or self._asked)

    async def fork(self, order: Spawn, surroundings: Surroundings, log: BinaryIO) -> Forked | None:
        """A new runner; None when there is none.

        Raises:
            Lost: what became of the order is not known.
        """
        answer: asyncio.Future[Forked | None] = self._loop.create_future()
        try:
            with files.sheet(wire.encode(surroundings)) as file:
                socket.send_fds(self._sock, [wire.encode(order)], [file.fileno(), log.fileno()])
        except OSError:  # it has ended, or its socket is full: the order has not reached it
            return None
        self._asked.append(answer)
        try:
            async with asyncio.timeout(PATIENCE):
                return await answer
        except TimeoutError:
            raise Lost from None

    def _read(self) -> None:
        try:
            packet = self._sock.recv(PACKET)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self.close()
            return
        message = wire.decode_from_zygote(packet)
        if isinstance(message, Spawned):
            self._spawned(message.pid)
        elif isinstance(message, Ended):
            _settle(self._ends.pop(message.pid), message.status)
        else:
            self.loaded = True
            self.told.set()

    def _spawned(self, pid: int) -> None:
        forked: Forked | None = None
        if pid:
            forked = pid, self._loop.create_future()
            self._ends[pid] = forked[1]
        _settle(self._asked.popleft(), forked)

    def close(self) -> None:
        """End it. Its containers live on, but how they end will not be known."""
        if self.ended:
            return
        self.ended = True
        self._loop.remove_reader(self._sock)
        self._sock.close()
        self._process.kill()
        self._process.wait()
        if not self._loop.is_closed():
            self._tell_end()

    def _tell_end(self) -> None:
        self.told.set()
        for end in self._ends.values():
            _settle(end, None)
        for answer in self._asked:
            if not answer.done():
                answer.set_exception(Lost())
        self._ends.clear()
        self._asked.clear()


def _settle(future: asyncio.Future[T], value: T) -> None:
    """Answer whoever waits, if nobody has given up waiting."""
    if not future.done():
        future.set_result(value)


class Zygotes:
    """The zygotes of this agent by interpreter. What an image id and a Treadle are made of never changes while an
    agent lives, so an interpreter's path says which zygote is meant. `command` starts one."""

    def __init__(self, command: Command = zygote_command) -> None:
        self._command = command
        self._zygotes: dict[Path, Zygote] = {}  # the last used at the end

    def warm(self, python: Path) -> None:
        """Have a zygote ready soon."""
        self._get(python)

    async def fork(self, python: Path, order: Spawn, surroundings: Surroundings, log: BinaryIO) -> Forked | None:
        """A new runner of this interpreter. None when it must be started another way.

        Raises:
            Lost: the same, but first whatever bears the mark of this container has to be killed.
        """
        zygote = self._get(python)
        if zygote is None:
            return None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await zygote.told.wait()
        if not zygote.loaded or zygote.ended:
            return None  # it may be up for the next one
        try:
            return await zygote.fork(order, surroundings, log)
        except Lost:
            zygote.close()
            raise

    def _get(self, python: Path) -> Zygote | None:
        """The zygote of this interpreter, started if there is none; it may have failed to start a moment ago."""
        zygote = self._zygotes.pop(python, None)
        if zygote is None or (zygote.ended and (zygote.loaded or time.monotonic() > zygote.since + RETRY_SECONDS)):
            if sys.platform != "linux":
                return None
            try:
                zygote = Zygote(self._command(python))
            except OSError:
                return None
            self._close_idle(KEPT - 1)
        self._zygotes[python] = zygote
        return zygote

    def _close_idle(self, kept: int) -> None:
        idle = [python for python, zygote in self._zygotes.items() if not zygote.busy]
        for python in idle[: max(0, len(idle) - kept)]:
            self._zygotes.pop(python).close()

    def close(self) -> None:
        """End all of them; containers live on."""
        for zygote in self._zygotes.values():
            zygote.close()
        self._zygotes.clear()
