"""What the kernel shows others of this process: the command line and environment it was started with, rewritten."""

from __future__ import annotations

import ctypes
from pathlib import Path

MARK = "CONTAINER_ID"  # the variable by which the processes of a container are found


class Label:
    """The memory behind /proc/PID/cmdline and /proc/PID/environ. Forks keep what is written there.

    A forked process would otherwise show what its zygote was started with. Nothing but the kernel may still read the
    environment there: clear `os.environ` first.
    """

    def __init__(self) -> None:
        stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        self._args, self._args_end, self._env, self._env_end = map(int, stat[45:49])

    def title(self, text: str) -> None:
        """Show this as the command line."""
        room = self._args_end - self._args
        data = text.encode()[: room - 2].ljust(room - 1, b"\0")
        ctypes.memmove(self._args, data + b".", room)  # whose last byte is not 0 has written a text of its own there

    def mark(self, container_id: str) -> None:
        """Show this as the container in the environment, and nothing else."""
        room = self._env_end - self._env
        data = f"{MARK}={container_id}".encode() if container_id else b""
        ctypes.memmove(self._env, data[: room - 1].ljust(room, b"\0"), room)
