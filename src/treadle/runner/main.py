"""Start of the program in a container: fork the template, then become the parent."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec

from treadle.model.container import Isolation
from treadle.model.wire import LAST_WORDS, RunSpec
from treadle.runner import process
from treadle.runner.inside import Inside

TEMPLATE_END_SECONDS = 2.0


def main(argv: list[str]) -> int:
    """Run the container described by FOLDER/run.msgpack; the exit code says how it ended (runner/parent.py).

    SHEET is an open file that holds what the children take on inside the sandbox; without it they have this process's
    environment and packages, which is right where this process is inside already.
    """
    if len(argv) not in (2, 3):
        print("usage: python -m treadle.runner FOLDER [SHEET] (the folder holds run.msgpack)", file=sys.stderr)
        return 64
    file = Path(argv[1]) / "run.msgpack"
    try:
        spec = msgspec.msgpack.decode(file.read_bytes(), type=RunSpec)
        inside = Inside(int(argv[2]), file, spec.code) if argv[2:] else None
    except (OSError, msgspec.MsgspecError) as exc:
        print(f"treadle runner: cannot read {file}: {exc}. An agent writes it for each container.", file=sys.stderr)
        return 64
    return _run(spec, inside, file.with_name(LAST_WORDS))


def _run(spec: RunSpec, inside: Inside | None, last_words: Path) -> int:
    apart = spec.sandbox.level == Isolation.NAMESPACES
    if apart:
        process.adopt_orphans()  # the template, whose own parent will end at once (runner/namespaces.py)
    ours, theirs = socket.socketpair()
    hatch, their_hatch = socket.socketpair()  # over which the template hands the listener of its relay out
    pid = os.fork()  # first thing: no thread, no event loop and no network library is in memory yet
    if pid == 0:
        ours.close()
        hatch.close()
        from treadle.runner import template  # noqa: PLC0415 -- each process loads its own part alone, both at once

        template.run(spec, inside, theirs, their_hatch)
    if inside is not None:
        inside.close()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who ends from now on needs no burial
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    theirs.close()
    their_hatch.close()
    from treadle.runner import parent  # noqa: PLC0415 -- and so template and children stay small

    try:
        return parent.run(spec, ours, last_words, _take_listener(spec, hatch))
    finally:
        ours.close()
        _await_template(None if apart else pid)


def _take_listener(spec: RunSpec, hatch: socket.socket) -> socket.socket | None:
    """What a template without a network hands out once it is inside; nothing if it cannot go in."""
    with hatch:
        fds = socket.recv_fds(hatch, 1, 1)[1] if spec.sandbox.block_network else []
    return socket.socket(fileno=fds[0]) if fds else None


def _await_template(pid: int | None) -> None:
    """The template ends its children when its socket closes; give it a moment, then end it by force."""
    deadline = time.monotonic() + TEMPLATE_END_SECONDS
    with contextlib.suppress(ChildProcessError):  # nobody is left
        while os.waitpid(-1, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                for left in [pid] if pid is not None else process.children():
                    process.kill_group(left)
            time.sleep(0.002)
