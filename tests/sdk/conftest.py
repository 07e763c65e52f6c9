"""A peer that speaks HTTP for the tests of the client and the SDK."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sdk.peer import TOKEN, Peer
from treadle.client import Client


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A running peer."""
    started = Peer()
    yield started
    started.close()


@pytest.fixture
def client(peer: Peer) -> Client:
    """A client of the peer with the right token."""
    return Client(peer.url, TOKEN)


@pytest.fixture
def configured(peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Peer:
    """The peer, named in the environment as the server to use."""
    monkeypatch.setenv("TREADLE_URL", peer.url)
    monkeypatch.setenv("TREADLE_TOKEN", TOKEN)
    monkeypatch.setenv("TREADLE_DATA", str(tmp_path / "data"))
    return peer
