"""In which order the effects of commits are carried out, whichever thread made them; driven by hand, on one loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from engine.making import Desk
from treadle.engine.effects import ToRunner
from treadle.engine.fleet import Connected
from treadle.engine.writer import QUICK
from treadle.model.wire import Hello, Stop, Work
from treadle.server.bridge import Bridge

DEADLINE = 20.0


class Line:
    """A link of a runner that keeps what goes over it."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def fail(self) -> None:
        self.sent.append("closed")


class Torn(Line):
    def send(self, message: Any) -> None:
        raise RuntimeError("the line is torn")


def on_a_loop(folder: Path, work: Callable[[Desk, Bridge], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine with an engine that reports to a bridge on the same loop."""

    async def within() -> None:
        desk = Desk(folder)
        bridge = Bridge(asyncio.get_running_loop())
        desk.open(bridge.report)
        bridge.attach(desk.engine)
        try:
            await asyncio.wait_for(work(desk, bridge), DEADLINE)
        finally:
            desk.close()

    asyncio.run(within())


def turn_of_the_thread(desk: Desk) -> None:
    """All that waits for the writer's thread is run, on such a one, and reported; the loop has no turn meanwhile."""
    writer = desk.engine.writer
    writer._waiting.put(None)
    thread = Thread(target=writer._loop)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_a_commit_of_the_thread_is_settled_before_a_later_one(tmp_path: Path) -> None:
    """A task handed over when the hello of its runner is written, but not yet told to the loop, goes to that runner."""

    async def work(desk: Desk, bridge: Bridge) -> None:
        desk.agent()
        deployment, line = desk.deploy(), Line()
        first = desk.submit(deployment)
        desk.ask(desk.engine.scaler.scale)
        connect, submit = desk.engine.fleet.connect, desk.engine.queue.submit
        answers: list[Any] = []
        hello = Connected(Hello(desk.container(deployment), [], 2), 7)
        bridge.opening[7] = line
        desk.engine.writer._commit_took = QUICK * 2
        bridge.call(connect, hello, answers.append)
        bridge._hand_over()
        turn_of_the_thread(desk)
        assert (desk.engine.writer._commit_took, answers) == (0.0, [])  # quick again, and its report waits for the loop
        second = desk.submission(deployment)
        bridge.call(submit, second, answers.append)
        bridge._hand_over()
        turn_of_the_thread(desk)
        await asyncio.sleep(0)  # one turn of the loop: both reports wait for it
        assert answers == [None, second.task_id]
        assert [message.ref.task_id for message in line.sent if isinstance(message, Work)] == [first, second.task_id]

    on_a_loop(tmp_path, work)


def test_what_goes_wrong_for_one_asker_is_not_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An effect and a ticket that raise are logged; the rest of the batch is carried out and answered."""

    async def work(desk: Desk, bridge: Bridge) -> None:
        answers: list[Any] = []
        bridge.runners["c1"] = Torn()
        bridge.runners["c2"] = line = Line()

        def verb(now: float, requests: Sequence[int]) -> Sequence[int]:
            for container_id in ("c1", "c2"):
                desk.engine.outbox.add(ToRunner(container_id, Stop(0.0, "")))
            return requests

        def raises(answer: Any) -> None:
            raise LookupError("nobody is there")

        bridge.call(verb, 1, raises)
        bridge.call(verb, 2, answers.append)
        bridge._hand_over()
        assert answers == [2]
        assert line.sent == [Stop(0.0, "")]

    on_a_loop(tmp_path, work)
    told = "".join(capsys.readouterr())
    assert "the line is torn" in told and "nobody is there" in told
