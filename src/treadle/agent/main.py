"""The agent: holds the containers of one machine and builds its images, as the server asks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
import uuid
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from treadle.agent import machine
from treadle.agent.containers import Containers
from treadle.agent.link import Link
from treadle.agent.sources import Sources
from treadle.client import Client
from treadle.lines import Logger
from treadle.model.errors import TreadleError
from treadle.model.wire import (
    AgentHello,
    AgentToServer,
    AskImages,
    Build,
    BuildLog,
    Built,
    Gpu,
    ImagesTold,
    PruneImages,
    ServerToAgent,
    Wanted,
)
from treadle.runtime import isolation
from treadle.runtime.base import Runtime
from treadle.runtime.either import EitherRuntime
from treadle.runtime.image import Images
from treadle.runtime.probe import probe
from treadle.runtime.process import ProcessRuntime
from treadle.runtime.zygote import Zygotes

_THREADS = 16  # for builds and for preparing containers
_FAREWELL = 1.0  # seconds to send the last reports


async def run_agent(
    *,
    url: str,
    token: str,
    data: Path,
    stop: asyncio.Event,
    log: Logger | None = None,
    kill_on_stop: bool = True,
    runtime: Runtime | None = None,
) -> None:
    """Serve one server until `stop` is set: adopt what runs, connect, and keep connecting.

    `data` is the data folder (containers and sources go below `data/agent`, images into `data/images`). With
    `kill_on_stop` every container is gone when this returns; without, they go on and the next agent adopts them.
    `runtime` replaces the one chosen by trying what this machine gives (TREADLE_LIMITS, TREADLE_ISOLATION).
    """
    log = log or Logger()
    if runtime is None:
        runtime = await asyncio.to_thread(_choose_runtime, data)
    log.info("memory of containers is held", by=runtime.limits)
    log.info("containers are isolated", isolation=runtime.isolation.value, by=runtime.isolation.name.lower())
    agent = Agent(url, token, data, runtime, log)
    await agent.run(stop, kill_on_stop=kill_on_stop)


def _choose_runtime(data: Path) -> Runtime:
    choice, shared = os.environ.get("TREADLE_ISOLATION", "auto"), os.environ.get("TREADLE_SHARED_FOLDERS", "")
    shield = isolation.probe(choice, data.absolute(), shared)
    mechanism = probe(os.environ.get("TREADLE_LIMITS", "auto"))
    return EitherRuntime(ProcessRuntime(mechanism, zygotes=Zygotes(), shield=shield), shield.shared)


class Agent:
    """Ties the link to the containers and the builds."""

    def __init__(self, url: str, token: str, data: Path, runtime: Runtime, log: Logger) -> None:
        folder = data.absolute() / "agent"
        folder.mkdir(parents=True, exist_ok=True)
        self._id = _agent_id(folder / "id")
        self._runtime = runtime
        self._log = log
        client = Client(url, token)
        sources = Sources(folder / "sources", client.get_source)
        self._images = Images(data / "images", sources.ensure)
        self._link = Link(url, token, self._greet, self._receive, log)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="agent")
        self._gpus: list[Gpu] = []
        self._gpu_files: dict[str, str] = {}  # by UUID
        self._containers = Containers(
            folder / "containers",
            url=url,
            runtime=runtime,
            images=self._images,
            sources=sources,
            report=self._link.send,
            threads=self._threads,
            orphan_grace=machine.orphan_grace(os.environ),
            gpu_files=self._gpu_files,
            log=log,
        )
        self._builds: set[asyncio.Task[None]] = set()
        self._memory = machine.memory(os.environ)

    async def run(self, stop: asyncio.Event, *, kill_on_stop: bool) -> None:
        self._begin(self._sweep())
        found = await asyncio.to_thread(machine.gpus, os.environ)
        if found.trouble:
            self._log.warning("GPUs cannot be used", reason=found.trouble)
        self._gpus = found.gpus
        self._gpu_files.update(found.files)
        await self._containers.adopt()
        link = asyncio.create_task(self._link.run())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({link, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if link.done():
                link.result()
        finally:
            stopping.cancel()
            await self._close(link, kill=kill_on_stop)

    async def _close(self, link: asyncio.Task[None], *, kill: bool) -> None:
        await self._containers.stop(kill=kill)
        await asyncio.gather(*self._builds, return_exceptions=True)
        self._runtime.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._link.drain(), _FAREWELL)
        link.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await link
        self._threads.shutdown(wait=False)

    def _greet(self) -> list[AgentToServer]:
        hello = AgentHello(
            agent_id=self._id,
            hostname=socket.gethostname(),
            cpu=machine.cpu(),
            memory=self._memory,
            gpus=self._gpus,
            limits=self._runtime.limits,
            running=self._containers.running(),
            isolation=self._runtime.isolation,
            no_higher=self._runtime.no_higher,
        )
        return [hello, *self._containers.exits()]

    def _receive(self, message: ServerToAgent) -> None:
        match message:
            case Wanted(containers):
                self._containers.apply(containers)
            case Build():
                self._begin(self._build(message))
            case AskImages() | PruneImages():
                self._begin(self._tell_images(message))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._builds.add(task)
        task.add_done_callback(self._builds.discard)

    async def _build(self, build: Build) -> None:
        loop = asyncio.get_running_loop()

        def emit(line: str) -> None:
            loop.call_soon_threadsafe(self._link.send, BuildLog(build.build_id, line))

        try:
            built = await loop.run_in_executor(self._threads, self._images.build, build.spec, build.image, emit)
        except TreadleError as error:
            self._log.info("image could not be built", reason=str(error))
            self._link.send(Built(build.build_id, error=str(error)))
        except Exception as error:  # noqa: BLE001 whoever waits for the build must hear of it
            self._log.error("image could not be built", exc_info=error)
            self._link.send(Built(build.build_id, error=f"The image could not be built: {error}"))
        else:
            if not built.engine_image:
                self._runtime.warm(built.runner)
            self._link.send(Built(build.build_id, built.image, built.cached))


    async def _tell_images(self, asked: AskImages | PruneImages) -> None:
        loop, shelf = asyncio.get_running_loop(), self._images.shelf
        try:
            if isinstance(asked, AskImages):
                images = await loop.run_in_executor(self._threads, shelf.images)
            else:
                prune = partial(shelf.prune, asked.keep, time.time(), dry_run=asked.dry_run)
                images = await loop.run_in_executor(self._threads, prune)
        except OSError as error:
            self._link.send(ImagesTold(asked.ask_id, error=f"The images could not be looked through: {error}."))
        else:
            self._link.send(ImagesTold(asked.ask_id, images))

    async def _sweep(self) -> None:
        """Clear away what builds left that were killed."""
        removed = await asyncio.get_running_loop().run_in_executor(self._threads, self._images.shelf.sweep)
        if removed:
            self._log.info("leftovers of builds removed", names=removed)


def _agent_id(path: Path) -> str:
    """The id that this data folder's agent keeps for life."""
    if not path.exists():
        draft = path.with_suffix(".new")
        draft.write_text(f"agent-{uuid.uuid4().hex}\n")
        draft.replace(path)
    return path.read_text().strip()
