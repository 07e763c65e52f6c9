"""A listening server for each file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .listening import Listening


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    server = Listening(tmp_path_factory.mktemp("fuzz"))
    server.deploy()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _nothing_failed(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """A failure that no client sees is one too: the server tells it to its log, with a traceback."""
    yield
    told = "".join(capfd.readouterr())
    assert "Traceback" not in told and "[error" not in told, told[-3000:]
