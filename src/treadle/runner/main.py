"""Start of the program in a container: fork the template, then become the parent."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec

from treadle.model.wire import LAST_WORDS, RunSpec

TEMPLATE_END_SECONDS = 2.0


def main(argv: list[str]) -> int:
    """Run the container described by FOLDER/run.msgpack; the exit code says how it ended (runner/parent.py)."""
    if len(argv) != 2:
        print("usage: python -m treadle.runner FOLDER (the folder holds run.msgpack)", file=sys.stderr)
        return 64
    file = Path(argv[1]) / "run.msgpack"
    try:
        spec = msgspec.msgpack.decode(file.read_bytes(), type=RunSpec)
    except (OSError, msgspec.MsgspecError) as exc:
        print(f"treadle runner: cannot read {file}: {exc}. An agent writes it for each container.", file=sys.stderr)
        return 64
    return _run(spec, file.with_name(LAST_WORDS))


def _run(spec: RunSpec, last_words: Path) -> int:
    ours, theirs = socket.socketpair()
    pid = os.fork()  # first thing: no thread, no event loop and no network library is in memory yet
    if pid == 0:
        ours.close()
        from treadle.runner import template  # noqa: PLC0415 -- each process loads its own part alone, both at once

        template.run(spec, theirs)
    theirs.close()
    from treadle.runner import parent  # noqa: PLC0415 -- and so template and children stay small

    try:
        return parent.run(spec, ours, last_words)
    finally:
        ours.close()
        _await_template(pid)


def _await_template(pid: int) -> None:
    """The template ends its children when its socket closes; give it a moment, then end it by force."""
    deadline = time.monotonic() + TEMPLATE_END_SECONDS
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        time.sleep(0.002)
