"""What was measured on: the machine, its disk, how busy others kept it, and the versions."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import apsw
import psutil

from benchmarks.load import percentile

ROOT = Path(__file__).parents[1]
MEMORY_FILE_SYSTEMS = {"tmpfs", "ramfs", "devtmpfs"}


def file_system(folder: Path) -> str:
    """The type of the file system that holds this folder."""
    inside = [part for part in psutil.disk_partitions(all=True) if folder.resolve().is_relative_to(part.mountpoint)]
    return max(inside, key=lambda part: len(part.mountpoint)).fstype if inside else "unknown"


def fsync_milliseconds(folder: Path, count: int = 300) -> tuple[float, float]:
    """p50 and p99 of appending 4 KiB to a file and fsync."""
    path, took = folder / "fsync", []
    with path.open("wb", buffering=0) as file:
        for _ in range(count):
            began = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    path.unlink()
    return percentile(took, 0.5), percentile(took, 0.99)


def busy(seconds: float = 0.5) -> float:
    """The share of all cores that others keep busy while we do nothing."""
    return psutil.cpu_percent(seconds) / 100


def describe(folder: Path) -> dict[str, Any]:
    """All of it, for the JSON and the page."""
    p50, p99 = fsync_milliseconds(folder)
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "kernel": platform.release(),
        "file_system": file_system(folder),
        "fsync_ms_p50": round(p50, 3),
        "fsync_ms_p99": round(p99, 3),
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "treadle": version("treadle"),
        "commit": _commit(),
        "uvicorn": version("uvicorn"),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _commit() -> str:
    """The commit that is checked out, marked when the sources differ from it."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        return os.environ.get("BENCH_COMMIT", "unknown")
    head = _git("rev-parse", "--short", "HEAD")
    return f"{head} with changes" if _git("status", "--porcelain", "--", "src") else head


def _git(*args: str) -> str:
    done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()
