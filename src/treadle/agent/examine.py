"""What this machine gives to containers, and what stands in the way: one finding for each thing."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import msgspec

from treadle.agent import machine
from treadle.model.container import Isolation
from treadle.model.errors import TreadleError
from treadle.model.settings import Settings
from treadle.runtime import engine, isolation, probe
from treadle.runtime.cgroup import CPU, PIDS
from treadle.runtime.limits import WATCHDOG

OLDEST_PYTHON = (3, 11)
SYNCS = 20
SLOW_SYNC = 0.020  # seconds


class Verdict(StrEnum):
    """`fault`: Treadle does not run like this. `note`: it runs, with less than it could have."""

    OK = "ok"
    NOTE = "note"
    FAULT = "fault"


class Finding(msgspec.Struct, frozen=True):
    """What was looked at, what is there, and what to do about it if there is something to do."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def examine(settings: Settings, *, ours: bool) -> list[Finding]:
    """Look at everything, by trying it. `ours`: a server of this data folder runs, and has the port."""
    looks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", _python),
        ("system", _system),
        ("data folder", lambda: _data(settings.data)),
        ("disk", lambda: _disk(settings.data)),
        ("port", lambda: _port(settings, ours=ours)),
        ("limits", _limits),
        ("isolation", lambda: _isolation(settings.data)),
        ("gpu", _gpu),
        ("docker", _engine),
    ]
    return [_look(name, look) for name, look in looks]


def _look(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except TreadleError as error:
        return Finding(name, Verdict.FAULT, error.message, error.advice)
    except OSError as error:
        return Finding(name, Verdict.FAULT, str(error))


def _python() -> Finding:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return Finding("python", Verdict.OK, found)
    return Finding("python", Verdict.FAULT, found, f"Python {'.'.join(map(str, OLDEST_PYTHON))} or newer is needed.")


def _system() -> Finding:
    cores, memory = machine.cpu() / 1000, machine.memory(os.environ)
    found = f"{platform.system()} {platform.release()}, {platform.machine()}, {cores:g} cores, {memory} MiB"
    if sys.platform == "linux":
        return Finding("system", Verdict.OK, found)
    return Finding("system", Verdict.NOTE, found, "Limits by the kernel, isolation and fast starts take Linux.")


def _data(data: Path) -> Finding:
    place = _existing(data)
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding("data folder", Verdict.FAULT, f"{data} cannot be written", "Choose another one: TREADLE_DATA.")
    free = shutil.disk_usage(place).free / 1e9
    found = f"{data}, {free:.0f} GB free" + ("" if data.exists() else " (it will be made)")
    if free < 1:
        return Finding("data folder", Verdict.NOTE, found, "Images and outputs need more room.")
    return Finding("data folder", Verdict.OK, found)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _disk(data: Path) -> Finding:
    """How long a small write takes until it is safe: every accepted task waits for one."""
    took = []
    with tempfile.TemporaryFile(dir=_existing(data)) as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    typical = statistics.median(took)
    found = f"4 KiB and fsync take {typical * 1000:.2f} ms (median of {SYNCS}), {max(took) * 1000:.2f} ms at most"
    if typical > SLOW_SYNC:
        return Finding("disk", Verdict.NOTE, found, "Each id waits for this. A local SSD takes 0.1 to 2 ms.")
    return Finding("disk", Verdict.OK, found)


def _port(settings: Settings, *, ours: bool) -> Finding:
    where = f"{settings.host} port {settings.port}"
    if ours:
        return Finding("port", Verdict.OK, f"a server of this data folder runs at {settings.url}")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((settings.host, settings.port))
        except OSError as error:
            advice = "Choose another one: `treadle up --port N`."
            return Finding("port", Verdict.FAULT, f"{where}: {error.strerror}", advice)
    return Finding("port", Verdict.OK, f"{where} is free")


def _limits() -> Finding:
    limits = probe.probe(os.environ.get("TREADLE_LIMITS", "auto"))
    held = {"cpu": limits.by(CPU), "pids": limits.by(PIDS)}
    others = ", ".join(f"{name} by {by or 'nothing'}" for name, by in held.items())
    found = f"memory is held by {limits.kind}; {others}"
    if limits.kind == WATCHDOG or not all(held.values()):
        advice = "The kernel holds all three where the agent runs as root, or as a user of systemd with cgroups 2."
        return Finding("limits", Verdict.NOTE, found, advice)
    return Finding("limits", Verdict.OK, found)


def _isolation(data: Path) -> Finding:
    shared = os.environ.get("TREADLE_SHARED_FOLDERS", "")
    shield = isolation.probe(os.environ.get("TREADLE_ISOLATION", "auto"), data, shared)
    found = f"level {shield.level.value} ({shield.level.name.lower()}); not more, because: {shield.no_higher}"
    if shield.level < Isolation.NAMESPACES:
        return Finding("isolation", Verdict.NOTE, found, "See docs/guides/isolation.md for what each level holds.")
    return Finding("isolation", Verdict.OK, found)


def _gpu() -> Finding:
    found = machine.gpus(os.environ)
    if found.trouble:
        advice = "Containers get no GPU here until the driver works: see nvidia-smi."
        return Finding("gpu", Verdict.NOTE, f"the driver does not work: {found.trouble}", advice)
    return Finding("gpu", Verdict.OK, ", ".join(gpu.name for gpu in found.gpus) or "none")


def _engine() -> Finding:
    found, why = engine.find()
    used = "base images, Dockerfiles and system packages (isolation level 3)"
    if found is None:
        return Finding("docker", Verdict.OK, f"{why} Only {used} need one.")
    return Finding("docker", Verdict.OK, f"{found.program} answers: {used} can be used")
