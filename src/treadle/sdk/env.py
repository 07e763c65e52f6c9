"""Tells user code where it runs, so that imports needed only in the container can be guarded."""

from __future__ import annotations

import os


def is_remote() -> bool:
    """Whether this process runs in a container."""
    return bool(os.environ.get("CONTAINER_ID"))


def is_local() -> bool:
    """Whether this process runs outside of containers."""
    return not is_remote()


def called_on_import() -> bool:
    """Whether Treadle is importing the user's module right now (to deploy it, or to run its tasks)."""
    return os.environ.get("TREADLE_IMPORTING_USER_CODE") == "true"
