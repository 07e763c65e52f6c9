"""Containers for the runtime's tests: small scripts in place of the runner, killed at the end whatever happens."""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from treadle.model.deployment import ImageSpec, QueueConfig
from treadle.model.errors import InvalidOption
from treadle.model.wire import RunSpec
from treadle.runtime import processes
from treadle.runtime.base import Runtime, StartSpec
from treadle.runtime.docker import LAYER, DockerRuntime
from treadle.runtime.engine import Engine
from treadle.runtime.engine import find as find_engine
from treadle.runtime.image import Images
from treadle.runtime.probe import Limits, probe
from treadle.runtime.process import ProcessRuntime
from treadle.runtime.zygote import Zygotes

MIB = 1024 * 1024
BASE = "treadle-test/debian:12"
Make = Callable[..., StartSpec]


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Writes a container's folder with a script as its code; kills what is left of it afterwards."""
    made: list[str] = []
    call = getattr(request.node, "callspec", None)
    by_engine = call is not None and call.params.get("runtime") == "engine"

    def build(script: str, *, memory: int = 128, config: QueueConfig | None = None) -> StartSpec:
        container_id = f"taskqueue-test-{uuid.uuid4().hex[:8]}"
        made.append(container_id)
        folder = tmp_path / container_id
        (folder / "code").mkdir(parents=True)
        (folder / "code" / "runner.py").write_text(dedent(script))
        run = RunSpec(
            url="http://127.0.0.1:1",
            container_id=container_id,
            deployment_id="d1",
            token="secret",
            config=config or QueueConfig(handler="app:f", memory=memory),
            code=str(folder / "code"),
            python="3.11.7",
        )
        if by_engine:
            mounted = request.getfixturevalue("layer")
            there = Path("/usr/bin/python3")
            return StartSpec(folder, there, there, run, {"PYTHONPATH": LAYER}, image=BASE, layer=mounted)
        return StartSpec(folder, Path(sys.executable), Path(sys.executable), run)

    yield build
    for container_id in made:
        processes.kill(processes.members(container_id, -1))
        if by_engine:
            engine().ask("rm", "--force", container_id)


def engine_command(python: Path, folder: Path) -> list[str]:
    """Runs the container's script in place of the runner, in an image of an engine."""
    return [str(python), str(folder / "code" / "runner.py"), str(folder)]


def script_command(python: Path, folder: Path) -> list[str]:
    """The same on this machine, where the runner is told what it is to hand on."""
    return [*script_zygote(python), str(folder)]


def mechanisms() -> list[Limits]:
    found = []
    for kind in ("cgroup2", "cgroup1", "watchdog"):
        with contextlib.suppress(InvalidOption):
            found.append(probe(kind))
    return found


MECHANISMS = mechanisms()


@pytest.fixture(params=MECHANISMS, ids=[limits.kind for limits in MECHANISMS])
def mechanism(request: pytest.FixtureRequest) -> Limits:
    """Each way to hold memory that this machine gives."""
    return request.param


def script_zygote(python: Path) -> list[str]:
    """A zygote whose runners run the container's script."""
    return [str(python), "-P", str(Path(__file__).with_name("script_zygote.py"))]


def engine() -> Engine:
    """The engine of this machine, with the base image that `tests/engine.sh up` makes; skips where there is none."""
    found, why = find_engine()
    if found is None:
        pytest.skip(f"isolation level 3 is not tested here: {why} (tests/engine.sh up)")
    if not found.ask("image", "inspect", BASE):
        pytest.skip(f"isolation level 3 is not tested here: {found.program} has no image {BASE} (tests/engine.sh up)")
    return found


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runner's layer that fits the base image's Python."""
    root = tmp_path_factory.mktemp("images")
    Images(root).build(ImageSpec(python_version="python3.11"), None, lambda _: None)
    (made,) = root.glob("runner-3.11-*")
    return made


WAYS = [(limits, way) for limits in MECHANISMS for way in ("spawn", "zygote")]
RUNTIMES = {f"{way}-{limits.kind}": (limits, way) for limits, way in WAYS} | {"engine": None}


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """Each way to start a container."""
    chosen = RUNTIMES[request.param]
    if chosen is None:
        yield DockerRuntime(engine(), engine_command)
        return
    limits, way = chosen
    plain = ProcessRuntime(limits, script_command, Zygotes(script_zygote) if way == "zygote" else None)
    yield plain
    plain.close()
