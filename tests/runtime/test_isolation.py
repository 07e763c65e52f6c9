"""Which level is chosen and why, and what the runtime puts around a container."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec
import pytest

from runtime.conftest import script_command
from runtime.waiting import async_test, until
from treadle.model.container import Isolation
from treadle.model.deployment import QueueConfig
from treadle.model.errors import InvalidOption
from treadle.model.wire import RunSpec
from treadle.runtime import isolation
from treadle.runtime.isolation import Shield, probe, scratch_of, tried
from treadle.runtime.probe import Limits
from treadle.runtime.process import ProcessRuntime

PROCESS, LANDLOCK, NAMESPACES = Isolation.PROCESS, Isolation.LANDLOCK, Isolation.NAMESPACES
CONFIG = QueueConfig(handler="app:f")
TELLS_SCRATCH = """
    import os, pathlib, sys, time
    pathlib.Path(sys.argv[1], "told").write_text(os.environ["TMPDIR"])
    time.sleep(600)
"""


def machine(monkeypatch: pytest.MonkeyPatch, landlock: str, namespaces: str) -> None:
    """As if a trial had found these troubles."""
    monkeypatch.setattr(isolation, "tried", lambda _python: {LANDLOCK: landlock, NAMESPACES: namespaces})
    monkeypatch.setattr(isolation, "_SWITCHES", {})


@pytest.mark.parametrize(
    ("troubles", "level", "why"),
    [
        (("", ""), NAMESPACES, "level 3 (engine) is for images with a base image, a Dockerfile or system packages"),
        (("", "no"), LANDLOCK, "level 2 (namespaces): no"),
        (("old", ""), NAMESPACES, "level 3 (engine) is for images with a base image, a Dockerfile or system packages"),
        (("old", "no"), PROCESS, "level 1 (landlock): old; level 2 (namespaces): no"),
    ],
)
def test_the_highest_level_that_works_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, troubles: tuple[str, str], level: Isolation, why: str
) -> None:
    """And why not a higher one is known."""
    machine(monkeypatch, *troubles)
    shield = probe("auto", tmp_path)
    assert (shield.level, shield.no_higher) == (level, why)


def test_a_level_may_be_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A lower one than works, by name."""
    machine(monkeypatch, "", "")
    shield = probe("landlock", tmp_path)
    assert (shield.level, shield.no_higher) == (LANDLOCK, "TREADLE_ISOLATION=landlock")


def test_a_level_that_does_not_work_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The agent does not start with less than it was told to give."""
    machine(monkeypatch, "", "unshare: Operation not permitted")
    with pytest.raises(InvalidOption, match=r"TREADLE_ISOLATION=namespaces does not work .* not permitted"):
        probe("namespaces", tmp_path)


def test_a_level_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    """Naming those that do."""
    with pytest.raises(InvalidOption, match="Allowed: auto, process, landlock, namespaces"):
        probe("docker", tmp_path)


def test_a_switch_of_the_kernel_that_forbids_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the command that allows it."""
    machine(monkeypatch, "", "not permitted")
    monkeypatch.setattr(isolation, "_SWITCHES", {"/proc/sys/kernel/ostype": ("Linux", "1")})
    why = probe("auto", tmp_path).no_higher
    assert why.endswith("user namespaces are switched off: `sysctl kernel.ostype=1` as root allows them")


@pytest.mark.process
def test_a_trial_that_cannot_be_run_is_trouble(tmp_path: Path) -> None:
    """Not an error: the machine gives level 0, and says why."""
    (tmp_path / "python").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "python").chmod(0o755)
    troubles = tried(str(tmp_path / "python"))
    assert all("the trial failed" in trouble for trouble in troubles.values())


