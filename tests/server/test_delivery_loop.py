"""The loop that keeps many tries of webhooks going: its bounds, its fairness, and its end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from treadle.engine.webhooks import PER_HOST, Outcome, Send
from treadle.model.errors import NoSpace
from treadle.model.task import Delivery, DeliveryStatus
from treadle.server.delivering import AT_ONCE, DeliveryLoop

DEADLINE = 20.0


def a_send(url: str, message_id: str) -> Send:
    delivery = Delivery(
        id=message_id, task_id="t", url=url, status=DeliveryStatus.PENDING, due=0.0, created_at=0.0
    )
    return Send(delivery=delivery, url=url, body=b"{}", headers={})


def in_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine to its end, within a deadline."""

    async def within() -> None:
        await asyncio.wait_for(work, DEADLINE)

    asyncio.run(within())


class Table:
    """Due deliveries in memory, with what `DeliveryLoop` needs of the engine, and a gate that holds tries open."""

    def __init__(self, sends: list[Send]) -> None:
        self.due = {send.delivery.id: send for send in sends}
        self.gate = asyncio.Event()
        self.changed = asyncio.Condition()
        self.sent: list[str] = []
        self.open: Counter[str] = Counter()
        self.most_open: Counter[str] = Counter()
        self.most = 0
        self.refuse_record = False
        self.refused = 0

    async def take(self, limit: int, underway: frozenset[str]) -> list[Send]:
        return list(self.due.values())  # more than asked for: the loop's own promises are under test

    async def send(self, send: Send) -> Outcome:
        self.open[send.url] += 1
        self.most_open[send.url] = max(self.most_open[send.url], self.open[send.url])
        self.most = max(self.most, self.open.total())
        await self._note(send.delivery.id)
        await self.gate.wait()
        self.open[send.url] -= 1
        return Outcome(status=200)

    async def record(self, delivery: Delivery, outcome: Outcome) -> None:
        if self.refuse_record:
            self.refused += 1
            await self._note("")
            raise OSError("disk full")
        del self.due[delivery.id]
        await self._note("")

    async def _note(self, sent: str) -> None:
        async with self.changed:
            self.sent += [sent] if sent else []
            self.changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(condition)


def looping(table: Table) -> DeliveryLoop:
    return DeliveryLoop(table.send, table.take, table.record)


def many(count: int, per_host: int) -> list[Send]:
    return [a_send(f"http://h{number // per_host}.example/", f"msg_{number}") for number in range(count)]


def refusing() -> tuple[Table, DeliveryLoop]:
    """One delivery, which is answered at once, and the answer cannot be recorded."""
    table = Table(many(1, per_host=1))
    table.refuse_record = True
    table.gate.set()
    return table, looping(table)


def test_the_loop_sends_everything_once_within_its_bounds() -> None:
    """Of many due deliveries at most 32 are underway, 4 to a host, and all are sent exactly once after one tick."""

    async def work() -> None:
        table = Table(many(300, per_host=10))
        loop = looping(table)
        await loop.tick()
        await table.until(lambda: len(table.sent) == AT_ONCE)
        assert len(loop.underway) == AT_ONCE
        table.gate.set()
        await table.until(lambda: not table.due)
        await loop.close()
        assert sorted(table.sent) == sorted(f"msg_{number}" for number in range(300))
        assert table.most == AT_ONCE
        assert max(table.most_open.values()) == PER_HOST
        assert not loop.underway

    in_loop(work())


def test_a_delivery_is_never_tried_twice_at_once() -> None:
    """Ticks during a try do not start it again."""

    async def work() -> None:
        table = Table(many(1, per_host=1))
        loop = looping(table)
        await asyncio.gather(*(loop.tick() for _ in range(5)))
        await table.until(lambda: len(table.sent) == 1)
        await loop.tick()
        assert table.sent == ["msg_0"]
        table.gate.set()
        await table.until(lambda: not table.due)
        await loop.close()
        assert table.sent == ["msg_0"]

    in_loop(work())


def test_a_slow_host_holds_up_nobody_else() -> None:
    """While four tries to one host hang, those to others go through."""

    async def work() -> None:
        slow, quick = many(10, per_host=10), [a_send("http://quick.example/", f"msg_q{n}") for n in range(50)]
        table = Table(slow + quick)

        async def send(send: Send) -> Outcome:
            return await table.send(send) if "h0" in send.url else Outcome(status=200)

        loop = DeliveryLoop(send, table.take, table.record)
        await loop.tick()
        await table.until(lambda: len(table.due) == len(slow))
        assert len(table.sent) == PER_HOST
        table.gate.set()
        await table.until(lambda: not table.due)
        await loop.close()

    in_loop(work())


def test_a_try_that_cannot_be_recorded_is_not_sent_again() -> None:
    """How it ended is kept, and each tick tries to write that down; it keeps its place meanwhile, and is sent once."""

    async def work() -> None:
        table, loop = refusing()
        await loop.tick()
        for seen in range(1, 4):
            await table.until(lambda seen=seen: table.refused >= seen)  # type: ignore[misc]
            await asyncio.gather(*loop._tasks)
            assert loop.underway == {"msg_0"}
            await loop.tick()
        table.refuse_record = False
        await asyncio.gather(*loop._tasks)
        await loop.tick()
        await table.until(lambda: not table.due)
        await loop.close()
        assert table.sent == ["msg_0"]
        assert not loop.underway

    in_loop(work())


def test_what_cannot_be_recorded_is_due_at_the_next_start() -> None:
    """Closing tries once more to write it down, and then leaves it as it was: it is sent again by the next server."""

    async def work() -> None:
        table, loop = refusing()
        await loop.tick()
        await asyncio.gather(*loop._tasks)
        await loop.close()
        assert (table.refused, table.sent) == (2, ["msg_0"])
        assert not loop.underway
        table.refuse_record = False
        again = looping(table)
        await again.tick()
        await table.until(lambda: not table.due)
        await again.close()

    in_loop(work())


def test_closing_drops_tries_that_take_too_long() -> None:
    """They are not recorded, so they are due at the next start, and no task is left behind."""

    async def work() -> None:
        table = Table(many(3, per_host=1))
        loop = looping(table)
        await loop.tick()
        await table.until(lambda: len(table.sent) == 3)
        await loop.close(grace=0.01)
        assert len(table.due) == 3
        assert not loop.underway
        await loop.tick()
        assert not loop.underway
        assert [task for task in asyncio.all_tasks() if "DeliveryLoop" in repr(task)] == []

    in_loop(work())


def test_a_full_disk_is_told_in_lines_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a try that cannot be written down nor a look that cannot be made is an error nobody foresaw."""

    async def scenario() -> None:
        looked = asyncio.Event()
        looks = 0

        async def take(limit: int, underway: frozenset[str]) -> list[Send]:
            nonlocal looks
            looks += 1
            if looks > 1:
                looked.set()
                raise NoSpace
            return [a_send("http://one.example/", "a"), a_send("http://two.example/", "b")]

        async def send(one: Send) -> Outcome:
            return Outcome(status=200)

        async def record(delivery: Delivery, outcome: Outcome) -> Delivery:
            if delivery.id == "a":
                raise NoSpace
            return delivery

        loop = DeliveryLoop(send, take, record)
        await loop.tick()
        await looked.wait()
        await loop.close()

    in_loop(scenario())
    told = "".join(capsys.readouterr())
    assert "webhook not recorded" in told and "due webhooks not read" in told
    assert "Make room on it" in told and "Traceback" not in told
