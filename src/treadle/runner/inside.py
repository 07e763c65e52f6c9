"""What a child takes on inside of its sandbox: the variables that were declared for it, and its image's packages.

The runner's own processes outside have nothing of either. A variable such as PYTHONPATH, or a package with a `.pth`
file, runs code wherever an interpreter starts with it.
"""

# ruff: noqa: PTH110, PTH118, PTH120 - every start waits for this

from __future__ import annotations

import contextlib
import os
import site
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from treadle.model.wire import START, decode_surroundings

# Variables of the interpreter, the loader, the allocator, the locale: who has started already does not obey them.
READ_AT_START = ("PYTHON", "LD_", "DYLD_", "MALLOC_", "GLIBC_", "OPENSSL_", "LC_", "LANG")
BROUGHT = ("msgspec", "websockets", "treadle")  # packages loaded already, of which the image may have its own


def obeyed(env: Mapping[str, str]) -> bool:
    """Whether variables ask nothing of a program's start that the runner's was not."""
    return {name: value for name, value in env.items() if name.startswith(READ_AT_START)} == START


def read(file: int) -> bytes:
    """An open file whole, wherever others that have it open have come to; it is closed then."""
    with os.fdopen(file, "rb") as source:
        source.seek(0)
        return source.read()


class Inside:
    """What there is to take on. `sheet`: an open file with `Surroundings`; `spec`: the container's run.msgpack."""

    def __init__(self, sheet: int, spec: Path, code: str) -> None:
        around = decode_surroundings(read(sheet))
        self.env = around.env
        self._python = around.python
        self._code = code
        self._spec = os.open(spec, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._spec)

    def enter(self, template: int, files: Sequence[int], ways: Sequence[socket.socket]) -> None:
        """Make this child what it would be had the image's interpreter been started with the variables.

        Where that cannot be had from a fork it is started, and this does not return (runner/anew.py).
        """
        if os.path.realpath(sys.executable) != os.path.realpath(self._python):
            raise OSError(f"{self._python} is not the interpreter that the runner was started with")
        elsewhere, packages = self._python != sys.executable, _packages(self._python)
        own = elsewhere and any(os.path.exists(os.path.join(packages, name)) for name in BROUGHT)
        if own or not obeyed(self.env):
            self._begin_anew(template, [*files, *(way.fileno() for way in ways)])
        self.close()
        os.environ.clear()
        os.environ.update(self.env)
        time.tzset()
        if elsewhere:
            _move(self._python, packages)

    def _begin_anew(self, template: int, fds: Sequence[int]) -> None:
        for fd in (self._spec, *fds):
            os.set_inheritable(fd, True)
        with contextlib.suppress(OSError):  # it will be told when the handler is looked for
            os.chdir(self._code)
        numbers = map(str, (self._spec, template, *fds))
        argv = [self._python, "-P", "-m", "treadle.runner.anew", *numbers]
        os.execve(self._python, argv, self.env)  # noqa: S606 -- this very process shall be it


def _packages(python: str) -> str:
    """The folder of an environment's own packages."""
    minor = "python{}.{}".format(*sys.version_info)
    return os.path.join(os.path.dirname(os.path.dirname(python)), "lib", minor, "site-packages")


def _move(python: str, packages: str) -> None:
    """Go over from the runner's environment to another of the same interpreter, as `site` enters one at the start."""
    own = _packages(sys.executable)
    brought = {own, *_added(own)}
    sys.path[:] = [folder for folder in sys.path if folder not in brought]
    sys.executable = python
    sys.prefix = sys.exec_prefix = os.path.dirname(os.path.dirname(python))
    site.PREFIXES[:] = [sys.prefix]
    sys.modules.pop("sysconfig", None)  # it has looked where the packages are
    site.addsitedir(packages)
    site.execsitecustomize()


def _added(packages: str) -> list[str]:
    """What the runner's own environment has added to its path (runtime/layer.py)."""
    return [line for file in Path(packages).glob("*.pth") for line in file.read_text().splitlines()]
