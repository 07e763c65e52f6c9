"""The zygote: has loaded all that a runner needs, and forks one whenever the agent asks. It never runs user code.

`python -P -m treadle.runner.zygote FD PADDING`. It stays single-threaded and makes no event loop. It ends when the
agent's end of the socket is closed; the runners live on. Linux only.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from treadle.model.wire import Ended, FromZygote, Spawn, Spawned, Up, decode_for_zygote, encode
from treadle.runner import handler, process
from treadle.runner.label import Label
from treadle.runner.main import main as run_runner

FOR_CHILDREN = ("treadle.runner.template",)
# What only the runner's parent needs, and what the first lines of nearly every user's module load.
FOR_OTHERS = ("treadle.runner.parent", "encodings.idna", "treadle.sdk.task_queue")
LARGEST = 64 * 1024  # bytes of an order

Main = Callable[[list[str]], int]


def load() -> None:
    """Import what runners need; what their children alone would not have can be given up again by these."""
    for name in FOR_CHILDREN:
        import_module(name)
    before = set(sys.modules)
    for name in FOR_OTHERS:
        import_module(name)
    handler.preloaded |= {name for name in set(sys.modules) - before if not name.startswith("treadle.")}


class Zygote:
    """The socket to the runtime, and `main`, which each forked process runs with its own `sys.argv`."""

    def __init__(self, sock: socket.socket, main: Main) -> None:
        os.environ.clear()
        self._sock = sock
        self._main = main
        self._label = Label()
        self._label.title(f"{sys.executable} -P -m treadle.runner.zygote")
        self._label.mark("")
        self._awake, self._wake = process.watch_children()

    def serve(self) -> None:
        """Serve until the runtime closes the socket, by ending, however it ends."""
        if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208
            return  # a package of the image has started a thread: a fork would not have it, and could hang for it
        gc.collect()
        gc.freeze()  # the runners' collectors shall not touch, and so copy, what is loaded already
        with contextlib.suppress(ConnectionError):
            self._tell(Up())
            process.serve(self._sock, self._awake, self._obey, self._reap)

    def _obey(self) -> bool:
        """Carry out one order; False when the socket is closed."""
        order, fds, _, _ = socket.recv_fds(self._sock, LARGEST, 2)
        if not order:
            return False
        try:
            self._tell(Spawned(self._fork(decode_for_zygote(order), *fds)))
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _fork(self, order: Spawn, surroundings: int, log: int) -> int:
        """The pid of the new runner, 0 when there is none. It bears its mark from birth: whoever looks for what is
        left of a container finds it at any moment."""
        self._label.mark(order.container_id)
        try:
            pid = os.fork()
        except OSError:
            pid = -1
        if pid == 0:
            self._become_runner(order.folder, surroundings, log)
        self._label.mark("")
        return max(pid, 0)

    def _become_runner(self, folder: str, surroundings: int, log: int) -> NoReturn:
        code = 1
        try:
            for target in (1, 2):
                os.dup2(log, target)
            self._let_go()
            os.close(log)
            self._label.title(f"{sys.executable} -P -m treadle.runner {folder}")
            sys.argv = [str(Path(__file__).with_name("__main__.py")), folder, str(surroundings)]
            code = self._main(sys.argv)
        except BaseException:  # noqa: BLE001 -- this process must never go on as a second zygote
            sys.excepthook(*sys.exc_info())
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(code)

    def _let_go(self) -> None:
        """Be a process of its own: session, signals and files (standard input is empty already)."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for sock in (self._sock, self._awake, self._wake):
            sock.close()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                self._tell(Ended(found[0], os.waitstatus_to_exitcode(found[1])))

    def _tell(self, message: FromZygote) -> None:
        self._sock.sendall(encode(message))


def main(argv: list[str]) -> None:
    load()
    Zygote(socket.socket(fileno=int(argv[1])), run_runner).serve()


if __name__ == "__main__":
    main(sys.argv)
