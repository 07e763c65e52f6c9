"""Processes by number: who they are, when they end, which belong to a container, and ending them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Iterable
from pathlib import Path

import psutil

MARK = "CONTAINER_ID"  # the variable that every process of a container inherits
_LOOKS = 200  # at a process without an environment, until it is held to have none


def identity(pid: int) -> str | None:
    """What tells this process from a later one with the same number; None when it is gone or a zombie.

    On Linux the boot and the start time in kernel ticks: unlike a time of day they do not move with the clock.
    """
    stat = _stat(pid)
    if stat is not None:
        return None if stat[0] in "ZX" else f"{_boot_id()}:{stat[19]}"
    if Path("/proc/self/stat").exists():
        return None
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return str(process.create_time())
    return None


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on (the name before it may contain anything)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


async def gone(pid: int) -> None:
    """Return as soon as the process has ended, child of ours or not."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    if not hasattr(os, "pidfd_open"):
        threading.Thread(target=_wait_blocking, args=(pid, loop, ended), daemon=True).start()
        await ended.wait()
        return
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


def _wait_blocking(pid: int, loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    """Where there are no pidfds: psutil waits (kqueue on macOS)."""
    with contextlib.suppress(psutil.Error):
        psutil.Process(pid).wait()
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(ended.set)


def members(container_id: str, session: int) -> set[int]:
    """Live processes of a container: those in the runner's session, and those that carry its mark.

    The mark finds daemons that left the session and whose parents have ended.
    """
    found = set()
    for pid in psutil.pids():
        if pid == os.getpid():
            continue
        with contextlib.suppress(OSError, psutil.Error):
            process = psutil.Process(pid)
            mine = os.getsid(pid) == session or process.environ().get(MARK) == container_id
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.add(pid)
    return found


async def bears(pid: int, container_id: str) -> bool:
    """Whether this process carries the mark of that container. For a moment in execve(2) it has no environment."""
    with contextlib.suppress(OSError, psutil.Error):
        for _ in range(_LOOKS):
            if environ := psutil.Process(pid).environ():
                return environ.get(MARK) == container_id
            await asyncio.sleep(0.01)
    return False


def kill(pids: Iterable[int]) -> None:
    """SIGKILL; those that are gone already are passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Children, their children and so on, nearest first."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = _children(waiting.pop(0))
        found += children
        waiting += children
    return found


def _children(pid: int) -> list[int]:
    tasks = f"/proc/{pid}/task"
    try:
        lists = [read(f"{tasks}/{thread}/children") for thread in os.listdir(tasks)]  # noqa: PTH208 -- as for `read`
    except OSError:  # ended meanwhile, or a kernel without this file
        return _children_by_parent(pid)
    return [int(child) for children in lists for child in children.split()]


def read(path: str) -> bytes:
    """A file of /proc, whole. A third of what `Path` takes: the watchdog reads some hundred a second."""
    file = os.open(path, os.O_RDONLY)
    try:
        blocks = []
        while block := os.read(file, 1 << 16):
            blocks.append(block)
        return b"".join(blocks)
    finally:
        os.close(file)


def _children_by_parent(pid: int) -> list[int]:
    with contextlib.suppress(psutil.Error):
        return [child.pid for child in psutil.Process(pid).children()]
    return []
