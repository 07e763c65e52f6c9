"""Verbs on tasks: what each of them writes, counts and sends, in one commit."""

from __future__ import annotations

from typing import Any

import pytest

from treadle.engine import queue
from treadle.engine.effects import TaskEnded, WebhookDue
from treadle.engine.queue import CancelTasks, Report
from treadle.model.errors import NoSpace
from treadle.model.task import FINAL, FailureKind, TaskStatus
from treadle.model.wire import AttemptRef, Died, Raised

from .making import NOW, Desk

S = TaskStatus
URL = "https://example.com/hook"


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.agent()
    return desk


# finish


@pytest.fixture
def running(desk: Desk) -> tuple[Desk, str, int, str]:
    """A desk, a container, its link and the task that runs there."""
    deployment = desk.deploy(retries=1, retry_delay=4.0, callback_url=URL)
    container, link = desk.started(deployment)
    return desk, container, link, desk.submit(deployment)


Running = tuple[Desk, str, int, str]


@pytest.mark.parametrize("result", [b"null", b"0", b"false", b'""', b"[]", b'{"a":1}'])
def test_any_result_completes_a_task(running: Running, result: bytes) -> None:
    """Falsy ones too; waiters and the webhook are told, the report is settled."""
    desk, container, link, task_id = running
    desk.finish(container, link, task_id, result=result)
    task = desk.task(task_id)
    assert (task.status, task.ended_at, desk.store.result(task_id)) == (S.COMPLETE, NOW, result)
    assert TaskEnded(task_id, task.deployment_id) in desk.sent
    assert WebhookDue() in desk.sent
    assert len(desk.store.deliveries(task_id)) == 1
    assert desk.settled(container) == [(task_id, 1)]


def test_the_next_task_is_claimed_in_the_same_commit(running: Running) -> None:
    """No round trip lies between the end of a task and the start of the next."""
    desk, container, link, task_id = running
    deployment = desk.engine.catalog.deployment(desk.task(task_id).deployment_id)
    following = desk.submit(deployment)
    assert desk.work() == []
    desk.finish(container, link, task_id)
    assert desk.work(container) == [(following, 1)]
    assert desk.counts(deployment) == (0, 1)


@pytest.mark.parametrize(
    ("end", "kind", "status"),
    [
        ({"raised": Raised("ValueError", "no", "tb")}, FailureKind.EXCEPTION, S.RETRY),
        ({"raised": Raised("ValueError", "no", "tb", retryable=False)}, FailureKind.EXCEPTION, S.FAILED),
        ({"raised": Raised("TypeError", "set", "", not_json=True)}, FailureKind.RESULT, S.FAILED),
        ({"died": Died(-9, oom_kills=1), "free": False}, FailureKind.OOM, S.RETRY),
        ({"died": Died(-9), "free": False}, FailureKind.SIGNAL, S.RETRY),
        ({"died": Died(3), "free": False}, FailureKind.EXIT, S.RETRY),
        ({"timed_out": True, "free": False}, FailureKind.TIMEOUT, S.TIMEOUT),
    ],
)
def test_each_way_an_attempt_can_end(running: Running, end: dict[str, Any], kind: FailureKind, status: TaskStatus) -> None:
    """The attempt keeps the reason; the task waits for another one or is over."""
    desk, container, link, task_id = running
    desk.finish(container, link, task_id, **end)
    task, (attempt,) = desk.task(task_id), desk.store.attempts(task_id)
    assert task.status is status
    assert attempt.failure is not None and attempt.failure.kind is kind
    assert attempt.ended_at == NOW
    assert len(desk.store.deliveries(task_id)) == (status in FINAL)


