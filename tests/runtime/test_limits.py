"""The memory limit: it kills inside the container, keeps the evidence, and is chosen by trying."""


from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from runtime.conftest import MIB
from runtime.waiting import async_test, until
from treadle.model.errors import InvalidOption
from treadle.runtime.base import Runtime, StartSpec
from treadle.runtime.limits import CGROUP1, CGROUP2
from treadle.runtime.probe import probe

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
        folder /= "code"
        (folder / "oom").write_text(pathlib.Path(run.oom_file).read_text())
        (folder / "peak").write_text(pathlib.Path(run.peak_file).read_text())
        (folder / "new").write_text(str(os.waitstatus_to_exitcode(status)))
        (folder / "new").rename(folder / "verdict")
    signal.pause()
"""


@async_test
async def test_a_memory_hog_is_killed_at_the_limit_and_the_evidence_says_so(runtime: Runtime, make) -> None:
    spec: StartSpec = make(HOG, memory=96)
    running = await runtime.start(spec)
    verdict = spec.folder / "code" / "verdict"
    await until(verdict.exists, 60)
    assert int(verdict.read_text()) == -signal.SIGKILL
    assert "oom_kill 1" in (spec.folder / "code" / "oom").read_text().splitlines()
    assert int((spec.folder / "code" / "peak").read_text()) > 0.7 * 96 * MIB
    assert running.alive()  # the runner itself is outside of the limit
    running.kill()
    await asyncio.wait_for(running.wait(), 30)


@async_test
async def test_an_adopted_container_is_still_held_to_its_memory(runtime: Runtime, make) -> None:
    waits = "while not (folder / 'code' / 'go').exists(): __import__('time').sleep(0.01)"
    spec: StartSpec = make(HOG.replace("held = []", f"{waits}\n            held = []"), memory=96)
    first = await runtime.start(spec)
    first.release()
    second = await runtime.adopt(spec.folder)
    assert second is not None
    (spec.folder / "code" / "go").touch()
    await until((spec.folder / "code" / "verdict").exists, 60)
    assert int((spec.folder / "code" / "verdict").read_text()) == -signal.SIGKILL
    second.kill()
    await asyncio.wait_for(second.wait(), 30)


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
    """It holds memory; what groups can hold besides is left to them."""
    limits = probe("watchdog")
    assert limits.kind == "watchdog"
    assert limits.by("memory") == "watchdog"
    assert all("memory" not in base.controllers for base in limits.bases)


def test_without_any_cgroup_mount_the_watchdog_is_chosen(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
    limits = probe(mounts=mounts)
    assert limits.bases == ()
    assert [limits.by(name) for name in ("memory", "cpu", "pids")] == ["watchdog", "", "watchdog"]


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
