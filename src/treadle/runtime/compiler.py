"""Run by an image's own interpreter: compiles the modules below a folder (`compiler.py FOLDER now|slowly`)."""

from __future__ import annotations

import compileall
import contextlib
import os
import sys
from pathlib import Path


def compile_now(folder: Path) -> None:
    """With all processors."""
    compileall.compile_dir(folder, quiet=2, workers=0)


def compile_slowly(folder: Path) -> None:
    """With what nobody else wants of one processor. Folders are sealed: each is opened for as long as it takes."""
    os.nice(19)
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    for path, _, files in os.walk(folder):
        if any(name.endswith(".py") for name in files):
            _compile_opened(Path(path))


def _compile_opened(folder: Path) -> None:
    cache, mode = folder / "__pycache__", folder.stat().st_mode & 0o7777
    folder.chmod(mode | 0o200)
    try:
        if cache.exists():
            cache.chmod(mode | 0o200)
        compileall.compile_dir(folder, maxlevels=0, quiet=2)
        with contextlib.suppress(FileNotFoundError):  # nothing here compiles
            for path in cache.iterdir():
                path.chmod(0o444)
            cache.chmod(mode)
    finally:
        folder.chmod(mode)


if __name__ == "__main__":
    (compile_slowly if sys.argv[2] == "slowly" else compile_now)(Path(sys.argv[1]))
