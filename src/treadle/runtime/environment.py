"""One environment: made in its place, step by step as its image says, and sealed when it is whole."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from treadle.model.deployment import Image, ImageSpec
from treadle.model.errors import BuildFailed, sentence
from treadle.runtime import layer, packages
from treadle.runtime.bytecode import Bytecode
from treadle.runtime.commands import Shell
from treadle.runtime.python import Python, find_python
from treadle.runtime.seal import remove, seal

READY = "image.msgpack"  # written last: an environment without it is a leftover. Its time is that of the last use
_PIP = re.compile(r"\bpip3?\b")
_TOLD = 5  # last lines of a command that failed


def python_of(environment: Path) -> Path:
    return environment / "bin" / "python"


def is_ready(environment: Path) -> bool:
    """Built to the end, and its interpreter (a link to the machine's) is still there."""
    return (environment / READY).exists() and python_of(environment).exists()


def steps(spec: ImageSpec) -> Iterator[tuple[str, int]]:
    """Commands in their order, each with how many packages are to be installed right before it, 0 for no more."""
    total, done = len(spec.python_packages), 0
    for command, needed in zip(spec.commands, spec.installed or [total] * len(spec.commands), strict=True):
        yield command, needed if needed > done else 0
        done = needed
    if done < total:
        yield "", total


class Maker:
    """Makes one environment.

    It is made where it will be, not elsewhere and renamed: scripts in an environment, and whatever commands build,
    name its path. The READY file makes it count.
    """

    def __init__(self, shell: Shell, bytecode: Bytecode) -> None:
        self._shell = shell
        self._bytecode = bytecode

    def make(self, environment: Path, image: Image) -> None:
        """Make an image's environment; what fails on the way leaves half of it.

        Raises:
            BuildFailed: names the package or command at fault.
        """
        python = find_python(image.python)
        self._make_empty(environment, python, pip=any(map(_PIP.search, image.spec.commands)))
        interpreter = _interpreter(environment)
        for command, count in steps(image.spec):
            if count:
                self._install(environment, image, python, count)
            if command:
                self._run(command, environment)
        if _interpreter(environment) != interpreter:
            what = "A package or a command has replaced the interpreter of the image's environment."
            raise BuildFailed(what, "Leave its bin/python and pyvenv.cfg as they are.")
        remove(layer.runner_home(environment))  # in the place of which a package may have files of its own
        self._bytecode.compile(environment, self._shell)
        draft = environment / (READY + ".new")
        draft.write_bytes(msgspec.msgpack.encode(image))
        seal(environment / "lib")
        draft.replace(environment / READY)
        seal(environment)

    def _make_empty(self, environment: Path, python: Python, *, pip: bool) -> None:
        seed = ["--seed"] if pip else ["--offline"]
        argv = ["venv", "--quiet", "--no-project", *seed, "--python", python.path, str(environment)]
        packages.uv_or_fail(self._shell, argv, "its environment could not be made", environment.parent)

    def _install(self, environment: Path, image: Image, python: Python, count: int) -> None:
        """Install the first `count` packages of an image and what they need."""
        wanted, lock = image.spec.python_packages[:count], image.lock
        if count < len(image.spec.python_packages):
            lock = packages.lock_first(self._shell, lock, wanted, python)
        self._shell.emit(f"Installing packages: {', '.join(wanted)}")
        packages.install(self._shell, environment, lock, wanted)

    def _run(self, command: str, environment: Path) -> None:
        self._shell.emit(f"Running {command}")
        path = f"{environment / 'bin'}:{os.environ.get('PATH', os.defpath)}"
        with TemporaryDirectory(prefix="treadle-build-") as folder:
            code, lines = self._shell.run(
                ["sh", "-c", command], Path(folder), env={"VIRTUAL_ENV": str(environment), "PATH": path}
            )
        if code != 0:
            raise command_failed(command, code, lines)


def _interpreter(environment: Path) -> tuple[str, bytes]:
    """What an environment's Python is: the program, and where its library is (PEP 405)."""
    return os.path.realpath(python_of(environment)), (environment / "pyvenv.cfg").read_bytes()


def command_failed(command: str, code: int, lines: list[str]) -> BuildFailed:
    """The error of a build's command: which one, its exit code, and what it said at the end."""
    last = " / ".join(line.strip() for line in lines[-_TOLD:]) or "it printed nothing"
    ending = f"ended with exit code {code}" if code >= 0 else f"was killed by signal {-code}"
    return BuildFailed(f"The command {command!r} {ending}: {sentence(last)}", "Try it in a shell, then build again.")
