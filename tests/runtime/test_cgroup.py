"""Groups: what is written into them, what they hold in truth, and that none is left."""
# ruff: noqa: ASYNC240 - a test may block its own loop

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from runtime.waiting import async_test, until
from treadle.model.deployment import QueueConfig
from treadle.model.wire import RunSpec
from treadle.runtime import cgroup, processes
from treadle.runtime.base import StartSpec
from treadle.runtime.cgroup import MAX_PIDS, STALE_SECONDS, Group, Share
from treadle.runtime.probe import Limits
from treadle.runtime.process import ProcessRuntime

from .conftest import MIB, script_command

pytestmark = pytest.mark.process

ENTER = """
    import os, pathlib, signal, sys, time, msgspec
    from treadle.model.wire import RunSpec
    folder = pathlib.Path(sys.argv[1])
    run = msgspec.msgpack.decode((folder / "run.msgpack").read_bytes(), type=RunSpec)

    def say(text):
        (folder / "new").write_text(str(text))
        (folder / "new").rename(folder / "said")

    template = os.fork()
    if template:
        os.wait()
        signal.pause()
    for file in run.procs_files:
        pathlib.Path(file).write_text("0")
"""
BOMB = """
    born = 0
    try:
        for _ in range(3000):
            if os.fork() == 0:
                signal.pause()
            born += 1
        say(f"no end at {born}")
    except BlockingIOError as error:
        say(f"{born} {error.strerror}")
    signal.pause()
"""
SPIN = """
    began, used = time.monotonic(), time.process_time()
    while time.monotonic() < began + 1.5:
        pass
    say((time.process_time() - used) / (time.monotonic() - began))
    signal.pause()
"""


def holds(mechanism: Limits, controller: str) -> None:
    if not mechanism.by(controller).startswith("cgroup"):
        pytest.skip(f"no group can hold {controller} here")


async def said_by(mechanism: Limits, spec: StartSpec) -> str:
    """What a container's script says, and its end."""
    running = await ProcessRuntime(mechanism, script_command).start(spec)
    await until((spec.folder / "said").exists, 60)
    running.kill()
    await asyncio.wait_for(running.wait(), 30)
    return (spec.folder / "said").read_text()


@async_test
async def test_a_fork_bomb_ends_at_the_limit_of_processes_and_is_cleared_away(mechanism: Limits, make) -> None:
    """1024 processes and threads in one container; the next fork fails there, and nowhere else."""
    holds(mechanism, "pids")
    spec: StartSpec = make(ENTER + BOMB, memory=2048)
    said = await said_by(mechanism, spec)
    assert said == f"{MAX_PIDS - 1} Resource temporarily unavailable"
    assert processes.members(spec.run.container_id, -1) == set()
    run = msgspec.msgpack.decode((spec.folder / "run.msgpack").read_bytes(), type=RunSpec)
    assert not any(Path(file).exists() for file in run.procs_files)


@async_test
async def test_a_process_that_never_rests_gets_no_more_than_the_cores_asked_for(mechanism: Limits, make) -> None:
    """A quarter of a core, also while the machine has nothing else to do; less while it is busy with others."""
    holds(mechanism, "cpu")
    config = QueueConfig(handler="app:f", cpu=250, memory=256)
    assert 0 < float(await said_by(mechanism, make(ENTER + SPIN, config=config))) < 0.4


def test_a_group_is_killed_however_fast_its_processes_fork(mechanism: Limits, tmp_path: Path) -> None:
    """First no more can be born, then those there are killed."""
    holds(mechanism, "pids")
    limit = mechanism.make(f"test-{os.getpid()}-{tmp_path.name}", tmp_path, Share(512 * MIB))
    storm = f"""
import os, pathlib
for file in {limit.procs_files!r}:
    pathlib.Path(file).write_text("0")
print("in", flush=True)
while True:
    try:
        os.fork()
    except OSError:
        os._exit(0)
    if os.fork():
        os._exit(0)
"""
    process = subprocess.Popen([sys.executable, "-c", storm], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    deadline = time.monotonic() + 20
    while not limit.close():
        limit.kill()
        assert time.monotonic() < deadline
    process.kill()
    process.communicate()
    assert limit.pids() == []


@pytest.mark.parametrize(
    ("version", "controller", "wanted"),
    [
        (2, "memory", {"memory.max": str(64 * MIB), "memory.swap.max": "0", "memory.oom.group": "0"}),
        (2, "cpu", {"cpu.weight": "250", "cpu.max": "250000 100000"}),
        (2, "pids", {"pids.max": "1024"}),
        (
            1,
            "memory",
            {
                "memory.limit_in_bytes": str(64 * MIB),
                "memory.memsw.limit_in_bytes": str(64 * MIB),
                "memory.swappiness": "0",
            },
        ),
        (1, "cpu", {"cpu.shares": "2560", "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "250000"}),
        (1, "pids", {"pids.max": "1024"}),
    ],
)
def test_what_is_written_for_a_share_of_64_mib_and_two_and_a_half_cores(
    version: int, controller: str, wanted: dict[str, str]
) -> None:
    settings = cgroup.settings(version, controller, Share(64 * MIB, 2500))
    assert {setting.file: setting.value for setting in settings} == wanted


def test_the_smallest_share_of_a_core_is_within_what_the_kernel_takes() -> None:
    """Its bounds: a weight from 1 to 10000, a quota of at least a millisecond."""
    assert [s.value for s in cgroup.settings(2, "cpu", Share(MIB, 1))] == ["1", "1000 100000"]
    assert cgroup.settings(2, "cpu", Share(MIB, 10**6))[0].value == "10000"


def test_what_a_kernel_does_not_have_is_left_out(tmp_path: Path) -> None:
    """On plain files: without swap accounting and before memory.peak."""
    group = Group(2, tmp_path)
    group.create(("memory",), Share(64 * MIB))
    assert [path.name for path in tmp_path.iterdir()] == ["memory.max"]
    assert group.peak_file == ""


def test_groups_that_a_killed_agent_has_left_are_removed_when_they_are_old_and_empty(
    mechanism: Limits, tmp_path: Path
) -> None:
    """One that a container is about to enter, or is in, stays."""
    holds(mechanism, "pids")
    base = next(base for base in mechanism.bases if "pids" in base.controllers)
    parent = Group(base.version, base.path / f"test-{os.getpid()}-{tmp_path.name}")
    parent.path.mkdir()
    empty, used = Group(base.version, parent.path / "empty"), Group(base.version, parent.path / "used")
    for group in (empty, used):
        group.path.mkdir()
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        (used.path / "cgroup.procs").write_text(str(sleeper.pid))
        now = time.time()
        cgroup.clear_stale(parent.path, now)
        assert empty.path.exists()
        cgroup.clear_stale(parent.path, now + STALE_SECONDS + 1)
        assert (empty.path.exists(), used.path.exists()) == (False, True)
    finally:
        sleeper.kill()
        sleeper.wait()
        for group in (used, empty, parent):
            group.remove()
