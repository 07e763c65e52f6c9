"""Version 2 groups without being root: a scope of the user's systemd."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from treadle.runtime import scope
from treadle.runtime.probe import MOUNTS

pytestmark = pytest.mark.process

PROBES = """
from pathlib import Path
from treadle.runtime.probe import probe
first, group = probe(), Path("/proc/self/cgroup").read_text()
assert probe() == first and Path("/proc/self/cgroup").read_text() == group, "one scope is enough"
print(first.kind, group.split("0::")[1].strip(), *[base.path for base in first.bases])
"""


def divides_users() -> bool:
    """Whether this user has a systemd of its own, on a machine with memory in version 2."""
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    if os.geteuid() == 0 or not controllers.exists() or "memory" not in controllers.read_text().split():
        return False
    asked = ["busctl", "--user", "status"]
    try:
        return subprocess.run(asked, capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@pytest.mark.skipif("not divides_users()", reason="takes a user's systemd and cgroup version 2")
def test_a_users_agent_moves_into_a_scope_of_its_own_and_divides_it() -> None:
    """Its containers get their groups beside the one that it is in itself; a second probe finds the same place."""
    found = subprocess.run([sys.executable, "-c", PROBES], capture_output=True, text=True, check=True).stdout.split()
    kind, own, *bases = found
    assert kind == "cgroup2"
    assert own.endswith(".scope/agent")
    assert f"/sys/fs/cgroup{own.removesuffix('agent')}treadle" in bases


@pytest.mark.skipif("os.geteuid() != 0", reason="takes root")
def test_root_stays_where_it_is() -> None:
    """It can make groups without a scope, or not at all."""
    before = Path("/proc/self/cgroup").read_text()
    assert not scope.enter(MOUNTS)
    assert Path("/proc/self/cgroup").read_text() == before
