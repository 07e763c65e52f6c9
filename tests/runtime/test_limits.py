"""The memory limit: it kills inside the container, keeps the evidence, and is chosen by trying."""
# ruff: noqa: ASYNC240 - a test may block its own loop

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from runtime.conftest import MIB
from runtime.waiting import async_test, until
from treadle.model.errors import InvalidOption
from treadle.model.wire import RunSpec
from treadle.runtime import processes
from treadle.runtime.base import Runtime, StartSpec
from treadle.runtime.limits import CGROUP1, CGROUP2, Cgroup
from treadle.runtime.probe import Limits, probe
from treadle.runtime.watchdog import CALM, TENSE, Watchdog

pytestmark = pytest.mark.process

# A runner in small: a template joins the limit and forks a child, which takes a gigabyte; the runner waits.
HOG = """
    import os, pathlib, signal, sys, msgspec
    from treadle.model.wire import RunSpec
    folder = pathlib.Path(sys.argv[1])
    run = msgspec.msgpack.decode((folder / "run.msgpack").read_bytes(), type=RunSpec)
    template = os.fork()
    if template == 0:
        for file in run.procs_files:
            pathlib.Path(file).write_text(str(os.getpid()))
        child = os.fork()
        if child == 0:
            held = []
            for _ in range(4096):
                held.append(b"x" * 1024 * 256)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        (folder / "new").write_text(str(os.waitstatus_to_exitcode(status)))
        (folder / "new").rename(folder / "verdict")
    signal.pause()
"""


@async_test
async def test_a_memory_hog_is_killed_at_the_limit_and_the_evidence_says_so(runtime: Runtime, make) -> None:
    spec: StartSpec = make(HOG, memory=96)
    running = await runtime.start(spec)
    verdict = spec.folder / "verdict"
    await until(verdict.exists, 60)
    run = msgspec.msgpack.decode((spec.folder / "run.msgpack").read_bytes(), type=RunSpec)
    assert int(verdict.read_text()) == -signal.SIGKILL
    assert "oom_kill 1" in Path(run.oom_file).read_text().splitlines()
    assert int(Path(run.peak_file).read_text()) > 0.7 * 96 * MIB
    assert running.alive()  # the runner itself is outside of the limit
    running.kill()
    await asyncio.wait_for(running.wait(), 10)


@async_test
async def test_an_adopted_container_is_still_held_to_its_memory(runtime: Runtime, make) -> None:
    waits = "while not (folder / 'go').exists(): __import__('time').sleep(0.01)"
    spec: StartSpec = make(HOG.replace("held = []", f"{waits}\n            held = []"), memory=96)
    first = await runtime.start(spec)
    first.release()
    second = await runtime.adopt(spec.folder)
    assert second is not None
    (spec.folder / "go").touch()
    await until((spec.folder / "verdict").exists, 60)
    assert int((spec.folder / "verdict").read_text()) == -signal.SIGKILL
    second.kill()
    await asyncio.wait_for(second.wait(), 10)


def test_the_mechanism_chosen_unasked_is_the_first_that_works() -> None:
    """The order is cgroup version 2, version 1, watchdog."""
    works = []
    for kind in (CGROUP2, CGROUP1):
        try:
            works.append(probe(kind).kind)
        except InvalidOption:
            continue
    assert probe().kind == [*works, "watchdog"][0]


def test_the_watchdog_can_be_asked_for() -> None:
    assert probe("watchdog") == Limits("watchdog")


def test_without_any_cgroup_mount_the_watchdog_is_chosen(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
    assert probe(mounts=mounts).kind == "watchdog"


def test_a_mount_without_a_memory_controller_does_not_count(tmp_path: Path) -> None:
    """An empty version 2 hierarchy beside version 1 is common."""
    (tmp_path / "cgroup.controllers").write_text("hugetlb\n")
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"31 24 0:27 / {tmp_path} rw shared:4 - cgroup2 cgroup2 rw\n")
    assert probe(mounts=mounts).kind == "watchdog"


def test_a_mechanism_asked_for_that_does_not_work_is_an_error_with_advice(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text("")
    with pytest.raises(InvalidOption, match=r"cgroup2.*TREADLE_LIMITS=auto"):
        probe("cgroup2", tmp_path / "mountinfo")


def test_an_unknown_mechanism_is_refused_with_those_allowed() -> None:
    with pytest.raises(InvalidOption, match=r"'rlimit'.*cgroup2, cgroup1, watchdog"):
        probe("rlimit")


def test_version_2_files_are_set_as_the_kernel_wants_them(tmp_path: Path) -> None:
    """On plain files, since few machines have both versions."""
    for name in ("memory.max", "memory.swap.max", "memory.oom.group", "memory.peak", "memory.events"):
        (tmp_path / name).write_text("")
    (tmp_path / "memory.events").write_text("low 0\noom 0\noom_kill 0\n")
    group = Cgroup(CGROUP2, tmp_path, 64 * MIB)
    group.create()
    assert (tmp_path / "memory.max").read_text() == str(64 * MIB)
    assert (tmp_path / "memory.swap.max").read_text() == "0"
    assert (tmp_path / "memory.oom.group").read_text() == "0"
    assert group.counts_kills()
    assert group.peak_file.endswith("memory.peak")


def test_a_calm_container_is_looked_at_less_often_than_a_full_one(tmp_path: Path) -> None:
    calm = Watchdog(tmp_path, 1024 * MIB)
    child = subprocess.Popen([sys.executable, "-c", "print('x' * 2 ** 21, flush=True); input()"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    try:
        assert child.stdout is not None
        child.stdout.read(1)
        used = processes.resident(child.pid)
        assert calm.tick(os.getpid()) == CALM
        assert Watchdog(tmp_path, int(used * 1.2)).tick(os.getpid()) == TENSE
        assert child.poll() is None
    finally:
        child.kill()
        child.communicate()


def test_the_watchdog_goes_on_counting_where_the_one_before_it_ended(tmp_path: Path) -> None:
    (tmp_path / "oom").write_text("oom_kill 2\n")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    Watchdog(tmp_path, 1024).tick(os.getpid())
    assert child.wait() == -signal.SIGKILL
    child.communicate()
    assert (tmp_path / "oom").read_text() == "oom_kill 3\n"
    assert int((tmp_path / "peak").read_text()) > 1024
