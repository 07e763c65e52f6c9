"""The containers of one machine: prepared, started, adopted, watched, killed and reported."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path

import msgspec

from treadle.agent import volumes
from treadle.agent.reconcile import Forget, Kill, Known, ReportLost, Start, State, reconcile
from treadle.agent.sources import Sources
from treadle.depths import remove
from treadle.lines import Logger
from treadle.model.errors import TreadleError
from treadle.model.wire import LAST_WORDS, ContainerSpec, Exited, Mount, RunSpec
from treadle.runtime import files
from treadle.runtime.base import Running, Runtime, StartSpec
from treadle.runtime.image import Built, Images

_TAIL = 4096  # bytes at the end of a log that are looked at when a runner failed
_TAIL_LINES = 20  # of them are told
_LINE = 200  # characters of its last line that are told
STOPPED = "stopped: it was not wanted any more"


class _Unwanted(Exception):
    """It was given up while it was being prepared."""


class _Known(Known):
    running: Running | None = None
    exited: Exited | None = None
    task: asyncio.Task[None] | None = None


class Containers:
    """Holds every container of this agent. `report` is called once for each that is over."""

    def __init__(
        self,
        folder: Path,
        *,
        url: str,
        runtime: Runtime,
        images: Images,
        sources: Sources,
        report: Callable[[Exited], None],
        threads: Executor,
        orphan_grace: float,
        gpu_files: Mapping[str, str],
        log: Logger,
    ) -> None:
        self._folder = folder
        self._url = url
        self._orphan_grace = orphan_grace
        self._gpu_files = gpu_files
        self._runtime = runtime
        self._images = images
        self._sources = sources
        self._report = report
        self._threads = threads
        self._log = log
        self._closing = False
        self._known: dict[str, _Known] = {}
        self._wanted: dict[str, ContainerSpec] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def running(self) -> list[str]:
        """Ids of those that are not over."""
        return [container_id for container_id, known in self._known.items() if known.state is not State.EXITED]

    def exits(self) -> list[Exited]:
        """Reports that the server has not answered yet (it answers by not wanting the container any more)."""
        return [known.exited for known in self._known.values() if known.exited]

    async def adopt(self) -> None:
        """Take over what an earlier agent left running, and clear away what it left dead."""
        for folder in sorted(self._folder.iterdir()):
            try:
                running = await self._runtime.adopt(folder)
            except Exception as error:  # noqa: BLE001 whatever it is, the others are not to suffer from it
                self._log.error("container could not be adopted", container=folder.name, exc_info=error)
                continue
            if running is None:
                await self._clear(folder)
                continue
            self._log.info("container adopted", container=running.container_id, pid=running.pid)
            gpus, deployment_id = await asyncio.to_thread(_started_with, folder)
            known = _Known(State.RUNNING, gpus, deployment_id, running)
            self._known[running.container_id] = known
            known.task = asyncio.create_task(self._hold(running.container_id, known))

    def apply(self, wanted: Sequence[ContainerSpec]) -> None:
        """Make the containers those that are wanted."""
        self._wanted = {spec.container_id: spec for spec in wanted}
        self._reconcile()

    def _reconcile(self) -> None:
        if self._closing:
            return
        for action in reconcile(self._wanted.values(), self._known):
            match action:
                case Start(spec):
                    known = self._known[spec.container_id] = _Known(State.STARTING, spec.gpus, spec.deployment_id)
                    known.task = asyncio.create_task(self._live(spec, known))
                case ReportLost(container_id):
                    known = self._known[container_id] = _Known(State.EXITED)
                    self._over(known, Exited(container_id, "its processes are gone"))
                case Kill(container_id):
                    self._kill(self._known[container_id])
                case Forget(container_id):
                    del self._known[container_id]

    async def stop(self, *, kill: bool) -> None:
        """Kill all and wait until they are gone; or let go of them, for the next agent."""
        self._closing = True
        tasks = [known.task for known in self._known.values() if known.task]
        for known in self._known.values():
            if kill and known.state is not State.EXITED:
                self._kill(known)
            elif known.running:
                known.running.release()
        self._images.stop()
        if not kill:
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _kill(self, known: _Known) -> None:
        known.state = State.STOPPING
        if known.running:
            known.running.kill()

    async def _live(self, spec: ContainerSpec, known: _Known) -> None:
        """The whole life of a container started here."""
        folder = self._folder / spec.container_id
        try:
            known.running = await self._start(spec, folder, known)
        except Exception as error:  # noqa: BLE001 whatever it is, it is why this container did not start
            await self._end(known, self._not_started(spec.container_id, known, error))
            return
        if known.state is State.STOPPING:
            known.running.kill()
        else:
            known.state = State.RUNNING
            self._log.info("container started", container=spec.container_id, pid=known.running.pid)
        await self._hold(spec.container_id, known)

    def _not_started(self, container_id: str, known: _Known, error: Exception) -> Exited:
        if known.state is State.STOPPING:
            return Exited(container_id, STOPPED)
        if not isinstance(error, TreadleError | OSError):
            self._log.error("container could not be started", container=container_id, exc_info=error)
        return Exited(container_id, f"could not be started: {_told(error)}", failed=True)

    async def _start(self, spec: ContainerSpec, folder: Path, known: _Known) -> Running:
        loop = asyncio.get_running_loop()
        built, mounts = await loop.run_in_executor(self._threads, self._prepare, spec, folder, known)
        _check(known)
        run = RunSpec(
            url=self._url,
            container_id=spec.container_id,
            deployment_id=spec.deployment_id,
            token=spec.token,
            config=spec.config,
            code=str(folder / "code"),
            python=built.image.python,
            stub_type=spec.stub_type,
            gpus=spec.gpus,
            orphan_grace=self._orphan_grace,
        )
        env = dict(spec.image.spec.env_vars)
        start = StartSpec(folder, built.python, built.runner, run, env, spec.secrets, mounts)
        gpu_files = [self._gpu_files[one] for one in spec.gpus if one in self._gpu_files]
        return await self._runtime.start(
            msgspec.structs.replace(start, gpu_files=gpu_files, image=built.engine_image, layer=built.layer)
        )

    def _prepare(self, spec: ContainerSpec, folder: Path, known: _Known) -> tuple[Built, list[Mount]]:
        """Make sure of the image, of the container's own copy of the source, and of its volumes."""
        image = self._images.ensure(spec.image, _unheard)
        _check(known)
        source = self._sources.ensure(spec.source_id)
        _check(known)
        remove(folder)
        folder.mkdir(mode=0o700)
        shutil.copytree(source, folder / "code", symlinks=True)
        return image, volumes.lay_out(folder / "code", spec.mounts)

    async def _hold(self, container_id: str, known: _Known) -> None:
        """Wait for the end of a running container and report it."""
        assert known.running is not None
        status = await known.running.wait()
        folder = self._folder / container_id
        reason = await asyncio.to_thread(_reason, folder, status, known.state)
        tail = await asyncio.to_thread(_tail, folder / "log") if status else ""
        await self._end(known, Exited(container_id, reason, tail=tail))

    async def _end(self, known: _Known, exited: Exited) -> None:
        await self._clear(self._folder / exited.container_id)
        self._log.info("container ended", container=exited.container_id, reason=exited.reason)
        self._over(known, exited)
        self._reconcile()  # another may have waited for this end

    async def _clear(self, folder: Path) -> None:
        """Remove the folder of a container that is over; what stays of it, the next agent tries again."""
        try:
            await asyncio.to_thread(remove, folder)
        except OSError as error:
            self._log.warning("folder of a container could not be removed", container=folder.name, error=str(error))

    def _over(self, known: _Known, exited: Exited) -> None:
        """Remember the end for as long as the server wants the container, so that it is never started again."""
        known.state, known.running = State.EXITED, None
        if exited.container_id in self._wanted:
            known.exited = exited
        else:
            self._known.pop(exited.container_id, None)
        self._report(exited)


