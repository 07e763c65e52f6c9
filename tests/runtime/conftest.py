"""Containers for the runtime's tests: small scripts in place of the runner, killed at the end whatever happens."""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from treadle.model.deployment import QueueConfig
from treadle.model.errors import InvalidOption
from treadle.model.wire import RunSpec
from treadle.runtime import processes
from treadle.runtime.base import StartSpec
from treadle.runtime.probe import Limits, probe
from treadle.runtime.process import ProcessRuntime
from treadle.runtime.zygote import Zygotes

MIB = 1024 * 1024
Make = Callable[..., StartSpec]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Writes a container's folder with a script as its code; kills what is left of it afterwards."""
    made: list[str] = []

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
        return StartSpec(folder, Path(sys.executable), run)

    yield build
    for container_id in made:
        processes.kill(processes.members(container_id, -1))


def script_command(python: Path, folder: Path) -> list[str]:
    """Runs the container's script in place of the runner."""
    return [str(python), str(folder / "code" / "runner.py"), str(folder)]


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


@pytest.fixture(params=["spawn", "zygote"])
def runtime(mechanism: Limits, request: pytest.FixtureRequest) -> Iterator[ProcessRuntime]:
    """Each way to start a container."""
    runtime = ProcessRuntime(mechanism, script_command, Zygotes(script_zygote) if request.param == "zygote" else None)
    yield runtime
    runtime.close()
