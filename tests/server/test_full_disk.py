"""A disk that is full in the middle of a transaction, for real: SQLite is given no page more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.making import Desk
from treadle.model.errors import NoSpace
from treadle.server.bridge import Bridge

from .inside import Inside
from .test_bridge_order import on_a_loop


@contextmanager
def full(desk: Desk) -> Iterator[None]:
    """No room for another page: a statement fails, and SQLite rolls the whole transaction back at once."""
    connection = desk.store._connection
    before = connection.pragma("max_page_count")
    connection.pragma("max_page_count", connection.pragma("page_count"))
    yield
    connection.pragma("max_page_count", before)


def test_the_fleet_is_looked_at_again_after_a_disk_was_full(tmp_path: Path) -> None:
    """A look that was lost with its transaction, before it began, does not keep the next one from being asked."""

    async def work(desk: Desk, bridge: Bridge) -> None:
        desk.agent()
        deployment = desk.deploy()
        submit = desk.engine.queue.submit
        with full(desk):
            large = asyncio.ensure_future(bridge.ask(submit, desk.submission(deployment, b'"%s"' % (b"x" * 100_000))))
            await asyncio.sleep(0)  # the task has asked; what is asked now shares its transaction
            bridge.scale()
            with pytest.raises(NoSpace):
                await large
        await bridge.ask(submit, desk.submission(deployment))
        bridge.scale()  # as each second
        await bridge.run(lambda _now: None)
        assert [container.deployment_id for container in desk.engine.roster.live.values()] == [deployment.id]

    on_a_loop(tmp_path, work)


def test_everybody_of_a_lost_transaction_is_told_of_the_full_disk(tmp_path: Path) -> None:
    """Before or behind the one that needed the room: no one is answered, and no one hears of transactions."""

    async def work(desk: Desk, bridge: Bridge) -> None:
        deployment = desk.deploy()
        queue = desk.engine.queue
        large = desk.submission(deployment, b'"%s"' % (b"x" * 100_000))
        with full(desk):
            asked = [(queue.wake, None), (queue.submit, large), (queue.reap, None)]
            answers = await asyncio.gather(*(bridge.ask(*one) for one in asked), return_exceptions=True)  # type: ignore[call-overload]
        assert [type(answer) for answer in answers] == [NoSpace] * 3

    on_a_loop(tmp_path, work)


def test_a_full_disk_is_told_over_http(tmp_path: Path) -> None:
    """A task that does not fit is refused with 507 and what to do."""
    server = Inside(tmp_path, max_body=200_000)

    def no_more(_now: float) -> None:
        connection = server.store._connection  # type: ignore[attr-defined]
        connection.pragma("max_page_count", connection.pragma("page_count"))

    try:
        server.deploy()
        server.wait(server.bridge.run(no_more))
        answer = server.enqueue("resize", {"text": "x" * 100_000})
        assert answer.status_code == 507, answer.text
        assert "Make room" in answer.json()["advice"]
    finally:
        server.close()
