"""A server and a runner for each test; no process outlives its test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .link_server import Server
from .running import Runner


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def runner(tmp_path: Path, server: Server) -> Iterator[Runner]:
    runner = Runner(tmp_path, server)
    yield runner
    runner.end()