def _told(error: Exception) -> str:
    """Of the many files that a copy of the source has failed for, the first."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        _, file, why = error.args[0][0]
        return f"{file}: {why}"
    return str(error)


def _check(known: _Known) -> None:
    if known.state is State.STOPPING:
        raise _Unwanted


def _unheard(_line: str) -> None:
    """Nobody follows the build of an image that a container needs: it was built when it was deployed."""


def describe(status: int | None) -> str:
    """What ended a runner, in words."""
    if status is None:
        return "ended (its exit code is not known: what had started it ended before it)"
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        return f"killed by signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"killed by signal {-status}"


def _reason(folder: Path, status: int | None, state: State) -> str:
    """Why a container ended, in one line: by its runner's own words, else by what was done to it or its exit code."""
    words = _last_line(folder / LAST_WORDS)
    if words:
        return words
    if state is State.STOPPING:
        return STOPPED
    said = describe(status)
    line = "" if status in (0, None) else _last_line(folder / "log")
    return f"{said}: {line}" if line else said


def _started_with(folder: Path) -> tuple[tuple[str, ...], str]:
    """The devices and the deployment of a container that an earlier agent has started."""
    try:
        run = msgspec.msgpack.decode(files.read(folder / "run.msgpack"), type=RunSpec)
    except (OSError, msgspec.MsgspecError):
        return (), ""
    return run.gpus, run.deployment_id


def _end_of(path: Path) -> list[str]:
    return files.end_of(path, _TAIL).decode(errors="replace").split("\n")


def _tail(path: Path) -> str:
    """The last lines of a log."""
    return "\n".join(_end_of(path)[-_TAIL_LINES:]).strip("\n")


def _last_line(path: Path) -> str:
    """The last line that is not empty, cut where it is very long; "" where there is none."""
    lines = _end_of(path)
    line = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return line if len(line) <= _LINE else f"{line[: _LINE - 1]}…"
