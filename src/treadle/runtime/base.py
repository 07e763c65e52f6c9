"""How a container is started and held: what a runtime must do. Every implementation passes `tests/runtime`."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec

from treadle.model.container import Isolation
from treadle.model.wire import Mount, RunSpec


class StartSpec(msgspec.Struct, frozen=True):
    """What a container is started from.

    `folder` is the container's own; its `code` holds the copy of the source. The runtime fills the limit fields
    and the sandbox of `run`. `env` and `secrets` are added to the clean environment that every container gets;
    secrets are written to no file and no command line.
    """

    folder: Path
    python: Path  # the image's interpreter
    runner: Path  # the interpreter of the runner itself, on whose path there is nothing of the image
    run: RunSpec
    env: dict[str, str] = {}
    secrets: dict[str, str] = {}
    mounts: list[Mount] = []  # volumes, with absolute targets
    gpu_files: list[str] = []  # of its devices, in /dev
    image: str = ""  # the engine's name of it, and `python` is a path in there; "": an environment of this machine
    layer: Path | None = None  # the runner's layer, to be mounted in such an image


class Running(Protocol):
    """A container whose processes this agent watches, started here or adopted."""

    container_id: str
    pid: int  # of its runner
    started_at: float  # Unix seconds
    limits: str  # what holds its memory

    def alive(self) -> bool:
        """Whether its runner lives at this moment."""
        ...

    async def wait(self) -> int | None:
        """Return when every process of it is gone and its limits are cleared away.

        The runner's exit code, or minus the signal number; None where it is not known (adopted).
        """
        ...

    def kill(self) -> None:
        """Kill every process of it; `wait` returns when they are gone."""
        ...

    def release(self) -> None:
        """Stop watching and leave it running, for the next agent to adopt."""
        ...


class Runtime(Protocol):
    """Starts containers that outlive the agent, and finds them again."""

    limits: str  # what will hold the memory of those started here: cgroup2, cgroup1 or watchdog
    isolation: Isolation  # what those started here get
    no_higher: str  # why they get no higher level

    def warm(self, python: Path) -> None:
        """Have the next container of this interpreter start fast; a promise of nothing."""
        ...

    def close(self) -> None:
        """End what is kept for fast starts, and nothing else."""
        ...

    async def start(self, spec: StartSpec) -> Running:
        """Start the runner of a container; whatever fails on the way leaves nothing behind but the folder."""
        ...

    async def adopt(self, folder: Path) -> Running | None:
        """The container of this folder if its runner lives; else kill what is left of it and return None."""
        ...