@pytest.mark.parametrize("times", [2, 3])
def test_a_report_that_comes_twice_counts_once(running: Running, times: int) -> None:
    """In one batch or later; it is settled each time, and frees no child twice."""
    desk, container, link, task_id = running
    again = desk.report(container, link, task_id, result=b"2", free=False)
    desk.run((desk.engine.queue.finish, desk.report(container, link, task_id)), *[(desk.engine.queue.finish, again)] * times)
    assert desk.settled(container) == [(task_id, 1)] * (1 + times)
    desk.ask(desk.engine.queue.finish, again)
    assert desk.settled(container) == [(task_id, 1)]
    assert desk.store.result(task_id) == b"1"
    assert desk.engine.hints.slots.free_in(container) == 1
    assert len(desk.store.deliveries(task_id)) == 1


@pytest.mark.parametrize(
    ("container_id", "task_id", "attempt"),
    [("", "", 2), ("", "", 0), ("taskqueue-x-1", "", 1), ("", "unknown", 1)],
)
def test_a_stale_report_changes_nothing_and_is_settled(
    running: Running, container_id: str, task_id: str, attempt: int
) -> None:
    """Another attempt, another container, another task: refused for good, so that its sender forgets it."""
    desk, container, link, mine = running
    sender, about = container_id or container, task_id or mine
    desk.finish(sender, link, about, attempt, free=False)
    assert desk.task(mine).status is S.RUNNING
    assert desk.settled(sender) == [(about, attempt)]


def test_a_late_report_of_a_lost_attempt_is_refused(running: Running) -> None:
    """What was taken from a container is not taken back from it."""
    desk, container, link, task_id = running
    desk.cancel(task_id)
    desk.finish(container, link, task_id)
    assert desk.task(task_id).status is S.CANCELLED
    assert desk.store.result(task_id) is None


def test_a_report_over_an_old_link_counts_but_frees_nothing(running: Running) -> None:
    """The new link's hello has told what is free."""
    desk, container, old, task_id = running
    desk.connect(container, free=1, held=[AttemptRef(task_id, 1)])
    desk.finish(container, old, task_id)
    assert desk.task(task_id).status is S.COMPLETE
    assert desk.engine.hints.slots.free_in(container) == 1


def test_one_batch_may_end_many_and_start_many(desk: Desk) -> None:
    """Each freed child takes the next task in order."""
    deployment = desk.deploy(workers=3)
    container, link = desk.started(deployment, free=3)
    first = [desk.submit(deployment) for _ in range(3)]
    following = [desk.submit(deployment) for _ in range(5)]
    desk.run(*((desk.engine.queue.finish, desk.report(container, link, t)) for t in first))
    assert desk.work(container) == [(t, 1) for t in following[:3]]
    assert desk.counts(deployment) == (2, 3)


# retry


def test_a_retry_waits_for_its_delay(running: Running) -> None:
    """It is nobody's before it is due, then it runs as the next attempt; after the last one it has failed."""
    desk, container, link, task_id = running
    desk.chance = 0.5
    desk.fail(container, link, task_id)
    assert (desk.task(task_id).status, desk.task(task_id).due) == (S.RETRY, NOW + 3.0)
    assert not desk.engine.queue.due(desk.now)
    desk.now = NOW + 2.99
    desk.ask(desk.engine.queue.wake)
    assert desk.work() == []
    desk.now = NOW + 3.0
    assert desk.engine.queue.due(desk.now)
    desk.ask(desk.engine.queue.wake)
    assert desk.work(container) == [(task_id, 2)]
    assert not desk.engine.queue.due(desk.now + 1000)
    desk.fail(container, link, task_id, attempt=2)
    task = desk.task(task_id)
    assert (task.status, [a.status for a in desk.store.attempts(task_id)]) == (S.FAILED, [S.FAILED, S.FAILED])
    assert task.failure is not None and task.failure.reason == "ValueError: no"


def test_without_a_delay_it_runs_again_at_once(desk: Desk) -> None:
    """In the same commit."""
    deployment = desk.deploy(retries=1, retry_delay=0.0)
    container, link = desk.started(deployment)
    task_id = desk.submit(deployment)
    desk.fail(container, link, task_id)
    assert desk.work(container) == [(task_id, 2)]


