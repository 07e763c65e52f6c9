"""What the memory limit's own counters say about a death."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from treadle.model.deployment import more_memory
from treadle.model.wire import Died, Finished, RunSpec

KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
QUICK = 0.01  # seconds in which no program is started, filled with memory and killed


class Evidence:
    """Charges each out-of-memory kill that was counted, once, to the task that it has ended or hit.

    The counter does not say who was killed. A child that ended by SIGKILL is taken for it first. A kill without such
    a death hit a process that a task had started: it is charged to the task that ends next if that was `alone`, the
    only one at work, and to none if it was not.
    """

    def __init__(self, spec: RunSpec, say: Callable[[str], None]) -> None:
        self._spec = spec
        self._say = say
        self._charged = self._kills()

    def of_death(self, status: int, *, alone: bool) -> Died:
        """The evidence for a child that ended with `status`."""
        kills = 0
        if status in KILLED:
            kills = min(self._kills() - self._charged, 1)
            self._charged += kills
        if alone:
            others = self._charge()
            kills = kills or (others if status >= 0 else 0)
        return self._died(status, kills)

    def of_end(self, finished: Finished, *, alone: bool) -> Finished:
        """The report of a task that has ended without its process, with what is known of those that it had started.

        A task that returns a result has coped: only the container's log tells of it.
        """
        if not alone or (finished.raised is None and finished.ran < QUICK):
            return finished
        kills = self._charge()
        if not kills:
            return finished
        if finished.raised is None:
            self._say("out of memory: a process that a task had started was killed")
            return finished
        return replace(finished, raised=replace(finished.raised, oom=self._died(0, kills)))

    def forget(self) -> None:
        """What was counted until now belongs to no task."""
        self._charge()

    def _charge(self) -> int:
        """How many were counted that nobody was charged with; now somebody is."""
        kills = self._kills()
        new, self._charged = kills - self._charged, kills
        return new

    def _died(self, status: int, kills: int) -> Died:
        return Died(status, kills, _number(self._spec.peak_file), self._spec.limit)

    def _kills(self) -> int:
        for line in _read(self._spec.oom_file).splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
        return 0


def how(died: Died) -> str:
    """What ended a process, in words."""
    if died.oom_kills:
        advice = more_memory(died.peak, died.limit)
        return f"out of memory at {died.limit // 2**20} MiB; give it more, e.g. {advice}"
    return f"killed by signal {-died.status}" if died.status < 0 else f"exit code {died.status}"


def _number(file: str) -> int:
    text = _read(file).strip()
    return int(text) if text.isdigit() else 0


def _read(file: str) -> str:
    """The file's text; "" where there is none, or no longer."""
    try:
        return Path(file).read_text() if file else ""
    except OSError:
        return ""
