"""The runtime of an agent: images of an engine are run by it, all others as processes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from treadle.model.errors import Unavailable
from treadle.runtime import docker, engine
from treadle.runtime.base import Running, StartSpec
from treadle.runtime.docker import DockerRuntime
from treadle.runtime.process import ProcessRuntime


class EitherRuntime:
    """A process runtime, and beside it an engine's, looked for when it is needed: it may be installed meanwhile."""

    def __init__(self, plain: ProcessRuntime, shared: Sequence[str] = ()) -> None:
        self.limits = plain.limits
        self.isolation, self.no_higher = plain.isolation, plain.no_higher
        self._plain = plain
        self._shared = shared

    def warm(self, python: Path) -> None:
        self._plain.warm(python)

    def close(self) -> None:
        self._plain.close()

    async def start(self, spec: StartSpec) -> Running:
        if not spec.image:
            return await self._plain.start(spec)
        found, why = await asyncio.to_thread(engine.find)
        if found is None:
            raise Unavailable(f"The container's image is one of Docker or Podman. {why}", "Start it.")
        return await DockerRuntime(found, shared=self._shared).start(spec)

    async def adopt(self, folder: Path) -> Running | None:
        if (folder / docker.STATE).exists():
            found, _ = await asyncio.to_thread(engine.find)
            if found is not None and (running := await DockerRuntime(found).adopt(folder)):
                return running
        return await self._plain.adopt(folder)  # which kills what bears its mark if nobody can watch it
