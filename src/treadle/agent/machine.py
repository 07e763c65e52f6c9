"""What this machine has to offer: processors, memory and GPUs."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import psutil

from treadle.model.deployment import parse_memory
from treadle.model.errors import InvalidOption
from treadle.model.wire import ORPHAN_GRACE_SECONDS, Gpu

MIB = 1024 * 1024
RESERVE = 1 / 16
LEAST_RESERVE = 256  # MiB, of a machine that has at least twice as much


def cpu() -> int:
    """Millicores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) * 1000
    return (os.cpu_count() or 1) * 1000


def memory(environ: Mapping[str, str]) -> int:
    """MiB for containers: $TREADLE_MEMORY, else all there is but for RESERVE of it.

    That is main memory, or less where this process is held to less. The rest is for the system, for the server, and
    for what each container has outside of its limit: 6 to 9 MiB for its runner.

    Raises:
        InvalidOption: the variable is not an amount of memory.
    """
    given = environ.get("TREADLE_MEMORY", "")
    if given:
        try:
            return parse_memory(int(given) if given.isdecimal() and len(given) < 20 else given)
        except InvalidOption as error:
            raise InvalidOption(f"TREADLE_MEMORY={given!r} is not allowed.", error.advice) from None
    total = min(int(psutil.virtual_memory().total), *_held_to()) // MIB
    return total - min(max(int(total * RESERVE), LEAST_RESERVE), total // 2)


def orphan_grace(environ: Mapping[str, str]) -> float:
    """Seconds that a container goes on without a server: $TREADLE_ORPHAN_GRACE, else 60.

    Raises:
        InvalidOption: the variable is not a number from 1 to 86400.
    """
    given = environ.get("TREADLE_ORPHAN_GRACE", "") or str(ORPHAN_GRACE_SECONDS)
    with contextlib.suppress(ValueError):
        if 1 <= (seconds := float(given)) <= 86400:
            return seconds
    raise InvalidOption(f"TREADLE_ORPHAN_GRACE={given!r} is not allowed.", "Allowed: seconds from 1 to 86400.")


def _held_to() -> list[int]:
    """Bytes that the cgroups of this process allow, of either version; one that sets no limit says a huge number."""
    found = [2**63]
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        _, controllers, path = line.split(":", 2)
        version2 = controllers == ""
        root = Path("/sys/fs/cgroup") if version2 else Path("/sys/fs/cgroup/memory")
        file = "memory.max" if version2 else "memory.limit_in_bytes"
        if version2 or "memory" in controllers.split(","):
            group = root / path.lstrip("/")
            found += [limit for up in (group, *group.parents) if (limit := _number(up / file)) is not None]
    return found


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # there is none, or "max"
        return None


def _has_driver() -> bool:
    """Whether the library of NVIDIA's driver can be loaded, as it can on few machines."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


class Gpus(msgspec.Struct, frozen=True):
    """The GPUs of a machine. `files`: their device files by UUID, where there are such. `trouble`: why there are none
    although there is a driver."""

    gpus: list[Gpu] = []
    files: dict[str, str] = {}
    trouble: str = ""


def gpus(environ: Mapping[str, str]) -> Gpus:
    """The devices that the NVIDIA driver tells of.

    $TREADLE_FAKE_GPUS names others in their place ("A10G,A10G,T4"), to try how containers are placed on a machine
    that has no such devices.
    """
    names = [name.strip() for name in environ.get("TREADLE_FAKE_GPUS", "").split(",") if name.strip()]
    if names:
        numbers: Counter[str] = Counter()
        return Gpus([_fake(name, numbers) for name in names])
    if not _has_driver():
        return Gpus()
    import pynvml  # type: ignore[import-untyped]  # noqa: PLC0415 - 5000 lines, 2.5 MB

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Gpus(trouble=str(error))
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]
        found = [Gpu(pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle)) for handle in handles]
        files = {gpu.uuid: _file(pynvml, handle) for gpu, handle in zip(found, handles, strict=True)}
        return Gpus(found, {uuid: file for uuid, file in files.items() if file})
    except pynvml.NVMLError as error:
        return Gpus(trouble=str(error))
    finally:
        pynvml.nvmlShutdown()


def _file(pynvml: Any, handle: object) -> str:
    """A device's file, which bears its minor number; "" where a platform has no such files."""
    try:
        return f"/dev/nvidia{pynvml.nvmlDeviceGetMinorNumber(handle)}"
    except pynvml.NVMLError:
        return ""


def _fake(name: str, numbers: Counter[str]) -> Gpu:
    """Named alike at every start, so that an allocation still means the same device."""
    numbers[name] += 1
    return Gpu(f"GPU-fake-{name.lower().replace(' ', '-')}-{numbers[name]}", name)
