"""What a child prints says itself whose it is: stamps in its output, written by Python's own streams.

A stamp is written where the attempt has changed since the last write through the same stream, so an attempt that
prints nothing costs nothing. It is the mark (a NUL and 16 random hex digits, which open each pipe, so that nothing
else can be taken for one), the task's id, a space, the attempt's number, and the end of a line. What C code and other
programs write to the same pipe has none.
"""

from __future__ import annotations

import io
import os
import sys

from treadle.model.wire import AttemptRef

MARK = 17  # bytes


class Stamps:
    """The attempt that runs, and the mark of this process."""

    def __init__(self) -> None:
        self.renew()
        self.ref: AttemptRef | None = None

    def renew(self) -> None:
        self.mark = b"\0" + os.urandom(8).hex().encode()

    def open(self, out: int, err: int) -> None:
        """Have the standard files of this process lead into two pipes, and the mark open both."""
        for target, pipe in ((1, out), (2, err)):
            os.dup2(pipe, target)
            os.close(pipe)
            os.write(target, self.mark)


class Stamped(io.RawIOBase):
    """The raw stream below `sys.stdout` or `sys.stderr`: writes to the pipe, with a stamp where one is due."""

    def __init__(self, fd: int, stamps: Stamps) -> None:
        self._fd = fd
        self._stamps = stamps
        self._last: AttemptRef | None = None
        self.mode = "wb"
        self.name = fd

    def write(self, data: object, /) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        ref = self._stamps.ref
        if ref is self._last or ref is None:
            return os.write(self._fd, view)
        self._last = ref
        stamp = b"%s%s %d\n" % (self._stamps.mark, ref.task_id.encode(), ref.attempt)
        sent = os.writev(self._fd, [stamp, view])
        while sent < len(stamp):  # a pipe that is nearly full takes what fits
            sent += os.writev(self._fd, [memoryview(stamp)[sent:], view])
        return sent - len(stamp)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd


def print_through(out: int, err: int) -> Stamps:
    """Have this process print into two pipes, with stamps, from now on."""
    stamps = Stamps()
    stamps.open(out, err)
    sys.stdout = sys.__stdout__ = _stream(1, stamps)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2, stamps)  # type: ignore[misc]
    return stamps


def _stream(fd: int, stamps: Stamps) -> io.TextIOWrapper:
    """By lines: they are read while the task runs, and each costs a call of the kernel."""
    buffer = io.BufferedWriter(Stamped(fd, stamps))
    return io.TextIOWrapper(buffer, encoding="utf-8", errors="backslashreplace", line_buffering=True)
