"""Finds Python interpreters: the version asked for, or a clear error, never another one."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from tempfile import gettempdir

import msgspec
from uv import find_uv_bin

from treadle.model.errors import BuildFailed
from treadle.runtime.commands import build_environment


class Python(msgspec.Struct, frozen=True):
    version: str  # in full, e.g. "3.11.7"
    path: str

    @property
    def minor(self) -> str:
        return ".".join(self.version.split(".")[:2])


class _Listed(msgspec.Struct):
    version: str
    path: str
    implementation: str = "cpython"


def running_python() -> Python:
    """The interpreter that runs us, outside of any virtual environment."""
    base = getattr(sys, "_base_executable", sys.executable) or sys.executable
    return Python(platform.python_version(), base)


def find_python(wanted: str) -> Python:
    """The interpreter for "python3", "python3.N", "3.N" or a full version.

    Raises:
        BuildFailed: it is not on this machine; names those that are.
    """
    version = wanted.removeprefix("python")
    running = running_python()
    if version == "3" or _matches(running.version, version):
        return running
    found = _installed()
    for python in found:
        if _matches(python.version, version):
            return python
    names = sorted({python.version for python in [*found, running]}, key=_parts)
    raise BuildFailed(
        f"Python {version} is not on this machine; there is: {', '.join(names)}.",
        f"Install it (for example `uv python install {version}`) or ask for one of these.",
    )


def _matches(version: str, wanted: str) -> bool:
    return version == wanted or version.startswith(wanted + ".")


def _parts(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def _installed() -> list[Python]:
    """Every interpreter that uv finds and that answers, without downloading any."""
    argv = [find_uv_bin(), "python", "list", "--only-installed", "--no-python-downloads", "--offline"]
    argv += ["--output-format", "json"]
    listed = subprocess.run(argv, capture_output=True, env=build_environment(), cwd=gettempdir(), check=False)
    try:
        pythons = msgspec.json.decode(listed.stdout, type=list[_Listed])
    except msgspec.MsgspecError:
        return []
    return [
        Python(python.version, python.path)
        for python in pythons
        if python.implementation == "cpython" and Path(python.path).exists()
    ]
