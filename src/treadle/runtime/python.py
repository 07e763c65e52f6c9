"""Finds Python interpreters: the version asked for, or a clear error, never another one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from tempfile import gettempdir

import msgspec
from uv import find_uv_bin

from treadle.model.errors import BuildFailed
from treadle.runtime.commands import build_environment

OLDEST = [3, 11]


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
        BuildFailed: it is not on this machine (names those that are), or too old for the runner.
    """
    version = wanted.removeprefix("python")
    running = running_python()
    if [3, 0] <= _parts(version) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise BuildFailed(
            f"Python {version} is too old: Treadle's runner is in every image and needs Python {oldest} or newer.",
            f'Ask for "python{oldest}" or newer; "python3" is {running.version} here.',
        )
    if version == "3" or _matches(running.version, version):
        return running
    found = installed()
    for python in found:
        if _matches(python.version, version):
            return python
    names = sorted({p.version for p in [*found, running] if _parts(p.version) >= OLDEST}, key=_parts)
    raise BuildFailed(
        f"Python {version} is not on this machine; there is: {', '.join(names)}.",
        f"Install it (for example `uv python install {version}`) or ask for one of these.",
    )


def _matches(version: str, wanted: str) -> bool:
    return version == wanted or version.startswith(wanted + ".")


def _parts(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def _with_pyenv(env: dict[str, str]) -> dict[str, str]:
    """The environment with pyenv's versions on PATH in place of its shims, of which only the chosen versions' run."""
    root = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    folders = [folder for folder in env.get("PATH", os.defpath).split(os.pathsep) if Path(folder) != root / "shims"]
    folders += map(str, sorted(root.glob("versions/*/bin")))
    return env | {"PATH": os.pathsep.join(folders)}


def installed() -> list[Python]:
    """Every interpreter that uv finds (its own, on PATH, pyenv's) and that answers, without downloading any."""
    argv = [find_uv_bin(), "python", "list", "--only-installed", "--no-python-downloads", "--offline"]
    argv += ["--output-format", "json"]
    env, elsewhere = _with_pyenv(build_environment()), gettempdir()  # where no project asks for a version
    listed = subprocess.run(argv, capture_output=True, env=env, cwd=elsewhere, check=False)
    try:
        pythons = msgspec.json.decode(listed.stdout, type=list[_Listed])
    except msgspec.MsgspecError:
        return []
    found = [Python(p.version, str(Path(elsewhere, p.path))) for p in pythons if p.implementation == "cpython"]
    return [python for python in found if Path(python.path).exists()]
