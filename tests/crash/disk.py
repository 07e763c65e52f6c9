"""A disk that is small enough to be filled: a file system in memory, mounted over a folder. Takes root."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

MEBIBYTES = 64


def trouble() -> str:
    """Why no small disk can be had here; "" where it can."""
    if os.geteuid():
        return "mounting takes root"
    probe = Path(f"/tmp/treadle-crash-{os.getpid()}")
    probe.mkdir()
    try:
        SmallDisk(probe).close()
    except OSError as error:
        return str(error)
    finally:
        probe.rmdir()
    return ""


class SmallDisk:
    """Mounted until it is closed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True, mode=0o700)
        self._folder = folder
        self._filler = folder / "filler"
        _run("mount", "-t", "tmpfs", "-o", f"size={MEBIBYTES}m,mode=700", "treadle-crash", str(folder))

    def fill(self, left: int) -> None:
        """Leave `left` bytes free, or fewer."""
        with self._filler.open("ab", buffering=0) as filler:
            for size in (1 << 20, 1 << 12):
                while os.statvfs(self._folder).f_bavail * os.statvfs(self._folder).f_frsize > left:
                    try:
                        filler.write(bytes(size))
                    except OSError:
                        break

    def empty(self) -> None:
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        _run("umount", "--lazy", str(self._folder))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
