"""The right to begin a task, as a number in a pipe that parent and child read: the kernel gives each to one of them.

So work may lie in a child, and what has not begun can still be taken away: its token is either in the pipe or gone.
Reads and writes of a pipe are whole (up to PIPE_BUF bytes, 1024 tokens), so no token is ever torn. The reading end
does not block: that flag belongs to the pipe, not to a process, and a parent that waited would stop its container.
"""

from __future__ import annotations

import os
import select
import sys
from array import array

SIZE = 4  # bytes of a token
TYPE = "I"
PIECE = 4096


class Tokens:
    """The parent's ends of one child's pipe. `end` is for the child."""

    def __init__(self) -> None:
        self.end, self._write = os.pipe()
        os.set_blocking(self.end, False)

    def put(self, numbers: list[int]) -> None:
        """Let the child begin these, in this order, after those that are there. At most 1024 are ever there."""
        os.write(self._write, array(TYPE, numbers))

    def take_back(self) -> int:
        """Take all that are there, the last ones put; answers how many. None of them will begin."""
        try:
            return len(os.read(self.end, PIECE)) // SIZE
        except BlockingIOError:
            return 0

    def close(self) -> None:
        os.close(self.end)
        os.close(self._write)


class Turnstile:
    """The child's end of the pipe."""

    def __init__(self, end: int) -> None:
        os.set_inheritable(end, False)
        self._end = end
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)

    def close(self) -> None:
        os.close(self._end)

    def wait(self) -> int | None:
        """Take the next token, when there is one; None when the parent has ended."""
        while True:
            try:
                token = os.read(self._end, SIZE)
            except BlockingIOError:
                self._poll.poll()
            else:
                return int.from_bytes(token, sys.byteorder) if token else None
