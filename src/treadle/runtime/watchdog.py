"""The memory limit where no cgroup can be made: measure often, kill the largest process over the limit."""

from __future__ import annotations

import contextlib
from pathlib import Path

from treadle.runtime import processes

CALM = 0.05  # seconds between measurements
TENSE = 0.01  # above 70 % of the limit


class Watchdog:
    """Holds the children of one runner. Its evidence are two files in the forms the kernel's have."""

    kind = "watchdog"

    def __init__(self, folder: Path, limit: int) -> None:
        self.limit = limit
        self.procs_files: list[str] = []
        self._oom = folder / "oom"
        self._peak = folder / "peak"
        self.oom_file, self.peak_file = str(self._oom), str(self._peak)
        self._kills = _counted(self._oom)
        self._highest = 0
        self._dying = 0
        if not self._oom.exists():
            self._write(0)

    def pids(self) -> list[int]:
        return []

    def close(self) -> bool:
        return True

    def tick(self, runner: int) -> float:
        """Measure once, kill if over the limit; returns the seconds until the next time."""
        pids = processes.descendants(runner)
        used = sum(map(processes.resident, pids))
        if used <= self.limit:
            return TENSE if used > 0.7 * self.limit else CALM
        sizes = {pid: processes.proportional(pid) for pid in pids}  # forked memory was counted many times
        used = sum(sizes.values())
        if used > self.limit and not self._is_dying():
            self._kill_one(runner, sizes, used)
        return TENSE

    def _is_dying(self) -> bool:
        """Whether the last process killed is still on its way out: its memory counts until then."""
        return self._dying != 0 and processes.identity(self._dying) is not None

    def _kill_one(self, runner: int, sizes: dict[int, int], used: int) -> None:
        """Kill the largest; the runner's own child (the template, from which the others come) only if alone."""
        template = set(processes.descendants(runner)[:1])
        victims = {pid: size for pid, size in sizes.items() if pid not in template} or sizes
        self._dying = max(victims, key=victims.__getitem__)
        self._kills += 1
        self._highest = max(self._highest, used)
        self._write(self._kills)  # first the evidence: the runner reads it when it sees the death
        processes.kill([self._dying])

    def _write(self, kills: int) -> None:
        for path, text in ((self._peak, f"{self._highest}\n"), (self._oom, f"oom_kill {kills}\n")):
            draft = path.with_name(path.name + ".new")
            draft.write_text(text)
            draft.replace(path)


def _counted(path: Path) -> int:
    """Kills counted so far, by the agent before this one."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(path.read_text().split()[1])
    return 0
