"""Runs the commands of a build, line by line, and ends them when the agent stops."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from treadle.model.errors import BuildFailed
from treadle.runtime import processes

Emit = Callable[[str], None]

_KEPT = frozenset({"HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"})
_KEPT_PREFIXES = ("UV_", "PIP_", "XDG_")
MARK = "TREADLE_BUILD"  # the variable by which commands are found whose agent was killed: its pid and identity


def build_environment() -> dict[str, str]:
    """What of the agent's environment a build may see: where the network and caches are, no token."""
    return {
        key: value
        for key, value in os.environ.items()
        if key in _KEPT or key.startswith(_KEPT_PREFIXES) or key.lower().endswith("_proxy") or key == "PATH"
    }


def news(emit: Emit, *noise: str) -> Emit:
    """Of uv's lines pass on what is news: not those that begin like one of `noise`, and not the error at the end,
    which is told in the reason of the failure."""
    failed = False

    def hear(line: str) -> None:
        nonlocal failed
        failed = failed or line.startswith("error:")
        if not failed and not line.startswith(noise):
            emit(line)

    return hear


class Commands:
    """Commands in progress. After `stop` none runs and none can be started."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self.mark = f"{os.getpid()}:{processes.identity(os.getpid())}"

    def run(
        self, argv: Sequence[str], *, cwd: Path, env: dict[str, str], emit: Emit, held: Sequence[int] = ()
    ) -> tuple[int, list[str]]:
        """Run a command; each line of its output goes to `emit` as it comes.

        `held` are files that the command keeps open: a lock on one lasts as long as the command, even when the
        agent is killed. Returns the exit code and the lines.
        """
        with self._lock:
            if self.stopped.is_set():
                raise stopped()
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=env | {MARK: self.mark},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
                pass_fds=held,
            )
            self._running.add(process)
        try:
            return self._follow(process, emit)
        finally:
            with self._lock:
                self._running.discard(process)

    def _follow(self, process: subprocess.Popen[str], emit: Emit) -> tuple[int, list[str]]:
        lines = []
        with process:
            assert process.stdout is not None
            for raw in process.stdout:
                line = raw.rstrip()
                if line:
                    lines.append(line)
                    emit(line)
        if self.stopped.is_set():
            raise stopped()
        return process.returncode, lines

    def stop(self) -> None:
        """Kill what runs, with everything it started."""
        with self._lock:
            self.stopped.set()
            for process in self._running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


class Shell:
    """Runs the commands of one build: with its variables, `held` kept open, and what they print told to `emit`."""

    def __init__(
        self, commands: Commands, emit: Emit, env: Mapping[str, str] | None = None, held: Sequence[int] = ()
    ) -> None:
        self._commands = commands
        self.emit = emit
        self.folder: Path | None = None  # for temporary files that commands are to find; None: the machine's
        self._env = dict(env or {})
        self._held = held

    def run(
        self, argv: Sequence[str], cwd: Path, *, env: Mapping[str, str] | None = None, emit: Emit | None = None
    ) -> tuple[int, list[str]]:
        """Run a command in a folder, with `env` below the build's own variables; its exit code and lines."""
        env = build_environment() | dict(env or {}) | self._env
        return self._commands.run(argv, cwd=cwd, env=env, emit=emit or self.emit, held=self._held)


def stopped() -> BuildFailed:
    return BuildFailed("The build was interrupted: the agent is stopping.", "Build again when it is back.")
