"""Makes what a task may leave behind: folders in one another, deeper than any path can say."""

from __future__ import annotations

import os
from pathlib import Path

DEEP = 1500  # beyond what recursion gets to, and with these names beyond PATH_MAX


def deepen(folder: Path, levels: int = DEEP) -> None:
    """So many folders in one another below a folder, which is made, with a file in the last one."""
    folder.mkdir(parents=True, exist_ok=True)
    here = os.open(folder, os.O_RDONLY)
    try:
        for _ in range(levels):
            os.mkdir("ddd", dir_fd=here)
            below = os.open("ddd", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    finally:
        os.close(here)
