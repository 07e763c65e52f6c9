"""A child: the process that loads the handler and runs tasks, one at a time."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from typing import BinaryIO, NoReturn

from treadle.model.wire import Finished, LoadFailed, Raised, Ready, RunSpec, Work
from treadle.runner import process
from treadle.runner.failures import NotLoaded, cut, raised, traceback_of
from treadle.runner.frames import WORK, FromChild, decode_for_child, pack
from treadle.runner.handler import Handler, load
from treadle.runner.results import NotJson, arguments, to_json
from treadle.runner.stamps import Stamps, print_through
from treadle.runner.tokens import Turnstile
from treadle.runner.variable import Variable
from treadle.sdk.context import FunctionContext

TASK_ID = Variable("TASK_ID")
FILES = 4  # that a child gets from the parent
DEFAULT = (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


def run(spec: RunSpec, template: int, files: list[int]) -> NoReturn:
    """Make this process a child of `template`, load the handler, and work until the parent closes the socket."""
    child = begin(spec, template, files)
    with contextlib.suppress(ConnectionError):  # the parent has gone: nobody wants the answer
        handler = child.load()
        if handler is not None:
            child.work(handler)
    end()


def begin(spec: RunSpec, template: int, files: list[int], forked_from: Child | None = None) -> Child:
    """Make this process a child of `template`.

    The files come from the parent: a socket, the tokens, and the pipes to print into. A copy of a child that has
    loaded the handler keeps its streams and signals: user code may have taken hold of them.
    """
    sock, tokens, out, err = files
    if forked_from is None:
        stamps = print_through(out, err)
        _reset_signals()
    else:
        stamps = forked_from.stamps
        stamps.renew()
        stamps.open(out, err)
    os.setsid()  # a group of its own: what the handler starts is killed with it
    process.die_with(template)
    process.adopt_orphans()  # so that what the handler leaves behind is known to be its own when it dies
    return Child(spec, socket.socket(fileno=sock), Turnstile(tokens), stamps)


def _reset_signals() -> None:
    for number in DEFAULT:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def end() -> NoReturn:
    """Leave no print behind, and nothing for anybody else to run in this process."""
    flush()
    os._exit(0)


class Child:
    """The socket to the parent, on which work comes ahead, and the turnstile that says which of it may begin."""

    def __init__(self, spec: RunSpec, sock: socket.socket, turnstile: Turnstile, stamps: Stamps) -> None:
        self._spec = spec
        self.stamps = stamps
        self._turnstile = turnstile
        self._sock = sock
        self._from_parent: BinaryIO = sock.makefile("rb")
        self._pid = os.getpid()

    def work(self, handler: Handler) -> None:
        """Run tasks until the parent closes the socket."""
        self.send(Ready(1))
        while (work := self._next()) is not None:
            self.send(self._attempt(handler, work))  # at once: with the next token the parent counts on it

    def close(self) -> None:
        """In a copy of this process: let go of what is another's."""
        self._from_parent.close()
        self._sock.close()
        self._turnstile.close()

    def load(self) -> Handler | None:
        """The handler; None when it cannot be loaded, and the parent has been told."""
        os.environ["TREADLE_URL"] = self._spec.url
        os.environ["TREADLE_TOKEN"] = self._spec.token
        os.environ["TREADLE_CODE"] = self._spec.code
        os.environ["CONTAINER_ID"] = self._spec.container_id
        try:
            return load(self._spec.config.handler, self._spec.code)
        except NotLoaded as exc:
            cause = exc.__cause__
            traceback = traceback_of(cause, self._spec.code) if cause else ""
            _print_error(traceback or f"{exc}\n")
            self.send(LoadFailed(cut(str(exc)), traceback))
            return None

    def _attempt(self, handler: Handler, work: Work) -> Finished:
        """Run one task. Whatever user code raises, also SystemExit, is its failure and not the end of the child."""
        self.stamps.ref = work.ref
        TASK_ID.set(work.ref.task_id)
        os.environ["TASK_ATTEMPT"] = str(work.ref.attempt)
        try:
            began = time.perf_counter()
            args, kwargs = arguments(work.payload)
            value = handler.call(args, kwargs, self._context(handler, work) if handler.wants_context else None)
            return Finished(work.ref, result=to_json(value), free=True, ran=time.perf_counter() - began)
        except NotJson as exc:
            _print_error(f"{exc}\n")
            not_json = Raised(exc.type, cut(str(exc)), "", retryable=False, not_json=True)
            return Finished(work.ref, raised=not_json, free=True)
        except BaseException as exc:  # noqa: BLE001 -- user code may raise anything
            told = raised(exc, handler.retry_for, self._spec.code)
            _print_error(told.traceback)
            return Finished(work.ref, raised=told, free=True)

    def _context(self, handler: Handler, work: Work) -> FunctionContext:
        return FunctionContext(
            container_id=self._spec.container_id,
            stub_id=self._spec.deployment_id,
            stub_type=self._spec.stub_type,
            callback_url=work.callback_url,
            task_id=work.ref.task_id,
            timeout=self._spec.config.timeout,
            on_start_value=handler.on_start_value,
            python_version=self._spec.python,
        )

    def send(self, message: FromChild) -> None:
        flush()
        if os.getpid() != self._pid:
            os._exit(0)  # user code has forked and let its copy return here: one process speaks for a task
        self._sock.sendall(pack(message))

    def _next(self) -> Work | None:
        """The next task that may begin, after those that were taken back; None when the parent has ended."""
        token = self._turnstile.wait()
        while token is not None:
            head = self._from_parent.read(WORK.size)
            if len(head) < WORK.size:
                return None
            size, number = WORK.unpack(head)
            body = self._from_parent.read(size)
            if len(body) < size:
                return None
            if number == token:
                return decode_for_child(body)
        return None


def _print_error(text: str) -> None:
    """Print like Python what user code raised, wherever user code has turned `sys.stderr` to."""
    with contextlib.suppress(Exception):  # it may have closed the stream
        print(text, end="", file=sys.__stderr__)


def flush() -> None:
    """What was printed is in the log before the task is reported."""
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105 -- contextlib.suppress costs twice what a flush of nothing does
            stream.flush()
        except Exception:  # noqa: BLE001, S110 -- user code may have closed or replaced them
            pass
