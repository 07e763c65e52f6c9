"""A server that is told to stop while nothing can be written: running tasks have their grace all the same."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.making import Desk
from treadle.engine.fleet import Gone
from treadle.model.container import ContainerStatus
from treadle.model.task import TaskStatus
from treadle.model.wire import Stop
from treadle.server import loops, main
from treadle.server.bridge import Bridge

from .test_bridge_order import Line, on_a_loop

FOR_GOOD = 1_000_000


class Told(Line):
    """A link on which one can wait for the order to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.to_stop = asyncio.Event()

    def send(self, message: object) -> None:
        super().send(message)
        if isinstance(message, Stop):
            self.to_stop.set()


def running(desk: Desk, bridge: Bridge) -> tuple[str, int, str, Told]:
    """A connected container with a task that runs: its id, link and task, and what it is told."""
    desk.agent()
    deployment = desk.deploy()
    task_id = desk.submit(deployment)
    desk.ask(desk.engine.scaler.scale)
    container_id, told = desk.container(deployment), Told()
    link = desk.connect(container_id)
    bridge.runners[container_id] = told
    return container_id, link, task_id, told


def test_containers_are_told_to_stop_as_soon_as_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for each second; a task that ends within the grace is COMPLETE, and the server goes then."""
    monkeypatch.setattr(loops, "SECOND", 0.01)

    async def work(desk: Desk, bridge: Bridge) -> None:
        container_id, link, task_id, told = running(desk, bridge)
        desk.store.broken = 3
        draining = asyncio.create_task(main._drain(bridge, 3600.0, asyncio.Queue()))
        await told.to_stop.wait()
        assert desk.store.broken == 0
        assert desk.status(container_id) is ContainerStatus.STOPPING
        desk.finish(container_id, link, task_id)
        desk.ask(desk.engine.fleet.gone, Gone(container_id, "ended"))
        await draining
        assert desk.task(task_id).status is TaskStatus.COMPLETE

    on_a_loop(tmp_path, work)


def test_a_disk_that_stays_full_takes_nothing_of_the_grace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server waits as it does otherwise, until its time is over or a second signal comes."""
    monkeypatch.setattr(loops, "SECOND", 0.01)

    async def work(desk: Desk, bridge: Bridge) -> None:
        _, _, task_id, _ = running(desk, bridge)
        desk.store.broken = FOR_GOOD
        signals: asyncio.Queue[int] = asyncio.Queue()
        draining = asyncio.create_task(main._drain(bridge, 3600.0, signals))
        while desk.store.broken > FOR_GOOD - 3:
            done, _ = await asyncio.wait([draining], timeout=0.01)
            assert not done
        signals.put_nowait(15)
        await draining
        assert desk.task(task_id).status is TaskStatus.RUNNING

    on_a_loop(tmp_path, work)
