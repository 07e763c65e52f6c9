"""The Docker runtime (isolation level 3; Podman too): a container is one of the engine's, with a root of its own.

Its folder is the agent's. A container sees there by name what it needs, each mounted for itself, so that it can
neither exchange a file for something else nor find what the next agent goes by.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from treadle.model import wire
from treadle.model.container import Isolation
from treadle.model.errors import Unavailable
from treadle.runtime import files, processes
from treadle.runtime.base import StartSpec
from treadle.runtime.cgroup import MAX_PIDS
from treadle.runtime.engine import Engine, EngineFailed, bound
from treadle.runtime.process import Command, environment, runner_command

LABEL = "treadle.container"
LAYER = "/opt/treadle/runner"  # where images look for the runner
RUNNER_MEMORY = 48  # MiB for the runner's parent, which user code does not get
STATE = "docker.json"
_RUN = "run.msgpack"
_LOG = "log"
_ENV = "environment"  # a pipe, never a file: what the container's own processes alone may know
_READ = (_RUN, _ENV)  # of the folder, what the container sees
_WRITTEN = ("code", "home", _LOG, wire.LAST_WORDS)  # and may write
_PATIENCE = 60.0  # seconds from its start until it has taken its environment
_LOOK = 0.005  # seconds between looks whether it has
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 -- the container's own, in memory
_MEMORY = "/sys/fs/cgroup"  # of its own group, as seen inside
_FILES1 = (f"{_MEMORY}/memory/memory.oom_control", f"{_MEMORY}/memory/memory.max_usage_in_bytes")
_FILES2 = (f"{_MEMORY}/memory.events", f"{_MEMORY}/memory.peak")
# Run by the image's interpreter: takes the environment from the pipe, keeps the image's own, and becomes the runner.
_ENTER = """
import json, os, sys
with open(sys.argv[1]) as pipe: given = json.load(pipe)
env = {**os.environ, **given}
env["PATH"] = os.pathsep.join([sys.argv[2], os.environ.get("PATH", os.defpath)])
log = os.open(sys.argv[3], os.O_WRONLY | os.O_APPEND)
os.dup2(log, 1); os.dup2(log, 2)
os.execve(sys.argv[4], sys.argv[4:], env)
"""


class State(msgspec.Struct, frozen=True):
    """FOLDER/docker.json: the next agent has to ask the engine for the container with the folder's name."""

    started_at: float


class DockerRuntime:
    """Starts runners with an engine, in images with an interpreter at `spec.python` (runtime/engine_image.py)."""

    limits = "docker"
    isolation = Isolation.ENGINE
    no_higher = ""

    def __init__(
        self,
        engine: Engine,
        command: Command = runner_command,
        shared: Sequence[str] = (),
        patience: float = _PATIENCE,
    ) -> None:
        self._engine = engine
        self._command = command
        self._patience = patience
        self._shared = shared  # folders of the machine that containers may change

    def warm(self, python: Path) -> None:
        """An engine keeps nothing ready."""

    def close(self) -> None:
        """Nothing is kept."""

    async def start(self, spec: StartSpec) -> DockerContainer:
        if spec.run.config.block_network:
            raise Unavailable("block_network=True cannot be had with an image of Docker or Podman yet.")
        home = await asyncio.to_thread(self._prepare, spec)
        pipe = spec.folder / _ENV
        given = asyncio.ensure_future(_give(pipe, environment(spec, home)))
        try:
            await asyncio.to_thread(self._engine.run, *self._arguments(spec, pipe))
            container = await self._watched(spec.folder, State(time.time()))
            ended = asyncio.ensure_future(container.wait())
            await asyncio.wait({given, ended}, return_when=asyncio.FIRST_COMPLETED, timeout=self._patience)
            if not (given.done() or ended.done()):
                raise EngineFailed(f"its Python has not begun within {self._patience:g} s.")
        except EngineFailed as error:
            await asyncio.to_thread(self._remove, spec.folder.name)
            raise Unavailable(f"{self._engine.program} did not start the container: {error.message}") from None
        finally:
            given.cancel()
        pipe.unlink()  # it has taken its environment: the next agent may adopt it
        return container

    def _prepare(self, spec: StartSpec) -> Path:
        """Tell the runner what it is to do; its home."""
        evidence = _FILES2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else _FILES1
        limit = spec.run.config.memory * 1024 * 1024
        box = wire.Sandbox(level=self.isolation)
        run = msgspec.structs.replace(spec.run, oom_file=evidence[0], peak_file=evidence[1], limit=limit, sandbox=box)
        files.write_private(spec.folder / _RUN, wire.encode(run))
        files.write_private(spec.folder / STATE, msgspec.json.encode(State(time.time())))
        for name in (_LOG, wire.LAST_WORDS):
            files.write_private(spec.folder / name, b"")
        home = spec.folder / "home"
        home.mkdir(exist_ok=True)
        os.mkfifo(spec.folder / _ENV, 0o600)
        return home

    def _arguments(self, spec: StartSpec, pipe: Path) -> list[str]:
        run = spec.run
        memory = f"{run.config.memory + RUNNER_MEMORY}m"
        command = self._command(spec.python, spec.folder)
        return [
            "run", "--detach", "--pull", "never", "--init", "--name", run.container_id, "--hostname", "treadle",
            "--label", f"{LABEL}={run.container_id}",
            "--memory", memory, "--memory-swap", memory, "--cpus", f"{run.config.cpu / 1000:g}",
            "--pids-limit", str(MAX_PIDS), "--shm-size", memory,
            "--read-only", *(part for place in _TEMPORARY for part in ("--tmpfs", f"{place}:rw,exec,nosuid,nodev")),
            *devices(self._engine.program, run.gpus),
            "--network", "host", "--user", f"{os.getuid()}:{os.getgid()}",
            "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--log-driver", "none",
            *self._mounts(spec),
            "--workdir", run.code, "--entrypoint", str(spec.python), spec.image,
            "-I", "-c", _ENTER, str(pipe), str(spec.python.parent), str(spec.folder / _LOG), *command,
        ]  # fmt: skip

    def _mounts(self, spec: StartSpec) -> list[str]:
        """All by the machine's own names, to which the links of volumes in the working directory lead."""
        read, written = ([str(spec.folder / name) for name in names] for names in (_READ, _WRITTEN))
        mounts = [bound(path, path, readonly=True) for path in read]
        mounts += [bound(path, path) for path in (*written, *self._shared)]
        mounts += [bound(volume.source, at) for volume in spec.mounts for at in (volume.source, volume.target)]
        mounts += [bound(str(spec.layer), LAYER, readonly=True)] if spec.layer else []
        return [part for mount in mounts for part in mount]

    async def _watched(self, folder: Path, state: State) -> DockerContainer:
        asked = ["inspect", "--format", "{{.State.Pid}}", folder.name]
        pid = int(await asyncio.to_thread(self._engine.run, *asked))
        return DockerContainer(self._engine, folder, state, pid)

    async def adopt(self, folder: Path) -> DockerContainer | None:
        runs = await asyncio.to_thread(self._has, folder.name)
        if runs and not (folder / _ENV).exists():  # else its agent was killed before it could say who it is
            with contextlib.suppress(OSError, msgspec.MsgspecError, EngineFailed):  # it may have ended meanwhile
                state = msgspec.json.decode(files.read(folder / STATE), type=State)
                container = await self._watched(folder, state)
                if container.alive():
                    return container
                await container.wait()
        await asyncio.to_thread(self._remove, folder.name)
        return None

    def _has(self, name: str, *more: str) -> bool:
        """Whether there is a container with this name, and with the label that says it was started here."""
        asked = ["ps", *more, "--filter", f"label={LABEL}={name}", "--format", "{{.Names}}"]
        return name in self._engine.ask(*asked).splitlines()

    def _remove(self, name: str) -> None:
        """Kill and remove a container if it is one of ours, running or not."""
        if self._has(name, "--all"):
            self._engine.ask("rm", "--force", name)


