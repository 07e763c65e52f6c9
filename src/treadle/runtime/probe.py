"""What this machine gives, found out by trying: which mechanism can hold a container's memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec

from treadle.model.errors import InvalidOption
from treadle.runtime.limits import CGROUP1, CGROUP2, KINDS, WATCHDOG, Cgroup, Limit
from treadle.runtime.watchdog import Watchdog

_PROBE_BYTES = 64 * 1024 * 1024


class Limits(msgspec.Struct, frozen=True):
    """The mechanism chosen for this machine. `base` is the cgroup in which containers get theirs."""

    kind: str
    base: Path | None = None

    def make(self, container_id: str, folder: Path, limit: int) -> Limit:
        """The limit of a new container, in force."""
        if self.base is None:
            return Watchdog(folder, limit)
        group = Cgroup(self.kind, self.base / container_id, limit)
        group.create()
        return group


def probe(choice: str = "auto", mounts: Path = Path("/proc/self/mountinfo")) -> Limits:
    """The best mechanism that works here, or the one asked for.

    Raises:
        InvalidOption: the one asked for does not exist, or does not work on this machine.
    """
    if choice not in ("auto", *KINDS):
        raise InvalidOption(f"limits={choice!r} is not allowed.", f"Allowed: auto, {', '.join(KINDS)}.")
    for kind in (CGROUP2, CGROUP1) if choice == "auto" else (choice,):
        for root in [] if kind == WATCHDOG else _roots(kind, mounts):
            base = _open_base(kind, root)
            if base is not None:
                return Limits(kind, base)
    if choice not in ("auto", WATCHDOG):
        raise InvalidOption(
            f"limits={choice!r} does not work on this machine: no memory group can be made.",
            "Set TREADLE_LIMITS=auto, or run the agent as root.",
        )
    return Limits(WATCHDOG)


def _roots(kind: str, mounts: Path) -> list[Path]:
    """Where groups may be made: at the top of the hierarchy, else below the agent's own group."""
    found: list[Path] = []
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        left, _, right = line.partition(" - ")
        filesystem, _, options = right.split(" ", 2)
        v1 = filesystem == "cgroup" and "memory" in options.split(",")
        if (kind == CGROUP1 and v1) or (kind == CGROUP2 and filesystem == "cgroup2"):
            top = Path(left.split()[4])
            found += [top, *_own(kind, top)]
    return found


def _own(kind: str, top: Path) -> list[Path]:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        wanted = controllers == "" if kind == CGROUP2 else "memory" in controllers.split(",")
        if wanted and path != "/" and (top / path[1:]).is_dir():
            return [top / path[1:]]
    return []


def _open_base(kind: str, root: Path) -> Path | None:
    """The group `treadle` below `root`, if a group with a limit can really be made in it."""
    base = root / "treadle"
    try:
        if kind == CGROUP2:
            _delegate(root)
        base.mkdir(exist_ok=True)
        if kind == CGROUP2:
            _delegate(base)
        trial = Cgroup(kind, Path(tempfile.mkdtemp(prefix="probe-", dir=base)), _PROBE_BYTES)
        try:
            trial.create()
            works = trial.counts_kills()
        finally:
            trial.close()
    except OSError:
        return None
    return base if works else None


def _delegate(group: Path) -> None:
    """Let the children of a version 2 group have memory limits of their own."""
    if "memory" not in (group / "cgroup.controllers").read_text().split():
        raise OSError(f"{group} has no memory controller")
    control = group / "cgroup.subtree_control"
    if "memory" not in control.read_text().split():
        control.write_text("+memory")
