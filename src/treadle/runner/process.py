"""What a process asks of the kernel about its own life and the lives of others."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
OOM_SCORE = b"500"


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        from treadle.runner import kernel  # noqa: PLC0415 -- the parent, started in a hurry, has no use for ctypes

        kernel.prctl(option, value)


def watch_children() -> tuple[socket.socket, socket.socket]:
    """Two sockets to keep open: the first can be read when a child has ended (or another signal has come)."""
    awake, wake = socket.socketpair()
    awake.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _do_nothing)
    return awake, wake


def _do_nothing(number: int, frame: object) -> None:
    """Have SIGCHLD write into the wake-up socket, which an ignored signal does not."""


def serve(
    sock: socket.socket,
    awake: socket.socket,
    obey: Callable[[], bool],
    reap: Callable[[], None],
    also: tuple[socket.socket, Callable[[], None]] | None = None,
) -> None:
    """Call `reap` when a child has ended and `obey` when an order has come, until that says that none will follow.

    `also`: another socket, and what to call when it can be read.
    """
    poll = select.poll()
    for one in (sock, awake, *(also or ())[:1]):
        poll.register(one, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if also and also[0].fileno() in ready:
            also[1]()
        if awake.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                awake.recv(4096)
            reap()
        if sock.fileno() in ready and not obey():
            return


def adopt_orphans(*, adopt: bool = True) -> None:
    """Have what children leave behind become this process's to reap: a container may have no init."""
    _prctl(PR_SET_CHILD_SUBREAPER, int(adopt))


def die_with(parent: int) -> None:
    """Have the kernel kill this process at once when its parent dies (Linux; elsewhere the closed socket ends it)."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the request was made
        os._exit(1)


class FirstToGo:
    """When memory runs out the kernel shall pick a child, not the template that it was forked from.

    A child cannot say so itself where it must not write to /proc: it is born while the template says it of itself.
    """

    def __init__(self) -> None:
        self._file: int | None = None
        with contextlib.suppress(OSError):  # there is no such file but on Linux
            self._file = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
            self._own = os.read(self._file, 16)

    def is_born(self, born: bool) -> None:
        """Called before a fork with True, after it with False."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.pwrite(self._file, OOM_SCORE if born else self._own, 0)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)


def kill_group(pid: int) -> None:
    """Kill a process and all of its group. The process alone too: it may not have made its group yet."""
    for kill in (os.kill, os.killpg):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def is_child(pid: int) -> bool:
    """Whether this is a process of which the caller is the parent, and which is not reaped."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def children() -> list[int]:
    """The pids of this process's children, with zombies and adopted orphans; empty where the kernel has no list."""
    pid = os.getpid()
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
