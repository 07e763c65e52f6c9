"""What attempts and the container itself have printed, on its way to the server: bounded, in order, together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable

from treadle.model.log import KEPT_BYTES, LINES_PER_SECOND, MAX_LINE, Line, Stream
from treadle.model.wire import AttemptRef, Lines
from treadle.runner.lines import cut, text_of
from treadle.runner.quota import AS_THEY_COME, BYTES_AT_ONCE, BYTES_PER_SECOND, LINE_COSTS, Bucket, Quota

SEND_SECONDS = 0.05  # lines wait so long for others, unless their attempt ends
SEND_BYTES = 64 * 1024  # or there are so many
LAST_LINES = 200  # of those left out are shown at the end of an attempt …
LAST_BYTES = int(KEPT_BYTES * (1 - AS_THEY_COME)) - 16 * 1024  # … or so much; the rest is for remarks
HELD_BYTES = 8 * 1024 * 1024  # while there is no server
SPOKEN_BYTES = 64 * 1024  # the runner's own words in the container's log file
FAST = f"more than {LINES_PER_SECOND:g} lines or 1 MiB a second"

STDERR = 2  # the file itself: a stream would keep what it could not write, and fail again with it

Raw = tuple[float, Stream, bytes]


class Log:
    """Of one attempt, or of the container itself: lines to be sent, and the last of those left out."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._lines: list[Line] = []
        self._left_out = 0
        self._last: deque[Raw] = deque(maxlen=LAST_LINES)
        self.size = 0  # bytes to be sent

    def add(self, text: bytes, stream: Stream, at: float, now: float) -> None:
        """Take in whole lines, read `at` Unix seconds; `now` is the event loop's time."""
        room = self._quota.room(now)
        if room and self._left_out:
            self._tell_left_out(at)
        *raws, rest = text.split(b"\n", room) if room else [text]
        for place, raw in enumerate(raws):
            line = text_of(raw)
            size = len(raw) + 2 * line.count("\N{REPLACEMENT CHARACTER}")
            if not self._quota.take(size):
                rest = b"\n".join([*raws[place:], rest])
                break
            self._lines.append(Line(at, stream, line))
            self.size += size + LINE_COSTS
        if rest:
            self._leave_out(rest, stream, at)

    def note(self, text: str, at: float) -> None:
        """A remark of ours; there are few."""
        self._lines.append(Line(at, Stream.NOTES, text))
        self.size += len(text) + LINE_COSTS

    def end(self, at: float) -> None:
        """Nothing follows: the last of the lines left out are kept after all."""
        size = 0
        kept: list[Raw] = []
        for raw in reversed(self._last):
            size += len(raw[2]) + LINE_COSTS
            if size > LAST_BYTES:
                break
            kept.append(raw)
        self._left_out -= len(kept)
        if self._left_out:
            self._tell_left_out(at)
        self._lines += [Line(when, stream, text_of(raw)) for when, stream, raw in reversed(kept)]

    def take(self) -> list[Line]:
        """The lines to be sent."""
        lines, self._lines, self.size = self._lines, [], 0
        return lines

    def _leave_out(self, text: bytes, stream: Stream, at: float) -> None:
        lines = text.rsplit(b"\n", LAST_LINES + 1)
        self._left_out += text.count(b"\n")
        for raw in lines[1 if len(lines) > LAST_LINES + 1 else 0 : -1]:
            self._last.append((at, stream, raw if len(raw) <= MAX_LINE else cut(raw)))

    def _tell_left_out(self, at: float) -> None:
        why = "an attempt's limit" if self._quota.used_up else FAST
        self.note(f"{_lines(self._left_out)} left out: {why}", at)
        self._left_out = 0
        self._last.clear()


class Printed:
    """The logs of all that runs in this container. `put` sends a message; False when there is no server now."""

    def __init__(self, put: Callable[[Lines], bool]) -> None:
        self._put = put
        self._loop = asyncio.get_running_loop()
        self._flow = Bucket(BYTES_AT_ONCE, BYTES_PER_SECOND, self._loop.time())
        self._attempts: dict[AttemptRef, Log] = {}
        self._own, self._starting = (Log(self._quota(endless=True)) for _ in range(2))
        self._timer: asyncio.TimerHandle | None = None
        self._held: deque[Lines] = deque()
        self._held_bytes = 0
        self._lost = 0  # lines that came when too much was held already
        self._spoken = 0

    def _quota(self, *, endless: bool = False) -> Quota:
        return Quota(self._flow, self._loop.time(), endless=endless)

    def add(self, ref: AttemptRef | None, text: bytes, stream: Stream, *, starting: bool = False) -> None:
        """Take in whole lines of an attempt that runs here; without one they are the container's own."""
        log = self._log(ref, starting=starting)
        log.add(text, stream, time.time(), self._loop.time())
        if log.size > SEND_BYTES:
            self._send(log, ref, starting=starting)
        elif self._timer is None:
            self._timer = self._loop.call_later(SEND_SECONDS, self._flush)

    def _log(self, ref: AttemptRef | None, *, starting: bool) -> Log:
        if ref is None:
            return self._starting if starting else self._own
        log = self._attempts.get(ref)
        if log is None:
            log = self._attempts[ref] = Log(self._quota())
        return log

    def end(self, ref: AttemptRef, remark: str = "") -> None:
        """An attempt has ended; what it has printed is sent before it is reported."""
        if remark:
            self._log(ref, starting=False).note(remark, time.time())
        log = self._attempts.pop(ref, None)
        if log is not None:
            log.end(time.time())
            self._send(log, ref)

    def drop(self, ref: AttemptRef) -> None:
        """An attempt is not wanted any more, nor what it prints."""
        self._attempts.pop(ref, None)

    def say(self, text: str, *, starting: bool = False) -> None:
        """Words of the runner itself: in the container's log, and in the file that its agent reads."""
        self._spoken += len(text)
        if self._spoken <= SPOKEN_BYTES:
            with contextlib.suppress(OSError):  # its disk may be full: whoever has something to say goes on
                os.write(STDERR, f"treadle runner: {text}\n".encode())
        log = self._log(None, starting=starting)
        log.note(text, time.time())
        self._send(log, None, starting=starting)

    def _flush(self) -> None:
        self._timer = None
        for ref, log in self._attempts.items():
            self._send(log, ref)
        self.send_own()

    def send_own(self) -> None:
        """What the container itself has printed goes out now."""
        self._send(self._starting, None, starting=True)
        self._send(self._own, None)

    def _send(self, log: Log, ref: AttemptRef | None, *, starting: bool = False) -> None:
        size = log.size
        lines = log.take()
        if not lines:
            return
        message = Lines(lines, ref, starting)
        if self._put(message):
            return
        if self._held_bytes < HELD_BYTES:
            self._held.append(message)
            self._held_bytes += size
        else:
            self._lost += len(lines)

    def greet(self) -> list[Lines]:
        """What has waited for a server."""
        held = list(self._held)
        if self._lost:
            remark = f"{_lines(self._lost)} left out: there was no server for too long"
            held.append(Lines([Line(time.time(), Stream.NOTES, remark)]))
        self._held.clear()
        self._held_bytes = self._lost = 0
        return held


def _lines(count: int) -> str:
    return f"{count} {'line' if count == 1 else 'lines'}"
