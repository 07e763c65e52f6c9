"""Bytecode of images: without it every first import compiles. At once for small images, later for large ones."""

from __future__ import annotations

import contextlib
import queue
import threading
from pathlib import Path

from treadle.model.errors import BuildFailed
from treadle.runtime.commands import Commands, Shell
from treadle.runtime.seal import opened

SMALL = 1500  # modules, about 4 s of one processor: more is compiled after the build
PENDING = "bytecode.pending"  # in an environment whose bytecode is to come, over restarts of the agent
_COMPILER = Path(__file__).with_name("compiler.py")


class Bytecode:
    """Compiles what images hold. What is left for later is done one image at a time, at the lowest priority."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._queue: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def compile(self, environment: Path, shell: Shell) -> None:
        """Compile a small environment; mark a large one, for `later`."""
        modules = sum(1 for _ in environment.rglob("*.py"))
        if modules <= SMALL:
            compile_now(environment / "lib", str(environment / "bin" / "python"), shell)
        else:
            shell.emit(f"Its {modules} modules are compiled in the background")
            (environment / PENDING).touch()

    def later(self, environment: Path) -> None:
        """Compile it when the others before it are, if it is marked."""
        if not (environment / PENDING).exists():
            return
        self._queue.put(environment)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="bytecode", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            environment = self._queue.get()
            shell = Shell(self._commands, _unheard)
            with contextlib.suppress(BuildFailed, OSError):  # it is stopping, or the image was removed meanwhile
                shell.run(_argv(str(environment / "bin" / "python"), environment / "lib", "slowly"), environment)
                with opened(environment):
                    (environment / PENDING).unlink()


def compile_now(folder: Path, python: str, shell: Shell) -> None:
    """Compile the modules below a folder with all processors."""
    shell.run(_argv(python, folder, "now"), folder, emit=_unheard)


def _argv(python: str, folder: Path, pace: str) -> list[str]:
    """`-I -S`: nothing of the image itself is run."""
    return [python, "-I", "-S", str(_COMPILER), str(folder), pace]


def _unheard(_line: str) -> None:
    """A module that does not compile is no fault of the image."""
