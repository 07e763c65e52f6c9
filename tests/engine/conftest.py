"""A desk to ask verbs at, on a store in memory-backed files where the machine has them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .making import Desk

MEMORY = Path("/dev/shm")


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder where fsync costs nothing, if there is one."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="treadle-test-") as folder:
        yield Path(folder)


@pytest.fixture
def desk(quick_folder: Path) -> Iterator[Desk]:
    desk = Desk(quick_folder)
    yield desk
    desk.close()
