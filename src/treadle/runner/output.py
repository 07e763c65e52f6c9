"""The pipes that a child prints into, read in pieces on the event loop: others have their turn between two."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Sequence

from treadle.model.log import Stream
from treadle.model.wire import AttemptRef, Work
from treadle.runner.lines import Lot, Splitter
from treadle.runner.printed import Printed

PIECE = 64 * 1024  # bytes: what a pipe holds
MUCH = 16 * 1024  # bytes of a piece after which there is probably more
SOON = 0.001  # seconds between two pieces: a child that prints without end is not worth more of a core
LATER = 0.005  # seconds after a small piece, so that what is printed next comes together
STATE_SECONDS = 1.0  # between two states of a progress bar


class Tap:
    """The end of one pipe."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.lines = Splitter()
        self.end, self.childs_end = os.pipe()
        os.set_blocking(self.end, False)

    def read(self) -> bytes | None:
        """A piece; empty when there is none now, None when there never will be one."""
        try:
            return os.read(self.end, PIECE) or None
        except BlockingIOError:
            return b""


class Output:
    """Both pipes of one child. `hand`: what it was given and has not reported, the running one first.

    What bears no stamp, or one of an attempt that the child does not hold, belongs to the running one.
    """

    def __init__(self, printed: Printed, hand: Sequence[Work], *, starting: bool) -> None:
        self._printed = printed
        self._hand = hand
        self.starting = starting  # until the child has loaded the handler, if it is one of the first
        self.unwanted = False
        self._loop = asyncio.get_running_loop()
        self._taps = {tap.end: tap for tap in (Tap(Stream.STDOUT), Tap(Stream.STDERR))}
        self._poll = select.poll()
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._state_timer: asyncio.TimerHandle | None = None
        for end in self._taps:
            self._poll.register(end, select.POLLIN)
            self._loop.add_reader(end, self._on_readable, end)

    @property
    def childs_ends(self) -> list[int]:
        return [tap.childs_end for tap in self._taps.values()]

    def hand_over(self) -> None:
        """The child has its ends: ours of them are closed, so that the last one's end is the pipe's."""
        for tap in self._taps.values():
            os.close(tap.childs_end)

    def drain(self) -> None:
        """Read what the child had printed by now. One question to the kernel if that is nothing."""
        for end, _ in self._poll.poll(0):
            self._read(self._taps[end])

    def ended(self, ref: AttemptRef, remark: str = "") -> None:
        """This attempt has ended, and is still the first in hand; what it printed was read."""
        for tap in self._taps.values():
            if tap.lines.unfinished and self._owner(tap.lines.stamp) == ref:
                self._take(tap, tap.lines.end())
        self._printed.end(ref, remark)

    def close(self) -> None:
        """The child has ended: read what it leaves."""
        self.drain()
        if self._state_timer is not None:
            self._state_timer.cancel()
        for end in list(self._taps):
            self._take(self._taps[end], self._taps[end].lines.end())
            self._close(end)

    def _close(self, end: int) -> None:
        del self._taps[end]
        self._poll.unregister(end)
        self._loop.remove_reader(end)
        if timer := self._timers.pop(end, None):
            timer.cancel()
        os.close(end)

    def _on_readable(self, end: int) -> None:
        size = self._read(self._taps[end])
        if end in self._taps:
            self._loop.remove_reader(end)
            self._timers[end] = self._loop.call_later(SOON if size >= MUCH else LATER, self._go_on, end)

    def _go_on(self, end: int) -> None:
        del self._timers[end]
        self._loop.add_reader(end, self._on_readable, end)

    def _read(self, tap: Tap) -> int:
        """Take in one piece; its size."""
        piece = tap.read()
        if piece is None:
            self._take(tap, tap.lines.end())
            self._close(tap.end)
            return 0
        if piece and not self.unwanted:
            self._take(tap, tap.lines.feed(piece))
            if tap.lines.in_progress and self._state_timer is None:
                self._state_timer = self._loop.call_later(STATE_SECONDS, self._show_states)
        return len(piece)

    def _show_states(self) -> None:
        self._state_timer = None
        for tap in self._taps.values():
            self._take(tap, tap.lines.progress())

    def _take(self, tap: Tap, lots: list[Lot]) -> None:
        for stamp, text in lots:
            ref = self._owner(stamp)
            self._printed.add(ref, text, tap.stream, starting=self.starting)

    def _owner(self, stamp: bytes) -> AttemptRef | None:
        if stamp:
            task_id, _, attempt = stamp.decode("utf-8", "replace").partition(" ")
            for work in self._hand:
                if work.ref.task_id == task_id and str(work.ref.attempt) == attempt:
                    return work.ref
        return self._hand[0].ref if self._hand else None
