"""A server inside the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .inside import Inside


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    """One server for all tests of a file that leave nothing behind which matters to others; it has a queue `resize`."""
    server = Inside(tmp_path_factory.mktemp("shared"))
    server.deploy()
    yield server
    server.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Inside]:
    server = Inside(tmp_path)
    yield server
    server.close()
