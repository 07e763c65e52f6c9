"""What this machine gives, found out by trying: which mechanism can hold a container's memory, processor and pids."""

from __future__ import annotations

import errno
import tempfile
import time
from pathlib import Path

import msgspec

from treadle.model.errors import InvalidOption
from treadle.runtime import cgroup, scope
from treadle.runtime.cgroup import CONTROLLERS, CPU, MEMORY, PIDS, Group, Share
from treadle.runtime.limits import CGROUP1, CGROUP2, KINDS, WATCHDOG, Limit
from treadle.runtime.watchdog import Watchdog

MOUNTS = Path("/proc/self/mountinfo")
BASE = "treadle"  # the group in which those of the containers are made
_TRIAL = Share(memory=64 * 1024 * 1024)


class Base(msgspec.Struct, frozen=True):
    """A group in which containers get theirs, and what can be held there."""

    version: int
    path: Path
    controllers: tuple[str, ...]


class Limits(msgspec.Struct, frozen=True):
    """The mechanisms chosen for this machine. `kind` is that of memory."""

    kind: str
    bases: tuple[Base, ...] = ()

    def by(self, controller: str) -> str:
        """What holds memory, cpu or pids here; "" where nothing does."""
        for base in self.bases:
            if controller in base.controllers:
                return CGROUP2 if base.version == 2 else CGROUP1
        return {MEMORY: WATCHDOG, PIDS: WATCHDOG if self.kind == WATCHDOG else "", CPU: ""}[controller]

    def make(self, container_id: str, folder: Path, share: Share) -> Limit:
        """The limits of a new container, in force."""
        groups: list[Group] = []
        memory = None
        try:
            for base in self.bases:
                group = Group(base.version, base.path / container_id)
                group.create(base.controllers, share)
                groups.append(group)
                memory = group if MEMORY in base.controllers else memory
        except OSError:
            for group in groups:
                group.remove()
            raise
        watchdog = None if memory else Watchdog(folder, share.memory)
        return Limit(self.kind, share.memory, groups, memory, watchdog)


def probe(choice: str = "auto", mounts: Path = MOUNTS) -> Limits:
    """The best mechanisms that work here; `choice` demands one for memory.

    May move this process into a systemd scope of its own, or into a group below its own: that is what makes version 2
    usable without being root.

    Raises:
        InvalidOption: the one demanded does not exist, or does not work on this machine.
    """
    if choice not in ("auto", *KINDS):
        raise InvalidOption(f"limits={choice!r} is not allowed.", f"Allowed: auto, {', '.join(KINDS)}.")
    bases = _all_bases(choice, mounts)
    if choice in ("auto", CGROUP2) and not any(MEMORY in base.controllers for base in bases) and scope.enter(mounts):
        bases = _all_bases(choice, mounts)
    kind = next((_kind(base) for base in bases if MEMORY in base.controllers), WATCHDOG)
    if choice not in ("auto", kind):
        raise InvalidOption(
            f"limits={choice!r} does not work on this machine: no memory group can be made.",
            "Set TREADLE_LIMITS=auto, or run the agent as root.",
        )
    return Limits(kind, tuple(bases))


def _kind(base: Base) -> str:
    return CGROUP2 if base.version == 2 else CGROUP1


def _all_bases(choice: str, mounts: Path) -> list[Base]:
    """For each controller the first place where it works, version 2 before version 1."""
    wanted = [name for name in CONTROLLERS if name != MEMORY or choice != WATCHDOG]
    found: list[Base] = []
    for version, kind in ((2, CGROUP2), (1, CGROUP1)):
        for root, offered in _roots(version, mounts):
            mine = [name for name in wanted if name in offered and (name != MEMORY or choice in ("auto", kind))]
            works = tuple(_working(version, root, mine))
            if works:
                found.append(Base(version, root / BASE, works))
                wanted = [name for name in wanted if name not in works]
    return found


def _roots(version: int, mounts: Path) -> list[tuple[Path, tuple[str, ...]]]:
    """Where groups may be made, with what is offered there: at the top of a hierarchy, else below our own group."""
    found: list[tuple[Path, tuple[str, ...]]] = []
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        left, _, right = line.partition(" - ")
        filesystem, _, options = right.split(" ", 2)
        if filesystem != ("cgroup2" if version == 2 else "cgroup"):
            continue
        top = Path(left.split()[4])
        offered = _offered(top) if version == 2 else tuple(set(options.split(",")) & set(CONTROLLERS))
        if offered:
            found += [(root, offered) for root in (top, *_own(version, top, offered))]
    return found


def _offered(group: Path) -> tuple[str, ...]:
    try:
        return tuple((group / "cgroup.controllers").read_text().split())
    except OSError:
        return ()


def _own(version: int, top: Path, offered: tuple[str, ...]) -> list[Path]:
    """The group that this process is in, or was in before it stepped aside for its containers."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        ours = controllers == "" if version == 2 else bool(set(controllers.split(",")) & set(offered))
        group = top / path[1:]
        if ours and path != "/" and group.is_dir():
            return [group.parent if group.name == scope.LEAF else group]
    return []


def _working(version: int, root: Path, controllers: list[str]) -> list[str]:
    """Those of the controllers with which a group can really be made in `treadle` below this root."""
    return [name for name in controllers if _works(version, root, name)]


def _works(version: int, root: Path, controller: str) -> bool:
    base = root / BASE
    try:
        if version == 2:
            _allow_below(root, controller)
        base.mkdir(exist_ok=True)
        if version == 2:
            cgroup.allow(base, (controller,))
        cgroup.clear_stale(base, time.time())
        return _try(Group(version, Path(tempfile.mkdtemp(prefix="probe-", dir=base))), controller)
    except OSError:
        return False


def _allow_below(root: Path, controller: str) -> None:
    try:
        cgroup.allow(root, (controller,))
    except OSError as error:
        if error.errno != errno.EBUSY or not cgroup.step_aside(root, scope.LEAF):
            raise
        try:
            cgroup.allow(root, (controller,))
        except OSError:  # there are other processes in it
            cgroup.step_back(root, scope.LEAF)
            raise


def _try(trial: Group, controller: str) -> bool:
    try:
        trial.create((controller,), _TRIAL)
        return controller != MEMORY or trial.counts_kills()
    finally:
        trial.remove()
