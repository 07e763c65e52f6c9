"""What holds a container's memory: a cgroup of version 2 or 1, or the watchdog, all with one face."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from treadle.runtime.watchdog import Watchdog

CGROUP2 = "cgroup2"
CGROUP1 = "cgroup1"
WATCHDOG = "watchdog"
KINDS = (CGROUP2, CGROUP1, WATCHDOG)


class Limit(Protocol):
    """The limit of one container. The three files and `limit` go into its RunSpec."""

    kind: str
    procs_files: list[str]
    oom_file: str
    peak_file: str
    limit: int  # bytes

    def pids(self) -> list[int]:
        """Processes held by it, as far as it knows them."""
        ...

    def close(self) -> bool:
        """Clear it away; False while processes are still in it."""
        ...


class Cgroup:
    """A memory cgroup. The kernel kills inside it, and counts the kills."""

    def __init__(self, kind: str, path: Path, limit: int) -> None:
        self.kind = kind
        self.limit = limit
        self._path = path
        oom, peak = ("memory.events", "memory.peak") if kind == CGROUP2 else (
            "memory.oom_control", "memory.max_usage_in_bytes")
        # A process of one thread that writes "0" into version 1's `tasks` need not wait for every other processor, as
        # it must with cgroup.procs (0.3 ms instead of 5 to 20 ms here). Version 2 has no such file.
        self.procs_files = [str(path / ("cgroup.procs" if kind == CGROUP2 else "tasks"))]
        self.oom_file = str(path / oom)
        self.peak_file = str(path / peak)

    def create(self) -> None:
        """Make the group and set its limit; swap is off, since a limit that spills to disk is none."""
        self._path.mkdir(exist_ok=True)
        try:
            self._set()
        except OSError:
            self.close()
            raise

    def _set(self) -> None:
        if self.kind == CGROUP2:
            (self._path / "memory.max").write_text(str(self.limit))
            optional = {"memory.swap.max": "0", "memory.oom.group": "0"}
        else:
            (self._path / "memory.limit_in_bytes").write_text(str(self.limit))
            optional = {"memory.memsw.limit_in_bytes": str(self.limit), "memory.swappiness": "0"}
        for name, value in optional.items():
            if (self._path / name).exists():  # without swap accounting these are not there
                (self._path / name).write_text(value)
        if not Path(self.peak_file).exists():  # memory.peak came with Linux 5.19
            self.peak_file = ""

    def counts_kills(self) -> bool:
        """Whether this kernel tells of its kills here; without that there is no evidence."""
        return any(line.startswith("oom_kill ") for line in Path(self.oom_file).read_text().splitlines())

    def pids(self) -> list[int]:
        try:
            return [int(line) for line in (self._path / "cgroup.procs").read_text().split()]
        except OSError:
            return []

    def close(self) -> bool:
        try:
            self._path.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


def reopen(kind: str, folder: Path, procs_files: list[str], limit: int) -> Limit:
    """The limit of a container started by an earlier agent, from what its folder says."""
    if kind == WATCHDOG or not procs_files:
        return Watchdog(folder, limit)
    return Cgroup(kind, Path(procs_files[0]).parent, limit)
