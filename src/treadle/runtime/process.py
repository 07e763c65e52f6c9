"""The process runtime: a container is a runner in a session of its own, with a memory limit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from treadle.depths import remove
from treadle.model import wire
from treadle.model.container import Isolation
from treadle.runtime import files, limits, processes
from treadle.runtime.base import StartSpec
from treadle.runtime.cgroup import Share
from treadle.runtime.isolation import Shield, scratch_of
from treadle.runtime.limits import Limit
from treadle.runtime.probe import Limits
from treadle.runtime.watchdog import Watchdog
from treadle.runtime.zygote import Lost, Zygotes, status_of

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SWEEPS = 100  # more rounds than that means processes that cannot be killed

Command = Callable[[Path, Path], list[str]]
Status = Callable[[], Awaitable[int | None]]


class State(msgspec.Struct, frozen=True):
    """FOLDER/state.json: how the next agent finds the runner again."""

    pid: int
    identity: str
    started_at: float
    limits: str


def runner_command(python: Path, folder: Path) -> list[str]:
    """`-P`: what lies in the working directory, such as a `queue.py`, must not become the runner's."""
    return [str(python), "-P", "-m", "treadle.runner", str(folder)]


class ProcessRuntime:
    """Starts runners as plain processes: forked by a zygote where there are `zygotes` and one can, else spawned.

    `command` says what is spawned, given the interpreter and the folder; `shield` is what they are shut off by.
    """

    def __init__(
        self,
        mechanism: Limits,
        command: Command = runner_command,
        zygotes: Zygotes | None = None,
        shield: Shield = Shield(),  # noqa: B008 -- frozen
    ) -> None:
        self.limits = mechanism.kind
        self.isolation, self.no_higher = shield.level, shield.no_higher
        self._shield = shield
        self._mechanism = mechanism
        self._command = command
        self._zygotes = zygotes

    def warm(self, python: Path) -> None:
        if self._zygotes is not None:
            self._zygotes.warm(python)

    def close(self) -> None:
        if self._zygotes is not None:
            self._zygotes.close()

    async def start(self, spec: StartSpec) -> ProcessContainer:
        held, home = await asyncio.to_thread(self._prepare, spec)
        try:
            with (spec.folder / "log").open("ab") as log:
                pid, status = await self._launch(spec, self._surroundings(spec, home), log)
        except OSError:
            held.close()
            await _clear(spec.folder)
            raise
        try:
            state = await asyncio.to_thread(_note, spec.folder, pid, held.kind)
        except OSError:  # a full disk, say: it runs, and no next agent would find it
            await _sweep(spec.run.container_id, pid, held)
            await _clear(spec.folder)
            raise
        return ProcessContainer(spec.folder, spec.run.container_id, state, held, status)

    def _surroundings(self, spec: StartSpec, home: Path) -> wire.Surroundings:
        """At level 1 /tmp is the machine's, and closed; above, a container has one of its own."""
        scratch = {"TMPDIR": str(scratch_of(spec.folder))} if self.isolation == Isolation.LANDLOCK else {}
        return wire.Surroundings(scratch | environment(spec, home), str(spec.python))

    def _prepare(self, spec: StartSpec) -> tuple[Limit, Path]:
        """Put the limit in force and tell the runner what it is to do."""
        folder, run = spec.folder, spec.run
        share = Share(memory=run.config.memory * 1024 * 1024, cpu=run.config.cpu)
        held = self._mechanism.make(run.container_id, folder, share)
        try:
            environment = spec.python.parent.parent
            box = self._shield.around(folder, run.config, spec.mounts, spec.gpu_files, environment)
            run = msgspec.structs.replace(
                run, procs_files=held.procs_files, oom_file=held.oom_file, peak_file=held.peak_file, limit=held.limit,
                sandbox=box,
            )  # fmt: skip
            files.write_private(folder / "run.msgpack", wire.encode(run))
            home = folder / "home"
            home.mkdir(exist_ok=True)
        except OSError:
            held.close()
            raise
        return held, home

    async def _launch(self, spec: StartSpec, around: wire.Surroundings, log: BinaryIO) -> tuple[int, Status]:
        """Start the runner: its pid, and how to learn how it has ended."""
        if self._zygotes is not None:
            order = wire.Spawn(spec.run.container_id, str(spec.folder))
            try:
                forked = await self._zygotes.fork(spec.runner, order, around, log)
            except Lost:
                await _sweep(spec.run.container_id, -1, None)
                forked = None
            if forked is not None:
                pid, end = forked
                return pid, lambda: status_of(end)
        process = await asyncio.to_thread(self._spawn, spec, around, log)
        return process.pid, lambda: _exit_of_child(process)

    def _spawn(self, spec: StartSpec, around: wire.Surroundings, log: BinaryIO) -> subprocess.Popen[bytes]:
        """A session of its own, and nothing shared with the agent: no pipe, no death signal.

        Nor does it get anything that the container's user has declared: it is not in the sandbox.
        """
        with files.sheet(wire.encode(around)) as sheet:
            return subprocess.Popen(
                [*self._command(spec.runner, spec.folder), str(sheet.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[sheet.fileno()],
                cwd="/",
                env={**wire.START, processes.MARK: spec.run.container_id},
                start_new_session=True,
            )

    async def adopt(self, folder: Path) -> ProcessContainer | None:
        container_id, held = folder.name, None
        with contextlib.suppress(OSError, msgspec.MsgspecError, limits.Foreign):
            run = msgspec.msgpack.decode(files.read(folder / "run.msgpack"), type=wire.RunSpec)
            state = msgspec.json.decode(files.read(folder / "state.json"), type=State)
            held = limits.reopen(state.limits, folder, run)
            if processes.identity(state.pid) == state.identity and await processes.bears(state.pid, container_id):
                return ProcessContainer(folder, container_id, state, held, lambda: _exit_of_adopted(state.pid))
        await _sweep(container_id, -1, held)
        await _clear(folder)
        return None


class ProcessContainer:
    """A runner and everything it started. Its end is noticed by the kernel's word, not by asking."""

    def __init__(self, folder: Path, container_id: str, state: State, held: Limit, status: Status) -> None:
        self._folder = folder
        self.container_id = container_id
        self.pid = state.pid
        self.started_at = state.started_at
        self.limits = held.kind
        self._identity = state.identity
        self._held = held
        self._status = status
        self._end = asyncio.ensure_future(self._watch())

    def alive(self) -> bool:
        return processes.identity(self.pid) == self._identity

    async def wait(self) -> int | None:
        return await asyncio.shield(self._end)

    def kill(self) -> None:
        """Kill the runner, so that it does not report the deaths of its children; the sweep after it kills those."""
        if self.alive():
            processes.kill([self.pid])

    def release(self) -> None:
        self._end.cancel()

    async def _watch(self) -> int | None:
        watchdog = self._held.watchdog
        guard = asyncio.ensure_future(_guard(watchdog, self.pid)) if watchdog else None
        try:
            if self.alive():
                await processes.gone(self.pid)
        finally:
            if guard:
                guard.cancel()
        status = await self._status()
        await _sweep(self.container_id, self.pid, self._held)
        await _clear(self._folder)
        return status


def _note(folder: Path, pid: int, kind: str) -> State:
    """Write down how the runner is found again."""
    state = State(pid, processes.identity(pid) or "", time.time(), kind)
    files.write_private(folder / "state.json", msgspec.json.encode(state))
    return state


async def _guard(watchdog: Watchdog, runner: int) -> None:
    while True:  # noqa: ASYNC110 there is no event to wait for: memory has to be looked at
        await asyncio.sleep(watchdog.tick(runner))


async def _sweep(container_id: str, session: int, held: Limit | None) -> None:
    """Kill what is left of a container until nothing is, then clear its limit away."""
    for _ in range(_SWEEPS):
        left = await asyncio.to_thread(processes.members, container_id, session)
        left |= set(held.pids() if held else [])
        if not left and (held is None or held.close()):
            return
        ends: list[Awaitable[None]] = [processes.gone(pid) for pid in left] or [asyncio.sleep(0.01)]
        waiting = [asyncio.ensure_future(end) for end in ends]
        if held and left:
            held.kill()
        processes.kill(left)
        _, late = await asyncio.wait(waiting, timeout=1)
        for end in late:
            end.cancel()


async def _clear(folder: Path) -> None:
    """Remove what a container that is gone has outside of its folder."""
    with contextlib.suppress(OSError):  # its end is told all the same
        await asyncio.to_thread(remove, scratch_of(folder))


async def _exit_of_child(process: subprocess.Popen[bytes]) -> int | None:
    return process.poll()


async def _exit_of_adopted(pid: int) -> int | None:
    """The status of a runner that happens to be our child (its first agent lived in this process), else None."""
    with contextlib.suppress(ChildProcessError):
        found, status = os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 it does not wait
        if found == pid:
            return os.waitstatus_to_exitcode(status)
    return None


def environment(spec: StartSpec, home: Path) -> dict[str, str]:
    """A clean environment; what the user declared may set anything but the names Treadle itself fills.

    Where a name comes twice the later wins: image, env, secrets, Treadle's own.
    """
    run, config = spec.run, spec.run.config
    return {
        "PATH": f"{spec.python.parent}:{PATH}",
        "HOME": str(home),
        **wire.START,
        **spec.env,
        **config.image.env_vars,
        **config.env,
        **spec.secrets,
        processes.MARK: run.container_id,
        "STUB_ID": run.deployment_id,
        "STUB_TYPE": run.stub_type,
        "HANDLER": config.handler,
        "WORKERS": str(config.workers),
        "CUDA_VISIBLE_DEVICES": ",".join(run.gpus),  # empty: CUDA sees none
        "KEEP_WARM_SECONDS": str(config.keep_warm_seconds),
        "CALLBACK_URL": config.callback_url or "",
        "TIMEOUT": str(config.timeout),
        "TREADLE_URL": run.url,
        "TREADLE_TOKEN": run.token,
    }

