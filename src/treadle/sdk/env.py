"""Tells user code where it runs, so that imports needed only in the container can be guarded."""

from __future__ import annotations

import os
from pathlib import Path


def is_remote() -> bool:
    """Whether this process runs in a container."""
    return bool(os.environ.get("CONTAINER_ID"))


def is_local() -> bool:
    """Whether this process runs outside of containers."""
    return not is_remote()


def source_folder() -> Path:
    """Where the user's source begins: the working directory, or in a container what it was when that started."""
    return Path(os.environ.get("TREADLE_CODE") or Path.cwd())


def called_on_import() -> bool:
    """Whether Treadle is importing the user's module right now (to deploy it, or to run its tasks)."""
    return os.environ.get("TREADLE_IMPORTING_USER_CODE") == "true"
