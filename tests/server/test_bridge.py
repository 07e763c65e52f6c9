"""When what is asked of the engine becomes a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from .inside import Inside


class Seen:
    """Verbs that note the time of their transaction."""

    def __init__(self) -> None:
        self.told: list[float] = []
        self.asked: list[float] = []

    def tell(self, now: float, requests: Sequence[None]) -> Sequence[None]:
        self.told += [now] * len(requests)
        return requests

    def ask(self, now: float, requests: Sequence[None]) -> Sequence[None]:
        self.asked += [now] * len(requests)
        return requests


def test_what_is_not_urgent_goes_with_the_next_transaction(server: Inside) -> None:
    """A report that nobody waits for shares the commit of the request that comes after it."""
    seen = Seen()

    async def both() -> None:
        server.bridge.tell(seen.tell, None, urgent=False)
        assert seen.told == []
        await server.bridge.ask(seen.ask, None)

    server.wait(both())
    assert seen.told == seen.asked != []


def test_what_is_not_urgent_is_not_forgotten(server: Inside) -> None:
    """Without another request it becomes a transaction of its own; what comes later makes another."""
    seen = Seen()

    async def alone() -> None:
        server.bridge.tell(seen.tell, None, urgent=False)

    server.wait(alone())
    server.until(lambda: seen.told)
    server.ask(seen.ask)
    assert len(seen.told) == len(seen.asked) == 1
    assert seen.told != seen.asked


def test_what_is_not_urgent_has_a_patience_of_its_own(server: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of something before it, which has gone with others meanwhile, does not end it."""
    seen = Seen()

    async def one_after_the_other() -> None:
        first = asyncio.get_running_loop().create_future()
        monkeypatch.setattr("treadle.server.bridge.PATIENCE", 0.02)
        server.bridge.tell(seen.tell, None, urgent=False)
        asyncio.get_running_loop().call_later(0.03, first.set_result, None)  # after the first one's would have ended
        await server.bridge.ask(seen.ask, None)
        monkeypatch.setattr("treadle.server.bridge.PATIENCE", 3600)
        server.bridge.tell(seen.tell, None, urgent=False)
        await first
        assert len(seen.told) == 1
        await server.bridge.ask(seen.ask, None)

    server.wait(one_after_the_other())
    assert seen.told == seen.asked
    assert len(seen.told) == 2
