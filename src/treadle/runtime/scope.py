"""A systemd scope that this user may divide: where version 2 groups can be made without being root."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from pathlib import Path

PREFIX = "treadle-"  # of the scopes' names
LEAF = "agent"  # the group in the scope that this process itself is in
PATIENCE = 5.0  # seconds until systemd has moved this process

# https://www.freedesktop.org/wiki/Software/systemd/ControlGroupInterface/ (StartTransientUnit), and Delegate= in
# systemd.resource-control(5): what `systemd-run --user --scope -p Delegate=yes` sends, but for a process that runs.
_CALL = (
    "--user", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager",
    "StartTransientUnit", "ssa(sv)a(sa(sv))",
)  # fmt: skip


def enter(mounts: Path) -> bool:
    """Have the user's systemd move this process into a new scope of its own; True when it is there.

    Not for root, who needs none, and not out of a service, which would then be taken for ended: a unit of yours needs
    `Delegate=yes` instead. Not twice: what is not delegated in one scope is not in the next.
    """
    busctl, before = shutil.which("busctl"), _own()
    if busctl is None or os.geteuid() == 0 or "cgroup2" not in _text(mounts):
        return False
    if before.endswith(".service") or f"/{PREFIX}" in before:
        return False
    unit = f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}.scope"
    properties = ["2", "PIDs", "au", "1", str(os.getpid()), "Delegate", "b", "true"]
    try:
        asked = subprocess.run(
            [busctl, *_CALL, unit, "fail", *properties, "0"],
            env={"XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}", **os.environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0 and _moved(before)


def _moved(before: str) -> bool:
    """Whether this process is in another group than before, within the time that this may take."""
    deadline = time.monotonic() + PATIENCE
    while _own() == before:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _own() -> str:
    """The path of this process's version 2 group."""
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        if line.startswith("0::"):
            return line[3:]
    return ""


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
