"""A real runner process for a test."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import psutil

from treadle.model.deployment import QueueConfig
from treadle.model.wire import LAST_WORDS, RunSpec, Surroundings
from treadle.runtime.files import sheet

from .link_server import DEADLINE, Link, Server, wait_until


def gone(processes: list[psutil.Process], seconds: float = DEADLINE) -> bool:
    """True when all of them end in time; a process that only its parent has not reaped yet has ended."""
    wait_until(lambda: not any(map(_alive, processes)), f"the end of {processes}", seconds)
    return True


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Runner:
    """One runner process, its source folder and its server."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.server = server
        self._folder = folder
        self.code = folder / "code"
        self.python = [sys.executable]
        self.env: dict[str, str] | None = None
        self.around: Surroundings | None = None  # what its children are to take on; None: what it has itself
        self.owner: int | None = None  # of what it is given, if it is not run by us
        self.process: subprocess.Popen[bytes]

    def start(self, source: str, *, config: dict[str, Any] | None = None, **spec: Any) -> Link:
        """Start a runner for `app:handler` in this source, and wait for its first connection and free children."""
        self.launch(source, config=config, **spec)
        link = self.server.accept()
        link.wait_ready((config or {}).get("workers", 1))
        return link

    def launch(self, source: str, *, config: dict[str, Any] | None = None, **spec: Any) -> None:
        """Start a runner and wait for nothing."""
        self.code.mkdir()
        (self.code / "app.py").write_text(textwrap.dedent(source))
        settings = {"handler": "app:handler", "timeout": 0, **(config or {})}
        known = {
            "url": self.server.url,
            "container_id": "taskqueue-d1-00000001",
            "deployment_id": "d1",
            "token": "secret-of-the-container",
            "python": "3.11.7",
        }
        run_spec = RunSpec(config=QueueConfig(**settings), code=str(self.code), **{**known, **spec})
        self.launch_with(msgspec.msgpack.encode(run_spec))

    def launch_with(self, spec: bytes) -> None:
        """Start a runner with these bytes as its run.msgpack."""
        (self._folder / "run.msgpack").write_bytes(spec)
        if self.owner is not None:
            for path in self._folder.rglob("*"):
                os.chown(path, self.owner, self.owner)
        with (self._folder / "log").open("wb") as log, sheet(msgspec.msgpack.encode(self.around)) as around:
            given = [] if self.around is None else [around.fileno()]
            self.process = subprocess.Popen(
                [*self.python, "-m", "treadle.runner", str(self._folder), *map(str, given)],
                pass_fds=given,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=self.env,
                start_new_session=True,
            )

    def log(self) -> str:
        return (self._folder / "log").read_text()

    def last_words(self) -> str:
        """Why the runner has ended itself, as it tells its agent."""
        return (self._folder / LAST_WORDS).read_text()

    def wait(self, seconds: float = DEADLINE) -> int:
        """The exit code of the runner."""
        return self.process.wait(seconds)

    def tree(self) -> list[psutil.Process]:
        """The template, the children and what they started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