@pytest.mark.process
def test_the_trial_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither files nor mounts."""
    mounts = Path("/proc/self/mountinfo").read_text()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert tried(sys.executable).keys() == {LANDLOCK, NAMESPACES}
    assert list(tmp_path.iterdir()) == []
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_shared_folders_are_folders_by_their_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several with colons between; a wrong one is named."""
    machine(monkeypatch, "", "")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert probe("auto", tmp_path, f"{tmp_path}/a:{tmp_path}/b").shared == (f"{tmp_path}/a", f"{tmp_path}/b")
    for wrong in ("a", f"{tmp_path}/none"):
        with pytest.raises(InvalidOption, match="TREADLE_SHARED_FOLDERS"):
            probe("auto", tmp_path, wrong)


def test_at_level_1_the_data_folder_cannot_be_within_a_shared_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Landlock has no exceptions from what it allows."""
    machine(monkeypatch, "", "no")
    with pytest.raises(InvalidOption, match="holds the data folder"):
        probe("auto", tmp_path / "data", str(tmp_path))


def test_what_is_not_for_everybody_is_hidden_from_roots_containers(tmp_path: Path) -> None:
    """Files and folders without the right for others, at any depth; links are none."""
    (tmp_path / "open").mkdir()
    for name, mode in (("public", 0o644), ("shadow", 0o640), ("open/key", 0o600), ("open/cert", 0o644)):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(mode)
    (tmp_path / "private").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("shadow")
    hidden = {Path(one).relative_to(tmp_path).as_posix() for one in isolation._private_files(tmp_path)}
    assert hidden == {"shadow", "open/key", "private"}


def test_a_data_folder_behind_a_link_is_hidden_by_both_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either leads to the same files."""
    machine(monkeypatch, "", "")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert probe("auto", tmp_path / "link").hidden[:2] == (f"{tmp_path}/link", f"{tmp_path}/real")


def test_at_level_0_nothing_is_put_around(tmp_path: Path) -> None:
    """But a blocked network stays asked for, so that the runner refuses."""
    box = Shield().around(tmp_path / "c" / "id", msgspec.structs.replace(CONFIG, block_network=True))
    assert (box.level, box.writable, box.block_network) == (PROCESS, [], True)


def test_the_folder_for_temporary_files_has_a_short_path() -> None:
    """multiprocessing makes sockets below it, whose paths may have 107 bytes."""
    folder = Path("/home/somebody/.treadle/agent/containers/taskqueue-01a214d0-4aed-7039-9b54-cccc3c514c87-de81232f")
    assert scratch_of(folder) == Path("/home/somebody/.treadle/agent/tmp/de81232f")
    assert len(f"{scratch_of(folder)}/pymp-abcdefgh/listener-abcdefgh") < 80


@pytest.mark.process
@async_test
async def test_a_container_is_told_what_to_enter_and_its_temporary_files_go_with_it(tmp_path: Path, make) -> None:
    """In run.msgpack; the folder is there while it lives."""
    shield = Shield(LANDLOCK, "", (str(tmp_path / "data"),), ("/srv",))
    runtime = ProcessRuntime(Limits("watchdog"), script_command, shield=shield)
    assert (runtime.isolation, runtime.no_higher) == (LANDLOCK, "")
    spec = msgspec.structs.replace(make(TELLS_SCRATCH), gpu_files=["/dev/nvidia7"])
    running = await runtime.start(spec)
    run = msgspec.msgpack.decode((spec.folder / "run.msgpack").read_bytes(), type=RunSpec)
    scratch = scratch_of(spec.folder)
    assert run.sandbox.level == LANDLOCK
    assert run.sandbox.writable == [str(spec.folder / "code"), str(spec.folder / "home")]
    assert (run.sandbox.hidden, run.sandbox.shared) == ([str(tmp_path / "data")], ["/srv"])
    assert run.sandbox.gpu_files == ["/dev/nvidia7"]
    assert run.sandbox.scratch == str(scratch) and scratch.is_dir()
    told = spec.folder / "told"
    await until(lambda: told.exists() and told.read_text() == str(scratch))
    running.kill()
    await asyncio.wait_for(running.wait(), 30)
    assert not scratch.exists()
