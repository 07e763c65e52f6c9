"""What of the machine's files a container may look at: the system, its interpreter and packages."""

# ruff: noqa: PTH110, PTH120 - every start waits for this

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
# What NVIDIA's container toolkit gives to each container with a GPU: no device works without them.
GPU_DRIVER = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")
SHARED_MEMORY = "/dev/shm"  # noqa: S108 -- a folder of the kernel's
NAME_SERVERS = "/etc/resolv.conf"  # often a link to somewhere below /run


def looked_at(environment: str) -> list[str]:
    """Existing folders and files: the system's, then those from which this very interpreter runs and imports, and
    the folder of the image's, "" for none."""
    python = [sys.base_prefix, sys.base_exec_prefix, sys.prefix, os.path.dirname(os.path.realpath(sys.executable))]
    names = dict.fromkeys([*SYSTEM, *python, *sys.path, environment, os.path.realpath(NAME_SERVERS)])
    return [name for name in names if name.startswith("/") and name != "/" and os.path.exists(name)]


def devices(gpu_files: list[str]) -> list[str]:
    """Device files that a container may open: everybody's, its own GPUs' and with them those that drive all GPUs."""
    return [*DEVICES, *(GPU_DRIVER if gpu_files else ()), *gpu_files]


def below(path: str, others: Iterable[str]) -> bool:
    """Whether a path is one of the others, or inside one."""
    return any(path == other or path.startswith(f"{other}/") for other in others)


def without(place: str, hidden: list[str]) -> list[str]:
    """The parts of a place that neither are hidden nor hold what is; links are left out, their ends have a say."""
    inside = [one for one in hidden if below(one, [place])]
    if not inside:
        return [place]
    if place in inside:
        return []
    parts = (entry.path for entry in os.scandir(place) if not entry.is_symlink())
    return [part for path in parts for part in without(path, inside)]
