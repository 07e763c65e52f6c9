"""What Treadle costs when it has nothing to do: processor time and memory with one warm container of two children."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.figures import Figure
from benchmarks.marks import MeasureFailed
from benchmarks.place import Place


def idle(place: Place, seconds: float) -> Iterator[Figure]:
    """CPU of server and agent (one process) and of the container over so many idle seconds; then memory of all."""
    place.warm(place.queue("resting"), 20)
    time.sleep(2)
    processes = place.processes()
    before = {process.pid: _cpu(process) for process in processes}
    began = time.monotonic()
    time.sleep(seconds)
    spent = {process.pid: _cpu(process) - before[process.pid] for process in processes}
    percent = 100 / (time.monotonic() - began)
    yield Figure("idle CPU of server and agent", spent[place.pid] * percent, "% of a core")
    others = sum(spent.values()) - spent[place.pid]
    yield Figure("idle CPU of the container", others * percent, "% of a core")
    yield from _memory(place, processes)


def _cpu(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    raise MeasureFailed(f"process {process.pid} ended while it should have been idle")


def _memory(place: Place, processes: list[psutil.Process]) -> Iterator[Figure]:
    """PSS: what is shared is shared out among those who share it."""
    total = 0.0
    for process, role in roles(place, processes):
        memory = pss(process.pid)
        total += memory
        yield Figure(f"memory, {role}", memory, "MB")
    yield Figure("memory, all processes", total, "MB")


def roles(place: Place, processes: list[psutil.Process]) -> Iterator[tuple[psutil.Process, str]]:
    """Each process with what it is, told by its place in the tree: parent, template, then children."""
    containers = str(place.data / "agent" / "containers")
    inside = {process.pid for process in processes if containers in " ".join(process.cmdline())}
    children = 0
    for process in sorted(processes, key=lambda one: one.pid):
        parent = process.ppid()
        if process.pid == place.pid:
            yield process, "server and agent"
        elif process.pid not in inside:
            yield process, "zygote" if "treadle.runner.zygote" in process.cmdline() else process.name()
        elif parent not in inside:
            yield process, "runner"
        elif psutil.Process(parent).ppid() not in inside:
            yield process, "template"
        else:
            children += 1
            yield process, f"child {children}"


def pss(pid: int) -> float:
    """Memory in MiB, what is shared in shares. Raises MeasureFailed."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise MeasureFailed(f"process {pid} shows no PSS")
