"""Landlock: the kernel holds a process and all it starts to the files that it is allowed, and to signals of its own.

https://docs.kernel.org/userspace-api/landlock.html. Version 3 (Linux 6.2) is the first that also holds back
truncate(2), so less than that keeps no file safe; version 6 (Linux 6.12) has the scopes.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable

from treadle.runner import kernel

NEEDED = 3
SCOPES_SINCE = 6

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_FOLDER, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_ALL = (1 << 15) - 1  # every kind of access to files that version 3 knows
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_LOOK = _EXECUTE | _READ_FILE | _READ_FOLDER
_SCOPES = 0b11  # abstract Unix sockets, and signals


def scopes() -> int:
    """What this kernel can keep to the container besides files; 0 where it is too old."""
    return _SCOPES if kernel.landlock_abi() >= SCOPES_SINCE else 0


def keep_within() -> None:
    """Where the kernel can: no signal to, and no connection to an abstract socket of, a process outside."""
    if scopes():
        _restrict(0, [], [])


def allow(looked_at: Iterable[str], written: Iterable[str]) -> None:
    """Forbid all files but these and what is below them: some may be read and run, the others written too.

    What is not there is passed over.

    Raises:
        OSError: there is no Landlock, or an old one.
    """
    version = kernel.landlock_abi()
    if version < NEEDED:
        raise OSError(f"Landlock has version {version} here, and {NEEDED} is needed (Linux 6.2)")
    _restrict(_ALL, looked_at, written)


def _restrict(files: int, looked_at: Iterable[str], written: Iterable[str]) -> None:
    ruleset = kernel.landlock_ruleset(files, scopes())
    try:
        for paths, access in ((looked_at, _LOOK), (written, _ALL)):
            for path in paths:
                _allow(ruleset, path, access)
        kernel.landlock_restrict(ruleset)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError, NotADirectoryError):
        found = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            folder = stat.S_ISDIR(os.fstat(found).st_mode)
            kernel.landlock_allow(ruleset, found, access if folder else access & _OF_A_FILE)
        finally:
            os.close(found)
