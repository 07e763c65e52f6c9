"""The memory limit where no cgroup can be made: look often, kill the largest process when there is too much."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from treadle.runtime import files, memory, processes
from treadle.runtime.cgroup import MAX_PIDS

FASTEST = 2 * 1024**3  # bytes a second that a process may fill: two to three times what one fills here
CALM = 0.05  # seconds between looks, at most
STEADY = 0.01  # at least, while it does not grow
GROWING = 0.001  # at least, while it does
COST = 20  # times what measuring shared memory takes that must pass before it is measured again


class Watchdog:
    """Holds the children of one runner. Its evidence are two files in the forms the kernel's have.

    It looks again before what is left can have been filled, and so more often the less there is left. The sum of what
    processes have resident counts shared pages several times; it costs little, and is corrected by the exact figure,
    which costs much, whenever it is too high.
    """

    def __init__(self, folder: Path, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._oom = folder / "oom"
        self._peak = folder / "peak"
        self.oom_file, self.peak_file = str(self._oom), str(self._peak)
        self._kills = _counted(self._oom)
        self._files = memory.SharedFiles()
        self._highest = 0
        self._dying = 0
        self._twice = 0  # bytes that the sum counts more than once
        self._exact_at = 0.0  # when the exact figure may be asked for again
        self._last = 0
        if not self._oom.exists():
            self._write(0)

    def tick(self, runner: int) -> float:
        """Look once, kill if there is too much; returns the seconds until the next time."""
        if self._is_dying():  # asked before measuring: what it gives back meanwhile must not be missed
            return GROWING
        now = self._clock()
        pids = processes.descendants(runner)
        if len(pids) > MAX_PIDS:
            processes.kill(pids[1:])
            return GROWING
        files = self._files.used(pids, now)
        resident = {pid: memory.resident(pid) for pid in pids}
        total = sum(resident.values()) + files
        used = total - self._twice
        if max(resident.values(), default=0) > self.limit:  # one alone: no need to know it better
            self._kill_one(pids, resident, used)
        elif used > self.limit or (total > self.limit and now >= self._exact_at):
            sizes = {pid: memory.proportional(pid) for pid in pids}
            used = sum(size.own for size in sizes.values()) + max(files, sum(size.shared for size in sizes.values()))
            self._twice = total - used
            self._exact_at = now + COST * (self._clock() - now)
            if used > self.limit:
                self._kill_one(pids, {pid: sum(size) for pid, size in sizes.items()}, used)
        return self._wait(used)

    def _wait(self, used: int) -> float:
        """Seconds until the limit can have been reached."""
        least = GROWING if used > self._last else STEADY
        self._last = used
        return min(max((self.limit - used) / FASTEST, least), CALM)

    def _is_dying(self) -> bool:
        """Whether the last process killed is still on its way out: its memory counts until then."""
        return self._dying != 0 and processes.identity(self._dying) is not None

    def _kill_one(self, pids: list[int], sizes: dict[int, int], used: int) -> None:
        """Kill the largest; the runner's own child (the template, from which the others come) only if alone."""
        victims = {pid: size for pid, size in sizes.items() if pid not in pids[:1]} or sizes
        self._dying = max(victims, key=victims.__getitem__)
        self._kills += 1
        self._highest = max(self._highest, used)
        self._write(self._kills)  # first the evidence: the runner reads it when it sees the death
        processes.kill([self._dying])

    def _write(self, kills: int) -> None:
        for path, text in ((self._peak, f"{self._highest}\n"), (self._oom, f"oom_kill {kills}\n")):
            files.write_private(path, text.encode())


def _counted(path: Path) -> int:
    """Kills counted so far, by the agent before this one."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(files.read(path).split()[1])
    return 0
