"""Group commit: one transaction for what waits, an answer for each, and no trace of what was not written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, current_thread
from typing import Any

import pytest

from treadle.engine.effects import Effect, ScaleDue, TaskEnded
from treadle.engine.writer import QUICK, AnyCall, Call, Writer
from treadle.model.deployment import Deployment, DeploymentKind, QueueConfig
from treadle.model.errors import Conflict, NoSpace
from treadle.model.task import NewTask, Task, TaskStatus

from .making import IMAGE, NOW, SOURCE, Desk


def row(task_id: str) -> NewTask:
    return NewTask(Task(task_id, 1, "d", TaskStatus.PENDING, NOW, NOW, NOW), b"{}")


class Verbs:
    """Two verbs that write a row for each request, and note what they were asked together."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.groups: list[list[str]] = []

    def insert(self, now: float, requests: Sequence[str]) -> list[str]:
        self.groups.append(list(requests))
        self.desk.store.insert_tasks([row(task_id) for task_id in requests])
        self.desk.engine.outbox.add(TaskEnded(requests[0], "d"))
        self.desk.engine.hints.counts.move("d", waiting=len(requests))
        if "bad" in requests:
            raise Conflict("bad is bad.")
        return [f"{task_id} at {now - NOW:g}" for task_id in requests]

    def look(self, now: float, requests: Sequence[str]) -> list[bool]:
        self.groups.append(list(requests))
        return [self.desk.store.task(task_id) is not None for task_id in requests]


@pytest.fixture(autouse=True)
def draft(desk: Desk) -> None:
    """The deployment that the rows name."""
    made = Deployment(
        "d", 1, DeploymentKind.DRAFT, "", 0, QueueConfig(handler="app:f"), SOURCE, IMAGE.id, "digest", True, NOW, NOW
    )
    with desk.store.transaction():
        desk.store.insert_deployment(made)


@pytest.fixture
def verbs(desk: Desk) -> Verbs:
    return Verbs(desk)


