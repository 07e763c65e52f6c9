"""The template: a small single-threaded process that forks the children, reaps them, and runs no user code."""

from __future__ import annotations

import gc
import io
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

from treadle.model.container import RELAY, Isolation
from treadle.model.wire import LoadFailed, RunSpec
from treadle.runner import checkpoint, child, process, sandbox
from treadle.runner.copies import Copies
from treadle.runner.frames import COPY, FORK, LOAD, ORDER, Forked, FromTemplate, Gone, NotForked, pack
from treadle.runner.inside import Inside

ASIDE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # sent to the whole group, meant for the parent


def run(spec: RunSpec, inside: Inside | None, sock: socket.socket, hatch: socket.socket) -> NoReturn:
    """Serve the parent until it closes the socket (by ending, however it ends), then take the children along.

    The closed socket is the signal, not PR_SET_PDEATHSIG: a template killed by the kernel could not kill what the
    children have started. It sees the end of the file in the same moment.

    `hatch`: without a network, what listens for the children that want to reach the server goes out through it.
    """
    code = 1
    try:
        code = Template(spec, inside, sock).serve(hatch)
    except ConnectionError:
        code = 0  # the parent ended while it was being told something
    except BaseException:  # noqa: BLE001 -- this process must never return into the parent's code
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _hand_listener_out(hatch: socket.socket) -> str:
    """Listen where the children can knock, and let the parent answer. Where that is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        socket.send_fds(hatch, [b"L"], [listener.fileno()])
        return "{}:{}".format(*listener.getsockname())


def _ended() -> int | None:
    """The pid of a child, or of an orphan taken over from one, that has ended and is not reaped."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return ended.si_pid if ended else None


