"""Whether the process of a server still lives."""

from __future__ import annotations

import psutil

from treadle.sdk.local import ServerFile


def process_of(found: ServerFile) -> psutil.Process | None:
    """The server's process, unless it has ended and its pid belongs to another by now."""
    try:
        process = psutil.Process(found.pid)
        same = abs(process.create_time() - found.started) < 2.0
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def has_ended(process: psutil.Process, timeout: float) -> bool:
    """Wait for the end of a process; one that only its parent has not buried yet counts as ended."""
    try:
        process.wait(timeout)
    except psutil.TimeoutExpired:
        return bool(process.is_running() and process.status() == psutil.STATUS_ZOMBIE)
    return True
