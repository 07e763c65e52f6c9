"""One cgroup: a folder of the kernel's in which a container's processes are counted, held and killed.

File names and formats: Documentation/admin-guide/cgroup-v2.rst, and cgroup-v1/{memory,pids}.rst and
scheduler/sched-bwc.rst for version 1, of the Linux kernel.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from treadle.runtime import processes

MEMORY, CPU, PIDS = "memory", "cpu", "pids"
CONTROLLERS = (MEMORY, CPU, PIDS)
MAX_PIDS = 1024  # processes and threads of one container
PERIOD = 100_000  # microseconds, over which the processor time of a container is bounded
STALE_SECONDS = 600.0  # an empty group of that age has been left behind by an agent that was killed


class Share(msgspec.Struct, frozen=True):
    """What a container may use. `memory` in bytes, `cpu` in millicores."""

    memory: int
    cpu: int = 1000


class Setting(msgspec.Struct, frozen=True):
    """A file of a group and what is written into it; what is `optional` is not in every kernel."""

    file: str
    value: str
    optional: bool = False


def settings(version: int, controller: str, share: Share) -> list[Setting]:
    """What makes a controller of a cgroup version hold a share.

    Swap is off: a limit that spills to disk is none. The kernel picks one process when memory runs out
    (`memory.oom.group` 0), so that the other children of a runner go on. The processor is both a weight, for when it
    is contended, and a quota, so that a container gets what it asked for and no more.
    """
    quota = max(share.cpu * PERIOD // 1000, 1000)
    match version, controller:
        case 2, "memory":
            return [
                Setting("memory.max", str(share.memory)),
                Setting("memory.swap.max", "0", optional=True),
                Setting("memory.oom.group", "0", optional=True),
            ]
        case 1, "memory":
            return [
                Setting("memory.limit_in_bytes", str(share.memory)),
                Setting("memory.memsw.limit_in_bytes", str(share.memory), optional=True),
                Setting("memory.swappiness", "0", optional=True),
            ]
        case 2, "cpu":
            return [
                Setting("cpu.weight", str(min(max(share.cpu // 10, 1), 10_000))),  # 1 core: 100, the kernel's default
                Setting("cpu.max", f"{quota} {PERIOD}", optional=True),
            ]
        case 1, "cpu":
            return [
                Setting("cpu.shares", str(max(share.cpu * 1024 // 1000, 2))),
                Setting("cpu.cfs_period_us", str(PERIOD), optional=True),
                Setting("cpu.cfs_quota_us", str(quota), optional=True),
            ]
    return [Setting("pids.max", str(MAX_PIDS))]


class Group:
    """A cgroup of version 1 or 2 for one container."""

    def __init__(self, version: int, path: Path) -> None:
        self.path = path
        # A process of one thread that writes "0" into version 1's `tasks` need not wait for every other processor, as
        # it must with cgroup.procs (0.3 ms instead of 5 to 20 ms here). Version 2 has no such file.
        self.procs_file = str(path / ("cgroup.procs" if version == 2 else "tasks"))
        oom, peak = ("memory.events", "memory.peak") if version == 2 else (
            "memory.oom_control", "memory.max_usage_in_bytes")
        self.oom_file = str(path / oom)
        self.peak_file = str(path / peak)
        self._version = version

    @classmethod
    def of(cls, procs_file: str) -> Group:
        """The group that a container entered by this file."""
        path = Path(procs_file)
        return cls(2 if path.name == "cgroup.procs" else 1, path.parent)

    def is_named(self, name: str) -> bool:
        """Whether it is a group with this name: gone, or in a hierarchy of the kernel's and no imitation of one."""
        if self.path.name != name or self.path.resolve() != self.path:
            return False
        return not self.path.exists() or self.path.stat().st_dev in _devices()

    def create(self, controllers: tuple[str, ...], share: Share) -> None:
        """Make the group, in force.

        Raises:
            OSError: this is not allowed, or a controller is not there; nothing is left behind.
        """
        self.path.mkdir(exist_ok=True)
        try:
            for controller in controllers:
                for setting in settings(self._version, controller, share):
                    file = self.path / setting.file
                    if file.exists() or not setting.optional:
                        file.write_text(setting.value)
        except OSError:
            self.remove()
            raise
        if not Path(self.peak_file).exists():  # memory.peak came with Linux 5.19
            self.peak_file = ""

    def counts_kills(self) -> bool:
        """Whether this kernel tells of its kills here; without that there is no evidence."""
        return any(line.startswith("oom_kill ") for line in Path(self.oom_file).read_text().splitlines())

    def pids(self) -> list[int]:
        try:
            return [int(line) for line in (self.path / "cgroup.procs").read_text().split()]
        except OSError:
            return []

    def kill(self) -> None:
        """Kill every process in it; none can be added meanwhile, however fast they fork (where pids are held)."""
        for file, value in (("pids.max", "0"), ("cgroup.kill", "1")):  # cgroup.kill: version 2, Linux 5.14
            if (self.path / file).exists():
                with contextlib.suppress(OSError):
                    (self.path / file).write_text(value)
        processes.kill(self.pids())

    def remove(self) -> bool:
        """Take it away; False while processes are still in it."""
        try:
            self.path.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


def _devices() -> set[int]:
    """Numbers of the file systems that are hierarchies of groups: proc_pid_mountinfo(5), fields 3 and 9."""
    found = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.split()[0] in ("cgroup", "cgroup2"):
            major, minor = left.split()[2].split(":")
            found.add(os.makedev(int(major), int(minor)))
    return found


def clear_stale(base: Path, now: float) -> None:
    """Remove the empty groups that agents left here which were killed together with their containers.

    `now` is Unix time. A group that a container is just about to enter is younger than that.
    """
    for path in base.iterdir():
        with contextlib.suppress(OSError):
            if path.is_dir() and path.stat().st_mtime < now - STALE_SECONDS:
                path.rmdir()  # refused by the kernel while a process is in it


def allow(group: Path, controllers: tuple[str, ...]) -> None:
    """Let the groups below a version 2 group have these controllers.

    Raises:
        OSError: one is not there, or the group may not be changed, or it holds processes (EBUSY).
    """
    there = (group / "cgroup.controllers").read_text().split()
    if missing := set(controllers) - set(there):
        raise OSError(f"{group} has no controller {', '.join(sorted(missing))}")
    control = group / "cgroup.subtree_control"
    if wanted := set(controllers) - set(control.read_text().split()):
        control.write_text(" ".join(f"+{controller}" for controller in sorted(wanted)))


def step_aside(group: Path, leaf: str) -> bool:
    """Move this process from a version 2 group into one below it.

    A group that gives controllers to those below it may have no processes of its own. False when this process is not
    in there, or may not be moved.
    """
    if os.getpid() not in Group(2, group).pids():
        return False
    try:
        (group / leaf).mkdir(exist_ok=True)
        (group / leaf / "cgroup.procs").write_text("0")
    except OSError:
        return False
    return True


def step_back(group: Path, leaf: str) -> None:
    """Undo `step_aside`."""
    with contextlib.suppress(OSError):
        (group / "cgroup.procs").write_text("0")
        (group / leaf).rmdir()
