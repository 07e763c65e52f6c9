"""What the notes in a container's folder must say for the next agent to take it over: nothing of others."""
# ruff: noqa: ASYNC220 - a test may block its own loop

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest

from runtime.waiting import async_test
from treadle.model import wire
from treadle.runtime import processes
from treadle.runtime.base import StartSpec
from treadle.runtime.cgroup import Group
from treadle.runtime.process import ProcessRuntime

pytestmark = pytest.mark.process


@pytest.mark.parametrize("runtime", ["spawn-watchdog"], indirect=True)
@async_test
async def test_groups_and_processes_of_others_are_left_alone(runtime: ProcessRuntime, make, tmp_path: Path) -> None:
    """A folder that imitates a group, a link to one, a process without the container's mark, another container's id."""
    other = subprocess.Popen(["sleep", "600"])
    with other:
        spec: StartSpec = make("pass")
        await (await runtime.start(spec)).wait()
        imitated = tmp_path / "imitated" / spec.folder.name
        imitated.mkdir(parents=True)
        (imitated / "cgroup.procs").write_text(f"{other.pid}\n")
        linked = tmp_path / "linked" / spec.folder.name
        linked.parent.mkdir()
        linked.symlink_to(imitated)
        run = msgspec.msgpack.decode((spec.folder / "run.msgpack").read_bytes(), type=wire.RunSpec)
        state = {"pid": other.pid, "identity": processes.identity(other.pid), "started_at": 1.0, "limits": "cgroup2"}
        (spec.folder / "state.json").write_bytes(msgspec.json.encode(state))
        for fields in (
            {},
            {"procs_files": [f"{imitated}/cgroup.procs"]},
            {"procs_files": [f"{linked}/cgroup.procs"]},
            {"container_id": "another"},
        ):
            forged = msgspec.structs.replace(run, **fields)
            (spec.folder / "run.msgpack").write_bytes(wire.encode(forged))
            assert await runtime.adopt(spec.folder) is None
            assert processes.identity(other.pid), f"killed by {fields}"
        other.kill()


def test_a_group_is_the_containers_own(tmp_path: Path) -> None:
    """By its name and by the file system that it is in; one that is gone already can do no harm."""
    (tmp_path / "c1").mkdir()
    assert not Group.of(f"{tmp_path}/c1/cgroup.procs").is_named("c1")
    assert not Group.of(f"{tmp_path}/c1/cgroup.procs").is_named("c2")
    assert not Group.of(f"{tmp_path}/../{tmp_path.name}/c1/cgroup.procs").is_named("c1")
    assert Group.of(f"{tmp_path}/gone/cgroup.procs").is_named("gone")