def test_each_delayed_task_is_woken_when_it_is_due(desk: Desk) -> None:
    """Also when no child is free at the first time, and also after the server has started again."""
    deployment = desk.deploy(workers=2, retries=1, retry_delay=10.0)
    container, link = desk.started(deployment, free=2)
    one, two = desk.submit(deployment), desk.submit(deployment)
    desk.fail(container, link, one)
    desk.now += 2
    desk.fail(container, link, two)
    desk.crash()
    desk.agent()
    desk.connect(container, free=2)
    due = [desk.task(one).due, desk.task(two).due]
    assert due == [NOW + 5.0, NOW + 7.0]
    for at, task_id in zip(due, (one, two), strict=True):
        desk.now = at
        assert desk.engine.queue.due(desk.now)
        desk.ask(desk.engine.queue.wake)
        assert desk.work(container) == [(task_id, 2)]


def test_a_wake_that_was_not_written_is_made_again(running: Running) -> None:
    """A failed commit does not let a delayed task sleep for ever."""
    desk, container, link, task_id = running
    desk.fail(container, link, task_id)
    desk.now = desk.task(task_id).due
    desk.store.broken = 1
    (answer,) = desk.run((desk.engine.queue.wake, None))
    assert isinstance(answer, NoSpace)
    assert desk.engine.queue.due(desk.now)
    desk.ask(desk.engine.queue.wake)
    assert desk.work(container) == [(task_id, 2)]


# cancel


def test_a_waiting_task_that_is_cancelled_never_runs(desk: Desk) -> None:
    """Its webhook is due, and a container that comes finds nothing."""
    deployment = desk.deploy(callback_url=URL)
    task_id = desk.submit(deployment)
    desk.ask(desk.engine.scaler.scale)
    assert desk.cancel(task_id) == [task_id]
    assert desk.sent == [TaskEnded(task_id, deployment.id), WebhookDue()]
    desk.connect(desk.container(deployment))
    assert desk.work() == []
    assert (desk.task(task_id).status, len(desk.store.deliveries(task_id))) == (S.CANCELLED, 1)
    assert desk.counts(deployment) == (0, 0)


def test_a_running_task_that_is_cancelled_is_recalled(running: Running) -> None:
    """Its runner is told to kill the child, which is free only when it says so."""
    desk, container, link, task_id = running
    assert desk.cancel(task_id) == [task_id]
    assert desk.recalled(container) == [(task_id, 1)]
    (attempt,) = desk.store.attempts(task_id)
    assert attempt.status is S.CANCELLED
    assert desk.engine.hints.slots.free_in(container) == 0
    desk.ready(container, link)
    assert desk.engine.hints.slots.free_in(container) == 1


def test_a_task_that_waits_for_its_retry_can_be_cancelled(running: Running) -> None:
    """It is never woken then."""
    desk, container, link, task_id = running
    desk.fail(container, link, task_id)
    assert desk.cancel(task_id) == [task_id]
    desk.tick(100)
    assert desk.task(task_id).status is S.CANCELLED


def test_what_cannot_be_cancelled_is_not_among_the_cancelled(running: Running) -> None:
    """Finished ones stay as they are; unknown ids and those of other workspaces do not exist."""
    desk, container, link, task_id = running
    desk.finish(container, link, task_id)
    assert desk.cancel(task_id, "unknown", task_id) == []
    other = desk.submit(desk.deploy())
    assert desk.ask(desk.engine.queue.cancel, CancelTasks(desk.workspace.id + 1, [other])) == []
    assert desk.cancel(other, other) == [other]


# expire


def test_a_task_that_waits_too_long_expires(desk: Desk) -> None:
    """At its time and not before; what is expired is not run any more, even before it was reaped."""
    deployment = desk.deploy(ttl=10, callback_url=URL)
    task_id = desk.submit(deployment)
    desk.ask(desk.engine.scaler.scale)
    desk.now = NOW + 9.9
    assert desk.ask(desk.engine.queue.reap) == 0
    desk.now = NOW + 10
    desk.connect(desk.container(deployment))
    assert desk.work() == []
    assert desk.ask(desk.engine.queue.reap) == 1
    task = desk.task(task_id)
    assert (task.status, task.ended_at) == (S.EXPIRED, NOW + 10)
    assert task.failure is not None and task.failure.reason == "waited longer than ttl=10 seconds"
    assert (desk.counts(deployment), len(desk.store.deliveries(task_id))) == ((0, 0), 1)
    assert desk.ask(desk.engine.queue.reap) == 0


