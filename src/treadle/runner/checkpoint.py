"""The checkpoint: a child that has loaded the handler once, and of whose memory the workers are copies.

It is a child of the template like any other and no part of it: it runs user code, and the parent believes the
template. A worker shall be the template's to reap and to kill as well, so the checkpoint forks one that forks it and
ends: the worker is an orphan then, and comes to the template (PR_SET_CHILD_SUBREAPER).
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import struct
import sys
from pathlib import Path
from typing import NoReturn

from treadle.model.wire import RunSpec
from treadle.runner import child, pages, process
from treadle.runner.child import Child
from treadle.runner.frames import BORN, ORDER, Loaded
from treadle.runner.handler import Handler

_PID = struct.Struct("<I")
_GO = b"g"


def run(spec: RunSpec, template: int, files: list[int], orders: socket.socket, births: socket.socket) -> NoReturn:
    """Make this process a child of `template` that loads the handler and forks workers as it is ordered to.

    Where what was loaded cannot be forked, it says why and becomes a worker itself: nothing is loaded in vain.

    Args:
        files: as every child gets them.
        orders: from the template: ORDER with the files of the worker that is to be forked.
        births: to the template: BORN for each of them.
    """
    self = child.begin(spec, template, files)
    with contextlib.suppress(ConnectionError):
        handler = self.load()
        if handler is not None:
            trouble = why_not(handler)
            if not trouble:
                Checkpoint(spec, template, self, handler).serve(orders, births)
            self.send(Loaded(trouble))
            orders.close()
            births.close()
            self.work(handler)
    child.end()


def why_not(handler: Handler) -> str:
    """What keeps this process from being forked, in words; "" if nothing does.

    A library that knows of forks (OpenBLAS, and so numpy) puts its threads away for one, so a fork is tried first.
    """
    if _threads() > 1:
        trial = os.fork()
        if trial == 0:
            os._exit(0)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(trial, 0)
    if others := _threads() - 1:
        return f"the module or on_start has left {others} {'thread' if others == 1 else 'threads'} running"
    if tasks := handler.unfinished():
        return f"on_start has left {tasks} asyncio {'task' if tasks == 1 else 'tasks'} unfinished"
    return ""


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


class Checkpoint:
    """The process as it was when the handler had been loaded: its child's side, and the handler."""

    def __init__(self, spec: RunSpec, template: int, own: Child, handler: Handler) -> None:
        self._spec = spec
        self._template = template
        self._own = own
        self._handler = handler

    def serve(self, orders: socket.socket, births: socket.socket) -> NoReturn:
        """Fork a worker at each order, until the template has ended."""
        self._handler.close_loop()  # a selector would be shared by all who come of it
        process.adopt_orphans(adopt=False)  # workers are to become orphans; what on_start has started is a child
        pages.lay_out()
        gc.collect()
        gc.freeze()  # the workers' collectors shall not touch, and so copy, what is loaded
        self._own.send(Loaded(""))
        while True:
            order, fds, _, _ = socket.recv_fds(orders, ORDER.size, child.FILES)
            if len(order) < ORDER.size:
                child.end()
            _, number = ORDER.unpack(order)
            pid, leash = self._fork(fds, (orders, births))
            births.sendall(BORN.pack(number, pid))
            with leash:
                leash.sendall(_GO)

    def _fork(self, fds: list[int], sockets: tuple[socket.socket, ...]) -> tuple[int, socket.socket]:
        """A worker that has come to the template, and what it waits at until it may go on."""
        child.flush()  # what is buffered would be printed by both
        leash, theirs = socket.socketpair()
        between = os.fork()
        if between == 0:
            leash.close()
            self._fork_on(fds, theirs, sockets)
        theirs.close()
        for fd in fds:
            os.close(fd)
        told = leash.recv(_PID.size)
        with contextlib.suppress(ChildProcessError):  # user code may have chosen not to bury anybody
            os.waitpid(between, 0)
        if len(told) < _PID.size:
            raise OSError("no worker can be forked: the container may have too many processes, or too little memory")
        return _PID.unpack(told)[0], leash

    def _fork_on(self, fds: list[int], leash: socket.socket, sockets: tuple[socket.socket, ...]) -> NoReturn:
        code = 1
        try:
            pid = os.fork()
            if pid == 0:
                self._become_worker(fds, leash, sockets)
            leash.sendall(_PID.pack(pid))
            code = 0
        except BaseException:  # noqa: BLE001 -- neither of the two may ever go on as a second checkpoint
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)

    def _become_worker(self, fds: list[int], leash: socket.socket, sockets: tuple[socket.socket, ...]) -> NoReturn:
        if leash.recv(len(_GO)) != _GO:
            os._exit(1)
        for sock in (leash, *sockets):
            sock.close()
        self._own.close()
        draw_anew()
        worker = child.begin(self._spec, self._template, fds, self._own)
        with contextlib.suppress(ConnectionError):
            worker.work(self._handler)
        child.end()


def draw_anew() -> None:
    """Have the workers draw different numbers. Python's own generators see to it themselves (`random`)."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
