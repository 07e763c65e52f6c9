"""The children as the parent sees them, and the orders it gives to the template about them."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable
from enum import Enum, auto

from treadle.model.wire import LoadFailed, Work
from treadle.runner import process
from treadle.runner.frames import (
    COPY,
    FORK,
    KILL,
    LOAD,
    ORDER,
    Forked,
    FromChild,
    Gone,
    NotForked,
    decode_from_child,
    decode_from_template,
    pack_work,
)
from treadle.runner.output import Output
from treadle.runner.pipe import Pipe
from treadle.runner.printed import Printed
from treadle.runner.tokens import Tokens


class Fate(Enum):
    """Why the parent has given a child up before its process has ended. Its words count no more."""

    TIMED_OUT = auto()
    UNWANTED = auto()  # its attempt was cancelled, or the runner is ending
    BROKEN = auto()  # it could not load the handler
    STUCK = auto()  # it does not begin what it may: a thread that user code left behind holds the interpreter


class Child:
    """One child process: loading until `loaded`, then running the first task in its `hand`; the others follow.

    The `checkpoint` gets no tasks: when it has loaded the handler, workers are forked from it.
    """

    def __init__(self, number: int, printed: Printed, *, starting: bool, checkpoint: bool = False) -> None:
        self.number = number
        self.pid = 0
        self.loaded = False
        self.checkpoint = checkpoint
        self.hand: deque[Work] = deque()  # given and not reported, in the order in which they begin
        self.since: float | None = None  # when the first of them began as far as is known, in the event loop's time
        self.fate: Fate | None = None
        self.tokens = Tokens()
        self.output = Output(printed, self.hand, starting=starting)
        self.pipe: Pipe
        self._given = 0

    def give(self, works: list[Work]) -> None:
        """Have the child run these after what it has. Frames go first: a child with a token waits for its frame."""
        first = self._given + 1
        self._given += len(works)
        self.hand += works
        self.pipe.send(b"".join([pack_work(number, work) for number, work in enumerate(works, first)]))
        self.tokens.put(list(range(first, self._given + 1)))

    def take_back(self) -> list[Work]:
        """What the child had not begun and never will, the last first. The child skips the frames of that."""
        return [self.hand.pop() for _ in range(self.tokens.take_back())]


class Pool:
    """All children, and whom to tell of what they say and how they end."""

    def __init__(
        self,
        template: socket.socket,
        printed: Printed,
        *,
        workers: int,
        checkpoint: bool,
        on_messages: Callable[[Child, list[FromChild]], None],
        on_exit: Callable[[Child, list[FromChild], int], None],
        on_template_end: Callable[[LoadFailed | None], None],
    ) -> None:
        self._sock = template
        self._printed = printed
        self._workers = workers
        self._with_checkpoint = checkpoint
        self._checkpoint: Child | None = None  # that is there, loaded or not
        self._copied: Child | None = None  # the worker that it was asked for: one at a time
        self._wanted = 0  # workers that are to be forked, and it has not been asked for
        self._on_messages = on_messages
        self._on_exit = on_exit
        self._on_template_end = on_template_end
        self._children: dict[int, Child] = {}
        self._count = 0
        self._last_words: LoadFailed | None = None
        self._template = Pipe(template, self._from_template, self._template_ended)
        self._alive = True

    def fork(self) -> None:
        """Ask for a new worker; it says Ready when it has the handler."""
        self._wanted += 1
        self._go_on()

    def replace(self, gone: Child) -> None:
        """Ask for another child in the place of one that has ended."""
        self._wanted += not gone.checkpoint
        self._go_on()

    def do_without_checkpoint(self, child: Child) -> None:
        """What this one has loaded cannot be forked: it is a worker, and so are all to come."""
        if child.checkpoint:
            child.checkpoint = self._with_checkpoint = False
            self._checkpoint = None
            self._wanted -= 1
            self._go_on()

    def copy(self, child: Child) -> None:
        """The checkpoint has loaded the handler: fork the workers from it, unless it has ended meanwhile."""
        if child is self._checkpoint:
            self._go_on()

    def _go_on(self) -> None:
        """Ask for what is wanted and can be had now."""
        if self._with_checkpoint and self._checkpoint is None:
            self._checkpoint = self._make(LOAD)
        while self._wanted and not self._with_checkpoint:
            self._wanted -= 1
            self._make(FORK)
        if self._wanted and self._checkpoint and self._checkpoint.loaded and self._copied is None:
            self._wanted -= 1
            self._copied = self._make(COPY)

    def _make(self, word: bytes) -> Child | None:
        if not self._alive:
            return None
        self._count += 1
        starting = self._count <= self._workers + self._with_checkpoint
        child = Child(self._count, self._printed, starting=starting, checkpoint=word == LOAD)
        ours, theirs = socket.socketpair()
        child.pipe = Pipe(ours, lambda frames: self._from_child(child, frames), lambda: self._order(KILL, child))
        self._children[child.number] = child
        self._order(word, child, [theirs.fileno(), child.tokens.end, *child.output.childs_ends])
        theirs.close()
        child.output.hand_over()
        return child

    def kill(self, child: Child, fate: Fate) -> None:
        """Kill a child and what it started, at once; `on_exit` follows when it is gone."""
        child.fate = fate
        child.output.unwanted = fate is Fate.UNWANTED
        self._order(KILL, child)

    def _order(self, word: bytes, child: Child, fds: list[int] | None = None) -> None:
        if self._alive and child.number in self._children:
            with contextlib.suppress(ConnectionError):  # the template has ended: its pipe tells
                socket.send_fds(self._sock, [ORDER.pack(word, child.number)], fds or [])

    def hear(self, child: Child) -> list[FromChild]:
        """What the child has said and nobody has read. It has told of each task before it took the next token."""
        return self._decode(child, child.pipe.drain())

    def _from_child(self, child: Child, frames: list[bytearray]) -> None:
        if child.fate is None:
            self._on_messages(child, self._decode(child, frames))

    @staticmethod
    def _decode(child: Child, frames: list[bytearray]) -> list[FromChild]:
        child.output.drain()  # what was printed before these words is there by now
        return [decode_from_child(frame) for frame in frames] if child.fate is None else []

    def _from_template(self, frames: list[bytearray]) -> None:
        for frame in frames:
            message = decode_from_template(frame)
            if isinstance(message, LoadFailed):
                self._last_words = message
            elif isinstance(message, Forked):
                self._children[message.number].pid = message.pid
                self._next_copy(message.number)
            elif isinstance(message, NotForked):
                self._not_forked(message.number)
            else:
                self._gone(message)

    def _next_copy(self, number: int) -> None:
        """This child is there; the one that follows may be asked for."""
        if self._copied is not None and self._copied.number == number:
            self._copied = None
            self._go_on()

    def _not_forked(self, number: int) -> None:
        child = self._children.pop(number)
        child.pipe.close()
        child.output.close()
        child.tokens.close()
        self._wanted += 1
        self._next_copy(number)

    def _gone(self, gone: Gone) -> None:
        child = self._children.pop(gone.number)
        if child is self._checkpoint:
            self._checkpoint = None
        last = self.hear(child)  # it may have finished its task before it ended
        child.pipe.close()
        child.output.close()
        self._on_exit(child, last, gone.status)
        child.tokens.close()

    def _template_ended(self) -> None:
        """The kernel has killed the children with it; what they started is left to us."""
        self._alive = False
        for child in self._children.values():
            if child.pid:
                process.kill_group(child.pid)
        self._on_template_end(self._last_words)
