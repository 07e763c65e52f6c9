"""File locks, one for each thing that is made once per machine: threads and processes wait for each other."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from threading import Event

from treadle.runtime.commands import Emit, stopped

_RETRY = 0.05  # seconds; a blocking wait could not be given up


class Locks:
    """Locks on files in one folder. A lock lasts as long as its file is open anywhere, commands included."""

    def __init__(self, folder: Path, given_up: Event) -> None:
        self._folder = folder
        self._given_up = given_up
        folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def hold(self, name: str, busy: str, emit: Emit) -> Iterator[int]:
        """Wait for a lock; says `busy` once if another has it. Yields its file, which commands keep open with us.

        Raises:
            BuildFailed: the agent is stopping.
        """
        with (self._folder / name).open("w") as file:
            if not _taken(file.fileno()):
                emit(busy)
                while not _taken(file.fileno()):
                    if self._given_up.wait(_RETRY):
                        raise stopped()
            yield file.fileno()

    @contextlib.contextmanager
    def try_hold(self, name: str) -> Iterator[bool]:
        """Whether the lock was free; if so, it is held inside."""
        with (self._folder / name).open("w") as file:
            yield _taken(file.fileno())


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
