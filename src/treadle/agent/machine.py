"""What this machine has to offer: processors, memory and GPUs."""

from __future__ import annotations

import os

import psutil


def cpu() -> int:
    """Millicores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) * 1000
    return (os.cpu_count() or 1) * 1000


def memory() -> int:
    """MiB of main memory."""
    return int(psutil.virtual_memory().total) // (1024 * 1024)


def gpus(fake: str) -> list[str]:
    """Names of the GPUs; `fake` is a list of names with commas, to try placement without any."""
    return [name.strip() for name in fake.split(",") if name.strip()]