def transactions(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    begun: list[str] = []
    begin = desk.store.transaction

    def counted() -> Any:
        begun.append("begin")
        return begin()

    monkeypatch.setattr(desk.store, "transaction", counted)
    return begun


def test_many_calls_are_one_transaction(desk: Desk, verbs: Verbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of one verb run together in their order, those of another after them, and all are committed once."""
    begun = transactions(desk, monkeypatch)
    answers = desk.run((verbs.insert, "a"), (verbs.look, "b"), (verbs.insert, "b"))
    assert answers == ["a at 0", True, "b at 0"]
    assert verbs.groups == [["a", "b"], ["b"]]
    assert begun == ["begin"]


def test_a_bad_request_fails_alone(desk: Desk, verbs: Verbs) -> None:
    """The others of its verb are written and answered, and nothing of the bad one is left."""
    a, bad, b = desk.run((verbs.insert, "a"), (verbs.insert, "bad"), (verbs.insert, "b"))
    assert (a, b) == ("a at 0", "b at 0")
    assert isinstance(bad, Conflict)
    assert [desk.store.task(t) is not None for t in ("a", "bad", "b")] == [True, False, True]
    assert desk.engine.hints.counts.waiting["d"] == 2
    assert desk.sent == [TaskEnded("a", "d"), TaskEnded("b", "d")]


def test_a_failed_commit_is_everybodys_answer(desk: Desk, verbs: Verbs) -> None:
    """Nothing was written, counted or sent, and the next batch goes through."""
    desk.store.broken = 1
    answers = desk.run((verbs.insert, "a"), (verbs.look, "a"))
    assert [type(answer) for answer in answers] == [NoSpace, NoSpace]
    assert desk.store.task("a") is None
    assert desk.engine.hints.counts.waiting.get("d", 0) == 0
    assert desk.sent == []
    assert desk.run((verbs.insert, "a")) == ["a at 0"]
    assert desk.engine.hints.counts.waiting["d"] == 1


def test_an_answer_that_is_an_error_undoes_nothing(desk: Desk) -> None:
    """A refusal among the answers is for its asker alone."""

    def verb(now: float, requests: Sequence[str]) -> list[str | Conflict]:
        desk.store.insert_tasks([row(task_id) for task_id in requests])
        return [Conflict("no.") if task_id == "b" else task_id for task_id in requests]

    a, b = desk.run((verb, "a"), (verb, "b"))
    assert a == "a"
    assert isinstance(b, Conflict)
    assert desk.store.task("b") is not None


def test_all_calls_of_a_batch_see_one_time(desk: Desk, verbs: Verbs) -> None:
    """The clock is read once."""
    desk.now = NOW + 5
    assert desk.run((verbs.insert, "a"), (verbs.insert, "b")) == ["a at 5", "b at 5"]


def started(desk: Desk, report: Callable[[Sequence[AnyCall], Sequence[Effect]], None]) -> Writer:
    engine = desk.engine
    writer = Writer(desk.store, engine.hints.journal, engine.outbox, lambda: desk.now, report)
    writer.start()
    return writer


def test_the_thread_takes_what_came_during_the_last_commit(desk: Desk, verbs: Verbs) -> None:
    """A batch is what waits, in the order of asking; there is no timer."""
    entered, leave = Event(), Event()
    batches: list[list[str]] = []

    def slow(now: float, requests: Sequence[str]) -> list[None]:
        assert current_thread().name == "writer"
        entered.set()
        assert leave.wait(10)
        return [None]

    writer = started(desk, lambda batch, effects: batches.append([call.request for call in batch]))
    writer.ask([Call(slow, "slow")])
    assert entered.wait(10)
    for task_id in "abc":
        writer.ask([Call(verbs.insert, task_id)])
    leave.set()
    writer.stop()
    assert batches == [["slow"], ["a", "b", "c"]]
    assert verbs.groups == [["a", "b", "c"]]


def test_stop_answers_what_was_asked_before_it(desk: Desk, verbs: Verbs) -> None:
    """No call is dropped when the server closes."""
    answered: list[object] = []
    writer = started(desk, lambda batch, effects: answered.extend(call.answer for call in batch))
    for number in range(50):
        writer.ask([Call(verbs.insert, f"t{number}")])
    writer.stop()
    assert answered == [f"t{number} at 0" for number in range(50)]


def test_effects_are_told_after_the_commit(desk: Desk) -> None:
    """Whoever hears of them finds the rows in the store."""
    seen: list[tuple[Effect, bool]] = []
    reader = desk.store.reader()

    def verb(now: float, requests: Sequence[str]) -> list[None]:
        desk.store.insert_tasks([row("a")])
        desk.engine.outbox.add(ScaleDue())
        return [None]

    def report(batch: Sequence[AnyCall], effects: Sequence[Effect]) -> None:
        seen.extend((effect, reader.task("a") is not None) for effect in effects)

    writer = started(desk, report)
    writer.ask([Call(verb, None)])
    writer.stop()
    reader.close()
    assert seen == [(ScaleDue(), True)]


def test_an_idle_writer_runs_a_batch_where_it_is_asked(desk: Desk, verbs: Verbs) -> None:
    """No thread is woken for it; the answer is there when the call returns."""
    answered: list[object] = []
    writer = started(desk, lambda batch, effects: answered.extend(call.answer for call in batch))
    assert writer.run_here([Call(verbs.insert, "a")])
    assert answered == ["a at 0"]
    writer.stop()


def test_a_batch_is_not_run_beside_the_thread(desk: Desk, verbs: Verbs) -> None:
    """While the thread is at work, or has work waiting, only the thread runs verbs."""
    entered, leave = Event(), Event()

    def slow(now: float, requests: Sequence[str]) -> list[None]:
        entered.set()
        assert leave.wait(10)
        return [None]

    writer = started(desk, lambda batch, effects: None)
    writer.ask([Call(slow, "slow")])
    assert entered.wait(10)
    assert not writer.run_here([Call(verbs.insert, "a")])
    leave.set()
    writer.stop()
    assert verbs.groups == []


def test_a_batch_is_not_run_before_an_earlier_one_is_settled(desk: Desk, verbs: Verbs) -> None:
    """That the thread has ended its work is not enough: what it reported has to be dealt with first."""
    reported: list[AnyCall] = []
    writer = started(desk, lambda batch, effects: reported.extend(batch))
    writer.ask([Call(verbs.insert, "a"), Call(verbs.insert, "b")])
    writer.stop()
    assert [call.answer for call in reported] == ["a at 0", "b at 0"]
    assert not writer.run_here([Call(verbs.insert, "c")])
    writer.settled(reported)
    assert writer.run_here([Call(verbs.insert, "c")])


def test_after_a_slow_commit_batches_go_to_the_thread(desk: Desk, verbs: Verbs) -> None:
    """A slow disk must not hold up whoever asks; a quick commit ends that."""
    commit_takes = QUICK * 2
    transaction = desk.store.transaction

    @contextmanager
    def timed() -> Iterator[None]:
        with transaction():
            yield
            desk.now += commit_takes

    desk.store.transaction = timed  # type: ignore[method-assign]
    reported: list[AnyCall] = []
    writer = started(desk, lambda batch, effects: reported.extend(batch))
    assert writer.run_here([Call(verbs.insert, "a")])
    assert not writer.run_here([Call(verbs.insert, "b")])
    commit_takes = 0.0
    reported.clear()
    writer.ask([Call(verbs.insert, "b")])
    writer.stop()
    writer.settled(reported)
    assert writer.run_here([Call(verbs.insert, "c")])
