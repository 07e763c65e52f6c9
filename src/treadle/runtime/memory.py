"""How much memory processes use, as far as it can be told from outside: by proc(5), or psutil where that is not."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from treadle.runtime import processes

PAGE = os.sysconf("SC_PAGE_SIZE")
SHM = Path("/dev/shm")  # noqa: S108 -- looked at, not written
MOUNTS_SECONDS = 1.0  # for which a list of mounts is believed


class Proportion(NamedTuple):
    """Bytes of a process, pages shared with others divided among their users. `shared`: those of memory file systems
    and shared mappings; `own`: all others."""

    own: int
    shared: int


def resident(pid: int) -> int:
    """Bytes of memory in use by a process, shared pages counted in full; 0 when it is gone."""
    try:
        return int(processes.read(f"/proc/{pid}/statm").split()[1]) * PAGE
    except (OSError, IndexError):
        pass
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def proportional(pid: int) -> Proportion:
    """What `smaps_rollup` says; `resident` where there is none."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return Proportion(resident(pid), 0)
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if "Pss" in name}
    shared = kib.get("Pss_Shmem", 0)
    return Proportion((kib.get("Pss", 0) - shared) * 1024, shared * 1024)


class SharedFiles:
    """What a container's processes have put into memory file systems, mapped or not.

    Those that only the container sees are counted as the kernel does. In the machine's own /dev/shm those files are
    counted that one of its processes was seen to hold open; they are looked for whenever it has grown.
    """

    def __init__(self) -> None:
        self._size = _size(SHM)
        self._device = SHM.stat().st_dev if SHM.exists() else 0
        self._files: dict[int, str] = {}  # inode -> a path to it
        self._mounts: dict[int, tuple[float, list[str]]] = {}  # mount namespace -> until when; mount points

    def used(self, pids: Sequence[int], now: float) -> int:
        """Bytes, at this moment; `now` in seconds of any clock."""
        size = _size(SHM)
        if size > self._size:
            for pid in pids:
                self._find(pid)
        self._size = size
        return self._in_files() + self._in_mounts(pids, now)

    def _find(self, pid: int) -> None:
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as found:
            for entry in found:
                with contextlib.suppress(OSError):
                    file = entry.stat()
                    if file.st_dev == self._device and stat.S_ISREG(file.st_mode):
                        # an unlinked file lives for as long as it is open
                        self._files[file.st_ino] = str(Path(entry.path).readlink()) if file.st_nlink else entry.path

    def _in_files(self) -> int:
        total = 0
        for inode, path in list(self._files.items()):
            try:
                file = os.stat(path)  # noqa: PTH116 -- a hundred times a second
            except OSError:
                file = None
            if file is not None and file.st_ino == inode and file.st_dev == self._device:
                total += file.st_blocks * 512
            else:
                del self._files[inode]
        return total

    def _in_mounts(self, pids: Sequence[int], now: float) -> int:
        total = 0
        spaces = {_namespace(pid): pid for pid in pids}
        for space, pid in spaces.items():
            if space in (0, _namespace(os.getpid())):
                continue
            until, points = self._mounts.get(space, (0.0, []))
            if now >= until:
                points = _own_mounts(pid)
                self._mounts[space] = (now + MOUNTS_SECONDS, points)
            total += sum(_size(Path(f"/proc/{pid}/root{point}")) for point in points)
        return total


def _size(mount: Path) -> int:
    """Bytes in use in a file system; 0 where there is none."""
    try:
        found = os.statvfs(mount)
    except OSError:
        return 0
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def _namespace(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino  # noqa: PTH116 -- a hundred times a second
    except OSError:
        return 0


def _own_mounts(pid: int) -> list[str]:
    """Where a process has memory file systems that this process does not see."""
    seen = {device for device, _ in _memory_mounts("self")}
    return list({device: point for device, point in _memory_mounts(str(pid)) if device not in seen}.values())


def _memory_mounts(pid: str) -> list[tuple[str, str]]:
    """Device and mount point of each tmpfs (proc_pid_mountinfo(5))."""
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    except OSError:
        return []
    return [(line.split()[2], line.split()[4]) for line in lines if " - tmpfs " in line]
