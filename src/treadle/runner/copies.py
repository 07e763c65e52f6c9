"""The template's side of the checkpoint: orders to it, and the workers that come from it as orphans."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Collection

from treadle.runner.frames import BORN, COPY, ORDER


class Copies:
    """The way to the checkpoint, and what comes back from it: one copy at a time, as the parent orders them."""

    def __init__(self) -> None:
        self.number: int | None = None  # of the child that is, or is to be, the checkpoint
        self.awaited: int | None = None  # the number of the copy that was ordered
        self.early: dict[int, int] = {}  # pid -> status of orphans that have ended meanwhile: one may be the copy
        self.births, self._theirs = socket.socketpair()
        self.births.setblocking(False)
        self._orders: socket.socket | None = None

    def open(self, number: int) -> tuple[socket.socket, socket.socket]:
        """There will be a checkpoint: the ends for its process."""
        self.number = number
        self._orders, orders = socket.socketpair()
        return orders, self._theirs

    def close(self) -> int | None:
        """The checkpoint has ended; the number of the copy that there will not be."""
        if self._orders is not None:
            self._orders.close()
        self._orders = self.number = None
        return self.settle()

    def settle(self) -> int | None:
        """Await nothing any more; the number that was awaited."""
        number, self.awaited = self.awaited, None
        self.early.clear()
        return number

    def order(self, number: int, fds: list[int]) -> bool:
        """Have the checkpoint fork this child; False where there is none."""
        if self._orders is None:
            return False
        self.awaited = number
        with contextlib.suppress(ConnectionError):  # it has ended: its burial tells
            socket.send_fds(self._orders, [ORDER.pack(COPY, number)], fds)
        return True

    def born(self) -> int | None:
        """The pid of the copy that was awaited, when it has come."""
        with contextlib.suppress(BlockingIOError):
            while len(birth := self.births.recv(BORN.size)) == BORN.size:
                number, pid = BORN.unpack(birth)
                if number == self.awaited:
                    return int(pid)
        return None

    def let_go(self, kept: Collection[socket.socket]) -> None:
        """In a child: these are the template's, but for those that the child is given."""
        for sock in (self.births, self._theirs, self._orders):
            if sock is not None and sock not in kept:
                sock.close()
