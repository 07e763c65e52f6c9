"""What a container of an engine sees of its folder, and how what it is given is written on the engine's command line."""

from __future__ import annotations

import asyncio
import csv
import io
import stat
from pathlib import Path

import msgspec
import pytest

from runtime.conftest import engine, engine_command
from runtime.waiting import async_test, until
from treadle.model import wire
from treadle.model.errors import Unavailable
from treadle.runtime import docker
from treadle.runtime.docker import DockerRuntime
from treadle.runtime.either import EitherRuntime
from treadle.runtime.engine import bound
from treadle.runtime.probe import Limits
from treadle.runtime.process import ProcessRuntime

BY_ENGINE = pytest.mark.parametrize("runtime", ["engine"], indirect=True)
LOOKS = """
    import os, pathlib, sys, time
    folder = pathlib.Path(sys.argv[1])
    seen = []
    for name in sorted(os.listdir(folder)):
        try:
            os.rename(folder / name, folder / "other")
        except OSError as error:
            seen.append(f"{name} {error.strerror}")
    pathlib.Path("near/file").write_text("x")
    pathlib.Path("new").write_text("\\n".join(seen))
    os.rename("new", "seen")
    time.sleep(600)
"""


@pytest.mark.parametrize("path", ["/plain", "/a,b", '/a"b', "/x,source=/,target=/host", "/ends,", "/a\nb", "/a\rb"])
@pytest.mark.parametrize("readonly", [False, True])
def test_a_path_stays_one_field_of_a_mount(path: str, readonly: bool) -> None:
    """However it is written: the engines read a mount as a line of CSV."""
    option, value = bound(path, "/target" + path, readonly=readonly)
    assert option == "--mount"
    (fields,) = csv.reader(io.StringIO(value, newline=""), strict=True)
    assert fields == ["type=bind", f"source={path}", f"target=/target{path}"] + ["readonly"] * readonly


@pytest.mark.process
@BY_ENGINE
@async_test
async def test_a_container_sees_what_it_needs_of_its_folder_and_can_exchange_nothing(
    runtime: DockerRuntime, make, tmp_path: Path
) -> None:
    """Each of it is mounted for itself; names with commas are names."""
    spec = make(LOOKS)
    source = tmp_path / "volumes,target=" / "v"
    source.mkdir(parents=True)
    (spec.folder / "code" / "near").symlink_to(source)
    spec = msgspec.structs.replace(spec, mounts=[wire.Mount(str(source), "/volumes/ne,ar")])
    running = await runtime.start(spec)
    await until((spec.folder / "code" / "seen").exists)
    seen = (spec.folder / "code" / "seen").read_text().splitlines()
    assert seen == [f"{name} Device or resource busy" for name in ("code", "environment", "home", "last_words", "log", "run.msgpack")]
    assert (source / "file").read_text() == "x"
    running.kill()
    await asyncio.wait_for(running.wait(), 30)
    assert all(stat.S_ISREG((spec.folder / name).lstat().st_mode) for name in ("log", "last_words", "run.msgpack", docker.STATE))


@pytest.mark.process
@BY_ENGINE
@async_test
async def test_a_container_that_never_takes_its_environment_is_given_up(runtime: DockerRuntime, make) -> None:
    """The Python of a strange image may do what it likes; the engine has nothing of it afterwards."""
    spec = make("pass")
    strange = msgspec.structs.replace(spec, python=Path("/usr/bin/sleep"))
    stuck = DockerRuntime(engine(), engine_command, patience=1.0)
    stuck._arguments = lambda spec, pipe: [*_until_image(runtime, spec, pipe), "600"]  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="has not begun within 1 s"):
        await stuck.start(strange)
    assert engine().ask("ps", "--all", "--quiet", "--filter", f"name={spec.run.container_id}") == ""


def _until_image(runtime: DockerRuntime, spec: docker.StartSpec, pipe: Path) -> list[str]:
    arguments = runtime._arguments(spec, pipe)
    return arguments[: arguments.index("-I")]


@pytest.mark.process
@BY_ENGINE
@async_test
async def test_a_container_of_another_name_is_never_removed(runtime: DockerRuntime, make) -> None:
    """Whatever the note in the folder says: the engine is asked for the folder's own, by name and label."""
    spec, other = make("import time; time.sleep(600)"), make("pass")
    running = await runtime.start(spec)
    (other.folder / docker.STATE).write_text(f'{{"container_id": "{spec.run.container_id}", "started_at": 1.0}}')
    assert await runtime.adopt(other.folder) is None
    assert running.alive()
    running.kill()
    await asyncio.wait_for(running.wait(), 30)


@pytest.mark.process
@pytest.mark.parametrize("runtime", ["spawn-watchdog"], indirect=True)
@async_test
async def test_a_process_is_adopted_also_where_its_folder_says_that_an_engine_has_it(
    runtime: ProcessRuntime, make
) -> None:
    """At level 0 the note may be a lie; the engine does not know it."""
    spec = make("import time; time.sleep(600)")
    first = await runtime.start(spec)
    first.release()
    (spec.folder / docker.STATE).write_text('{"started_at": 1.0}')
    adopted = await EitherRuntime(ProcessRuntime(Limits("watchdog"))).adopt(spec.folder)
    assert adopted is not None
    assert adopted.pid == first.pid
    adopted.kill()
    await asyncio.wait_for(adopted.wait(), 30)