class Template:
    """The children by number and by pid, and the socket to the parent."""

    def __init__(self, spec: RunSpec, inside: Inside | None, sock: socket.socket) -> None:
        self._spec = spec
        self._inside = inside
        self._env = os.environ if inside is None else inside.env  # of the children
        self._sock = sock
        self._numbers: dict[int, int] = {}  # pid -> number of each child that is not reaped
        self._copies = Copies()
        self._awake, self._wake = process.watch_children()

    def serve(self, hatch: socket.socket) -> int:
        for number in ASIDE:
            signal.signal(number, signal.SIG_IGN)
        if not self._join_limits() or not self._enter_sandbox(hatch):
            return 2
        process.adopt_orphans()
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)  # a log is read while it is written
        gc.collect()
        gc.freeze()  # the children's collectors shall not touch, and so copy, what is loaded already
        try:
            process.serve(self._sock, self._awake, self._obey, self._reap, (self._copies.births, self._welcome))
        finally:
            self._end_children()
        return 0

    def _join_limits(self) -> bool:
        """Put this process, and so all children, under the container's limits. Without them nothing may run."""
        for file in self._spec.procs_files:
            try:
                Path(file).write_text("0")
            except OSError as exc:
                advice = "The agent must be able to write there; TREADLE_LIMITS=watchdog needs no group."
                self._tell(LoadFailed(f"the container's limits cannot be entered: {file}: {exc.strerror}. {advice}"))
                return False
        return True

    def _enter_sandbox(self, hatch: socket.socket) -> bool:
        """Shut this process, and so all children, off. In less than what was ordered nothing may run."""
        box = self._spec.sandbox
        try:
            sandbox.enter(box)
            with hatch:
                if box.block_network:
                    self._env[RELAY] = _hand_listener_out(hatch)
            self._first_to_go = process.FirstToGo()  # whose file cannot be opened once this is closed
            sandbox.close(box)
        except OSError as exc:
            level = f"isolation level {box.level.value} ({box.level.name.lower()})"
            advice = "`treadle doctor` tells what this machine gives."
            self._tell(LoadFailed(f"{level} cannot be entered: {exc.strerror or exc}. {advice}"))
            return False
        return True

    def _obey(self) -> bool:
        """Carry out one order of the parent; False when it has closed the socket."""
        order, fds, _, _ = socket.recv_fds(self._sock, ORDER.size, child.FILES)
        if len(order) < ORDER.size:
            return False
        word, number = ORDER.unpack(order)
        if word == FORK:
            self._fork(number, fds)
        elif word == LOAD:
            self._fork(number, fds, *self._copies.open(number))
        elif word == COPY:
            if not self._copies.order(number, fds):
                self._tell(NotForked(number))
        else:
            self._kill(number)
        for fd in fds:
            os.close(fd)
        return True

    def _kill(self, number: int) -> None:
        for pid, known in self._numbers.items():
            if known == number:
                process.kill_group(pid)

    def _fork(self, number: int, fds: list[int], *ways: socket.socket) -> None:
        """`ways`: of a child that is to be the checkpoint, from and to this process."""
        template = os.getpid()
        self._first_to_go.is_born(True)
        pid = os.fork()
        if pid == 0:
            self._become_child(template, fds, ways)
        self._first_to_go.is_born(False)
        for way in ways[:1]:
            way.close()
        self._count_in(number, pid)

    def _count_in(self, number: int, pid: int) -> None:
        self._numbers[pid] = number
        self._tell(Forked(number, pid if self._spec.sandbox.level != Isolation.NAMESPACES else 0))

    def _become_child(self, template: int, fds: list[int], ways: tuple[socket.socket, ...]) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            for file in (self._sock, self._awake, self._wake, self._first_to_go):
                file.close()
            self._copies.let_go(ways)
            sandbox.show()
            if self._inside is not None:
                self._inside.enter(template, fds, ways)
            if ways:
                checkpoint.run(self._spec, template, fds, *ways)
            child.run(self._spec, template, fds)
        except BaseException:  # noqa: BLE001 -- a child must never go on as a second template
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)

    def _welcome(self) -> None:
        """Take in the copy that the checkpoint has forked. Its word goes as far as it is this process's child."""
        pid = self._copies.born()
        if pid is None:
            return
        early = self._copies.early.get(pid)
        number = self._copies.settle()
        assert number is not None
        if early is None and (pid in self._numbers or not process.is_child(pid)):
            self._tell(NotForked(number))
            return
        self._count_in(number, pid)
        if early is not None:
            self._bury(pid, early)
        self._kill_strays()

    def _reap(self) -> None:
        """Tell the parent of each child that has ended, after killing what it leaves behind in its group.

        While it is not reaped its pid cannot be given to another process, so the group killed is its own.
        """
        while (pid := _ended()) is not None:
            if pid in self._numbers:
                process.kill_group(pid)
            _, status = os.waitpid(pid, 0)
            self._bury(pid, os.waitstatus_to_exitcode(status))

    def _bury(self, pid: int, status: int) -> None:
        number = self._numbers.pop(pid, None)
        if number is None and self._copies.awaited is not None:
            self._copies.early[pid] = status
        self._kill_strays()
        if number is not None:
            self._tell(Gone(number, status))
        if number is not None and number == self._copies.number:
            self._welcome()  # who has come last
            unborn = self._copies.close()
            if unborn is not None:
                self._tell(NotForked(unborn))
            self._kill_strays()

    def _kill_strays(self) -> None:
        """Kill what has come to this process unnumbered: each child keeps its own orphans for as long as it lives,
        so these were started by one that is dead, whatever session or group they have made for themselves. One that
        is awaited may be among them; they are looked at again when it is known."""
        if self._copies.awaited is not None:
            return
        for pid in process.children():
            if pid not in self._numbers:
                process.kill_group(pid)

    def _end_children(self) -> None:
        """Kill and reap the children, then the orphans that come to this process by that, until nothing is left."""
        while pids := process.children() or list(self._numbers):
            for pid in pids:
                process.kill_group(pid)
            for pid in pids:
                os.waitpid(pid, 0)
                self._numbers.pop(pid, None)

    def _tell(self, message: FromTemplate) -> None:
        self._sock.sendall(pack(message))
