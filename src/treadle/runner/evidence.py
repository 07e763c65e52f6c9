"""What the memory limit's own counters say about a death."""

from __future__ import annotations

import signal
from pathlib import Path

from treadle.model.wire import Died, RunSpec

KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


class Evidence:
    """Charges each out-of-memory kill that the kernel has counted to one death."""

    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec
        self._charged = self._kills()

    def forget(self) -> None:
        """What was counted until now has killed something else (a process that user code started)."""
        self._charged = self._kills()

    def of(self, status: int) -> Died:
        """The evidence for a child that ended with `status`, with at most one new kill charged to it."""
        kills = 0
        if status in KILLED and self._kills() > self._charged:
            kills = 1
            self._charged += 1
        return Died(status, kills, _number(self._spec.peak_file), self._spec.limit)

    def _kills(self) -> int:
        for line in _read(self._spec.oom_file).splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
        return 0


def _number(file: str) -> int:
    text = _read(file).strip()
    return int(text) if text.isdigit() else 0


def _read(file: str) -> str:
    """The file's text; "" where there is none, or no longer."""
    try:
        return Path(file).read_text() if file else ""
    except OSError:
        return ""
