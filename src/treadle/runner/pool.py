"""The children as the parent sees them, and the orders it gives to the template about them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from enum import Enum, auto

from treadle.model.wire import LoadFailed, Work
from treadle.runner import process
from treadle.runner.frames import (
    FORK,
    KILL,
    ORDER,
    Forked,
    FromChild,
    Gone,
    decode_from_child,
    decode_from_template,
    pack,
)
from treadle.runner.pipe import Pipe


class Fate(Enum):
    """Why the parent has given a child up before its process has ended. Its words count no more."""

    TIMED_OUT = auto()
    UNWANTED = auto()  # its attempt was cancelled, or the runner is ending
    BROKEN = auto()  # it could not load the handler


class Child:
    """One child process: loading until `loaded`, running while it has `work`, else free."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid = 0
        self.loaded = False
        self.work: Work | None = None
        self.deadline: float | None = None  # in the event loop's time
        self.fate: Fate | None = None
        self.pipe: Pipe

    def give(self, work: Work) -> None:
        self.work = work
        self.pipe.send(pack(work))

    def rest(self) -> None:
        """Its task is over, one way or the other."""
        self.work = None
        self.deadline = None


class Pool:
    """All children, and whom to tell of what they say and how they end."""

    def __init__(
        self,
        template: socket.socket,
        on_message: Callable[[Child, FromChild], None],
        on_exit: Callable[[Child, int], None],
        on_template_end: Callable[[LoadFailed | None], None],
    ) -> None:
        self._sock = template
        self._on_message = on_message
        self._on_exit = on_exit
        self._on_template_end = on_template_end
        self._children: dict[int, Child] = {}
        self._count = 0
        self._last_words: LoadFailed | None = None
        self._template = Pipe(template, self._from_template, self._template_ended)
        self._alive = True

    def fork(self) -> None:
        """Ask for a new child; it says Ready when it has loaded the handler."""
        if not self._alive:
            return
        self._count += 1
        child = Child(self._count)
        ours, theirs = socket.socketpair()
        child.pipe = Pipe(ours, lambda frame: self._from_child(child, frame), lambda: self._order(KILL, child))
        self._children[child.number] = child
        self._order(FORK, child, [theirs.fileno()])
        theirs.close()

    def kill(self, child: Child, fate: Fate) -> None:
        """Kill a child and what it started, at once; `on_exit` follows when it is gone."""
        child.fate = fate
        self._order(KILL, child)

    def _order(self, word: bytes, child: Child, fds: list[int] | None = None) -> None:
        if self._alive and child.number in self._children:
            with contextlib.suppress(ConnectionError):  # the template has ended: its pipe tells
                socket.send_fds(self._sock, [ORDER.pack(word, child.number)], fds or [])

    def _from_child(self, child: Child, frame: bytes) -> None:
        if child.fate is None:
            self._on_message(child, decode_from_child(frame))

    def _from_template(self, frame: bytes) -> None:
        message = decode_from_template(frame)
        if isinstance(message, LoadFailed):
            self._last_words = message
        elif isinstance(message, Forked):
            self._children[message.number].pid = message.pid
        else:
            self._gone(message)

    def _gone(self, gone: Gone) -> None:
        child = self._children.pop(gone.number)
        child.pipe.drain()  # it may have finished its task before it ended
        child.pipe.close()
        self._on_exit(child, gone.status)

    def _template_ended(self) -> None:
        """The kernel has killed the children with it; what they started is left to us."""
        self._alive = False
        for child in self._children.values():
            if child.pid:
                process.kill_group(child.pid)
        self._on_template_end(self._last_words)
