"""The end of what nobody follows any more, when it cannot be written down at first."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.making import IMAGE, SOURCE, Desk
from treadle.engine.catalog import Deploy
from treadle.model.deployment import Deployment, QueueConfig
from treadle.model.errors import NoSpace
from treadle.server import sessions
from treadle.server.bridge import Bridge
from treadle.server.sessions import Sessions

from .test_bridge_order import on_a_loop


async def serve(desk: Desk, bridge: Bridge) -> Deployment:
    """Have a queue served; nothing is under way any more."""
    made = Deploy("d1", desk.workspace.id, "", QueueConfig(handler="app:handler"), SOURCE, IMAGE.id)
    deployment: Deployment = await bridge.ask(desk.engine.serving.start, made)
    await bridge.run(lambda _now: None)  # a look at the fleet was due
    return deployment


def ended(deployment: Deployment, desk: Desk) -> bool:
    found = desk.store.deployment(deployment.id)
    return found is not None and not found.served


def test_an_end_that_was_not_written_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time that a follower has to come back; and it is told once it is on disk, not before."""
    monkeypatch.setattr(sessions, "PATIENCE", 0.01)
    monkeypatch.setattr(sessions, "LINGER", 0.01)

    async def work(desk: Desk, bridge: Bridge) -> None:
        deployment = await serve(desk, bridge)
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        watched = Sessions(bridge, lambda over: told.set_result(ended(over, desk)))
        desk.store.broken = 2
        watched.opened(deployment)
        assert await told
        assert desk.store.broken == 0

    on_a_loop(tmp_path, work)


def test_an_end_that_was_not_written_is_dropped_for_a_follower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One who has come meanwhile keeps it served."""
    monkeypatch.setattr(sessions, "PATIENCE", 0.0)
    monkeypatch.setattr(sessions, "LINGER", 0.0)

    async def work(desk: Desk, bridge: Bridge) -> None:
        deployment = await serve(desk, bridge)
        watched = Sessions(bridge, lambda over: pytest.fail("it is followed"))
        desk.store.broken = 1
        watched._end_after(3600.0, deployment)
        watched._end(deployment)  # as its timer does
        watched.follow(deployment)
        with pytest.raises(NoSpace):
            await bridge.run(lambda _now: None)  # of the same transaction
        await bridge.run(lambda _now: None)
        assert not ended(deployment, desk)
        assert watched._timers == {}

    on_a_loop(tmp_path, work)