def devices(program: str, gpus: Sequence[str]) -> list[str]:
    """The arguments that let a container have these GPUs, by UUID.

    Docker takes them by NVIDIA's toolkit (quoted, since it reads a comma as the end of the value), Podman by
    the container device interface that the toolkit writes.
    """
    if program.endswith("podman"):
        return [part for uuid in gpus for part in ("--device", f"nvidia.com/gpu={uuid}")]
    return ["--gpus", f'"device={",".join(gpus)}"'] if gpus else []


class DockerContainer:
    """A container of the engine. What it had started is gone with it. `pid`: 0 if it had ended before it was seen."""

    limits = DockerRuntime.limits

    def __init__(self, engine: Engine, folder: Path, state: State, pid: int) -> None:
        self.container_id = folder.name
        self.started_at = state.started_at
        self.pid = pid
        self._engine = engine
        self._folder = folder
        self._identity = processes.identity(pid) if pid else None
        self._end = asyncio.ensure_future(self._watch())

    def alive(self) -> bool:
        return self._identity is not None and processes.identity(self.pid) == self._identity

    async def wait(self) -> int | None:
        return await asyncio.shield(self._end)

    def kill(self) -> None:
        """Kill its first process, and the kernel ends all others; the engine does it where we may not."""
        if self.alive():
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                return
            except PermissionError:
                asyncio.get_running_loop().run_in_executor(None, self._engine.ask, "kill", self.container_id)

    def release(self) -> None:
        self._end.cancel()

    async def _watch(self) -> int | None:
        """Its first process tells of the end by the kernel; then the engine knows more."""
        if self.alive():
            await processes.gone(self.pid)
        told = await asyncio.to_thread(self._engine.ask, "wait", self.container_id)
        status = int(told) if told.isdigit() else None
        asked = ["inspect", "--format", "{{.State.OOMKilled}}", self.container_id]
        out_of_memory = await asyncio.to_thread(self._engine.ask, *asked) == "true"
        await asyncio.to_thread(self._engine.ask, "rm", "--force", self.container_id)
        words = self._folder / wire.LAST_WORDS
        if out_of_memory and status == 128 + signal.SIGKILL and not files.end_of(words, 1):
            files.write_private(words, b"out of memory: the kernel killed the container's runner\n")
        return 128 - status if status is not None and status > 128 else status


async def _give(pipe: Path, env: dict[str, str]) -> None:
    """Hand the environment to whoever opens the pipe. No thread waits: a strange image's Python may not come."""
    left, file = msgspec.json.encode(env), -1
    try:
        while left:
            try:
                file = file if file >= 0 else os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
                left = left[os.write(file, left) :]
            except OSError as error:
                if error.errno not in (errno.ENXIO, errno.EAGAIN):  # nobody there yet, no room for more
                    return
                await asyncio.sleep(_LOOK)
    finally:
        if file >= 0:
            os.close(file)
