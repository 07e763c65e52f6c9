"""The Docker runtime (isolation level 3; Podman too): a container is one of the engine's, with a root of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from treadle.model import wire
from treadle.model.container import Isolation
from treadle.model.errors import Unavailable
from treadle.runtime import processes
from treadle.runtime.base import StartSpec
from treadle.runtime.cgroup import MAX_PIDS
from treadle.runtime.engine import Engine, EngineFailed
from treadle.runtime.process import environment, runner_command, write_private

LABEL = "treadle.container"
LAYER = "/opt/treadle/runner"  # where images look for the runner
RUNNER_MEMORY = 48  # MiB for the runner's parent, which user code does not get
STATE = "docker.json"
_ENV = "environment"  # a pipe, never a file: what the container's own processes alone may know
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 -- the container's own, in memory
_MEMORY = "/sys/fs/cgroup"  # of its own group, as seen inside
_FILES1 = (f"{_MEMORY}/memory/memory.oom_control", f"{_MEMORY}/memory/memory.max_usage_in_bytes")
_FILES2 = (f"{_MEMORY}/memory.events", f"{_MEMORY}/memory.peak")
# Run by the image's interpreter: takes the environment from the pipe, keeps the image's own, and becomes the runner.
# Without the pipe it has all that it needs, so that an agent that comes later adopts it.
_ENTER = """
import json, os, sys
with open(sys.argv[1]) as pipe: given = json.load(pipe)
try: os.unlink(sys.argv[1])
except FileNotFoundError: pass
env = {**os.environ, **given}
env["PATH"] = os.pathsep.join([sys.argv[2], os.environ.get("PATH", os.defpath)])
log = os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
os.dup2(log, 1); os.dup2(log, 2)
os.execve(sys.argv[4], sys.argv[4:], env)
"""

Command = Callable[[Path, Path], list[str]]


class State(msgspec.Struct, frozen=True):
    """FOLDER/docker.json: the next agent has to ask the engine."""

    container_id: str
    started_at: float


class DockerRuntime:
    """Starts runners with an engine, in images with an interpreter at `spec.python` (runtime/engine_image.py)."""

    limits = "docker"
    isolation = Isolation.ENGINE
    no_higher = ""

    def __init__(self, engine: Engine, command: Command = runner_command, shared: Sequence[str] = ()) -> None:
        self._engine = engine
        self._command = command
        self._shared = shared  # folders of the machine that containers may change

    def warm(self, python: Path) -> None:
        """An engine keeps nothing ready."""

    def close(self) -> None:
        """Nothing is kept."""

    async def start(self, spec: StartSpec) -> DockerContainer:
        if spec.run.config.block_network:
            raise Unavailable("block_network=True cannot be had with an image of Docker or Podman yet.")
        home = await asyncio.to_thread(self._prepare, spec)
        pipe, name = spec.folder / _ENV, spec.run.container_id
        given = asyncio.ensure_future(asyncio.to_thread(_give, pipe, environment(spec, home)))
        try:
            await asyncio.to_thread(self._engine.run, *self._arguments(spec, pipe))
            container = await self._watched(spec.folder, State(name, time.time()))
            ended = asyncio.ensure_future(container.wait())
            await asyncio.wait({given, ended}, return_when=asyncio.FIRST_COMPLETED)
        except EngineFailed as error:
            await asyncio.to_thread(self._engine.ask, "rm", "--force", name)
            raise Unavailable(f"{self._engine.program} did not start the container: {error.message}") from None
        finally:
            _let_go(pipe)
            await given
        return container

    def _prepare(self, spec: StartSpec) -> Path:
        """Tell the runner what it is to do; its home."""
        files = _FILES2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else _FILES1
        limit = spec.run.config.memory * 1024 * 1024
        box = wire.Sandbox(level=self.isolation)
        run = msgspec.structs.replace(spec.run, oom_file=files[0], peak_file=files[1], limit=limit, sandbox=box)
        write_private(spec.folder / "run.msgpack", wire.encode(run))
        write_private(spec.folder / STATE, msgspec.json.encode(State(run.container_id, time.time())))
        home = spec.folder / "home"
        home.mkdir(exist_ok=True)
        os.mkfifo(spec.folder / _ENV, 0o600)
        return home

    def _arguments(self, spec: StartSpec, pipe: Path) -> list[str]:
        run, folder = spec.run, str(spec.folder)
        memory = f"{run.config.memory + RUNNER_MEMORY}m"
        mounts = [f"type=bind,source={path},target={path}" for path in (folder, *self._shared)]
        for volume in spec.mounts:  # links in the working directory lead to the machine's own names
            mounts += [f"type=bind,source={volume.source},target={at}" for at in (volume.source, volume.target)]
        mounts += [f"type=bind,source={spec.layer},target={LAYER},readonly"] if spec.layer else []
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
            *(part for mount in mounts for part in ("--mount", mount)),
            "--workdir", run.code, "--entrypoint", str(spec.python), spec.image,
            "-I", "-c", _ENTER, str(pipe), str(spec.python.parent), f"{folder}/log", *command,
        ]  # fmt: skip

    async def _watched(self, folder: Path, state: State) -> DockerContainer:
        asked = ["inspect", "--format", "{{.State.Pid}}", state.container_id]
        pid = int(await asyncio.to_thread(self._engine.run, *asked))
        return DockerContainer(self._engine, folder, state, pid)

    async def adopt(self, folder: Path) -> DockerContainer | None:
        try:
            state = msgspec.json.decode((folder / STATE).read_bytes(), type=State)
        except (OSError, msgspec.MsgspecError):
            return None
        found = ["ps", "--quiet", "--filter", f"label={LABEL}={state.container_id}"]
        listed = await asyncio.to_thread(self._engine.ask, *found)
        if listed and not (folder / _ENV).exists():  # else its agent was killed before it could say who it is
            with contextlib.suppress(EngineFailed):  # it has ended between the two questions
                container = await self._watched(folder, state)
                if container.alive():
                    return container
                await container.wait()
        await asyncio.to_thread(self._engine.ask, "rm", "--force", state.container_id)
        return None


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
        self.container_id = state.container_id
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
        if out_of_memory and status == 128 + signal.SIGKILL and not (self._folder / wire.LAST_WORDS).exists():
            (self._folder / wire.LAST_WORDS).write_text("out of memory: the kernel killed the container's runner\n")
        return 128 - status if status is not None and status > 128 else status


def _give(pipe: Path, env: dict[str, str]) -> None:
    """Hand the environment to whoever opens the pipe; returns when it is read, or there will be nobody."""
    with contextlib.suppress(BrokenPipeError), pipe.open("w") as file:
        file.write(msgspec.json.encode(env).decode())


def _let_go(pipe: Path) -> None:
    """End the wait of a giver whose container never came, and the pipe with it."""
    with contextlib.suppress(FileNotFoundError):
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        pipe.unlink()
        os.close(reader)
