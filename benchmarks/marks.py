"""What handlers write down in a file in memory: when their first line ran, and in which process."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import NamedTuple

FORM = struct.Struct("dq")


class MeasureFailed(Exception):
    """A figure could not be taken; the message says why, and the run goes on with the next measure."""


class Mark(NamedTuple):
    """The first line of one attempt."""

    at: float  # Unix seconds
    pid: int


class Marks:
    """The file of marks, read from where it was read last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        path.touch()

    def new(self) -> list[Mark]:
        """The marks since the last call."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: len(data) // FORM.size * FORM.size]
        self._read += len(whole)
        return [Mark(*fields) for fields in FORM.iter_unpack(whole)]

    def wait(self, count: int = 1, seconds: float = 30.0) -> list[Mark]:
        """The next `count` marks. Looks every 2 ms, which is nothing beside what is waited for here."""
        deadline = time.monotonic() + seconds
        found = self.new()
        while len(found) < count:
            if time.monotonic() > deadline:
                raise MeasureFailed(f"{len(found)} of {count} tasks had begun after {seconds:g} s")
            time.sleep(0.002)
            found += self.new()
        return found