def test_a_running_task_does_not_expire(desk: Desk) -> None:
    """ttl bounds waiting alone."""
    deployment = desk.deploy(ttl=10)
    container, link = desk.started(deployment)
    task_id = desk.submit(deployment)
    desk.now += 100
    assert desk.ask(desk.engine.queue.reap) == 0
    desk.finish(container, link, task_id)
    assert desk.task(task_id).status is S.COMPLETE


# resume


def test_work_that_got_lost_is_sent_again(running: Running) -> None:
    """A runner that does not hold what it should run has never received it."""
    desk, container, _, task_id = running
    desk.connect(container, free=1, held=[])
    assert desk.work(container) == [(task_id, 1)]
    assert desk.engine.hints.slots.free_in(container) == 0


def test_what_a_runner_holds_is_not_sent_again(running: Running) -> None:
    """It goes on with it."""
    desk, container, _, task_id = running
    link = desk.connect(container, free=0, held=[AttemptRef(task_id, 1)])
    assert (desk.work(), desk.recalled(), desk.settled()) == ([], [], [])
    desk.finish(container, link, task_id)
    assert desk.task(task_id).status is S.COMPLETE


@pytest.mark.parametrize("held", [AttemptRef("unknown", 1), AttemptRef("", 1), AttemptRef("", 7)])
def test_what_a_runner_holds_in_vain_is_dropped(running: Running, held: AttemptRef) -> None:
    """It was settled, cancelled or given to another: killed if it runs, forgotten if it is a report."""
    desk, container, _, task_id = running
    if not held.task_id:
        held = AttemptRef(task_id, held.attempt)
        desk.cancel(task_id)
    desk.connect(container, free=0, held=[held])
    assert desk.recalled(container) == [(held.task_id, held.attempt)]
    assert desk.settled(container) == [(held.task_id, held.attempt)]


def test_a_failed_commit_leaves_a_report_to_be_told_again(running: Running) -> None:
    """Nothing is settled, and the second time it counts."""
    desk, container, link, task_id = running
    report = desk.report(container, link, task_id)
    assert isinstance(report, Report)
    desk.store.broken = 1
    (answer,) = desk.run((desk.engine.queue.finish, report))
    assert isinstance(answer, NoSpace)
    assert (desk.sent, desk.task(task_id).status) == ([], S.RUNNING)
    assert desk.engine.hints.slots.free_in(container) == 0
    desk.ask(desk.engine.queue.finish, report)
    assert desk.task(task_id).status is S.COMPLETE
    assert desk.engine.hints.slots.free_in(container) == 1


@pytest.mark.parametrize(("limit", "most"), [(2, 1 << 20), (1000, 4)])
def test_what_one_look_does_not_take_goes_out_with_the_next(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, limit: int, most: int
) -> None:
    """However many children are said to be free, a look takes so many tasks and bytes; none of the others waits in vain."""
    monkeypatch.setattr(queue, "DISPATCH_LIMIT", limit)
    monkeypatch.setattr(queue, "DISPATCH_BYTES", most)
    deployment = desk.deploy(workers=8)
    tasks = [desk.submit(deployment) for _ in range(5)]
    desk.ask(desk.engine.scaler.scale)
    container = desk.container(deployment)
    desk.connect(container, free=8)
    sent = [desk.work(container)]
    while desk.engine.queue.due(desk.now):
        desk.ask(desk.engine.queue.wake)
        sent.append(desk.work(container))
    assert sent == [[(one, 1) for one in some] for some in (tasks[:2], tasks[2:4], tasks[4:])]
