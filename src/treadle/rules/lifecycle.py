"""The life of a task: the one table of status × event, and the decision that writes a change."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from treadle.model.deployment import QueueConfig
from treadle.model.task import Attempt, Change, Failure, FailureKind, Task, TaskStatus
from treadle.rules import retry


class Event(StrEnum):
    """What can happen to a task."""

    CLAIM = "claim"  # a free child takes it
    RETURN = "return"  # it was sent ahead of a free child and has not started
    SUCCEED = "succeed"
    RETRY = "retry"  # the attempt failed and another one is allowed
    FAIL = "fail"  # the attempt failed and it was the last
    TIMEOUT = "timeout"
    CANCEL = "cancel"
    EXPIRE = "expire"


class Row(msgspec.Struct, frozen=True):
    """One transition: the task's new status and what its running attempt ends as (None: none ends)."""

    to: TaskStatus
    attempt: TaskStatus | None = None
    final: bool = True  # sets ended_at and sends the webhook


S = TaskStatus
TABLE: dict[tuple[TaskStatus, Event], Row] = {
    (S.PENDING, Event.CLAIM): Row(S.RUNNING, final=False),
    (S.RETRY, Event.CLAIM): Row(S.RUNNING, final=False),
    (S.RUNNING, Event.RETURN): Row(S.PENDING, final=False),
    (S.RUNNING, Event.SUCCEED): Row(S.COMPLETE, S.COMPLETE),
    (S.RUNNING, Event.RETRY): Row(S.RETRY, S.FAILED, final=False),
    (S.RUNNING, Event.FAIL): Row(S.FAILED, S.FAILED),
    (S.RUNNING, Event.TIMEOUT): Row(S.TIMEOUT, S.TIMEOUT),
    (S.RUNNING, Event.CANCEL): Row(S.CANCELLED, S.CANCELLED),
    (S.PENDING, Event.CANCEL): Row(S.CANCELLED),
    (S.RETRY, Event.CANCEL): Row(S.CANCELLED),
    (S.PENDING, Event.EXPIRE): Row(S.EXPIRED),
    (S.RETRY, Event.EXPIRE): Row(S.EXPIRED),
}
# Everything else is refused: a final state never changes, a waiting task has no attempt that could report, and a
# running one neither expires (ttl bounds waiting) nor is claimed twice.


def decide(
    task: Task,
    event: Event,
    now: float,
    *,
    container_id: str = "",
    failure: Failure | None = None,
    result: bytes | None = None,
    due: float | None = None,
) -> Change | None:
    """The change an event makes to a task, or None when the table has no such row.

    `container_id` is needed for CLAIM, `failure` for every unhappy event, `result` for SUCCEED, `due` for RETRY.
    """
    row = TABLE.get((task.status, event))
    if row is None:
        return None
    if event is Event.CLAIM:
        return _claim(task, now, container_id)
    if event is Event.RETURN:
        return _return(task, now)
    attempt = None
    if row.attempt is not None:
        started = task.started_at if task.started_at is not None else now
        attempt = Attempt(task.id, task.attempts, task.container_id, row.attempt, started, now, failure)
    after = msgspec.structs.replace(
        task,
        status=row.to,
        updated_at=now,
        ended_at=now if row.final else None,
        due=task.due if due is None else due,
        failure=failure,
    )
    return Change(after, task.status, task.attempts, attempt, result=result, notify=row.final)


def _claim(task: Task, now: float, container_id: str) -> Change:
    after = msgspec.structs.replace(
        task, status=S.RUNNING, updated_at=now, started_at=now, attempts=task.attempts + 1, container_id=container_id
    )
    return Change(after, task.status, task.attempts)


def _return(task: Task, now: float) -> Change:
    """As if it had not been claimed: the attempt is not counted, and its place in the line is the old one.

    The number will be given again. That is safe: whoever held the attempt has said that it dropped it, and reports
    count only from the container that the task is in.
    """
    after = msgspec.structs.replace(
        task, status=S.PENDING, updated_at=now, started_at=None, attempts=task.attempts - 1, container_id=""
    )
    return Change(after, task.status, task.attempts)


def after_failure(
    task: Task,
    failure: Failure,
    config: QueueConfig,
    now: float,
    chance: float,
    *,
    retryable: bool = True,
    excused: int = 0,
) -> Change | None:
    """The change a failed attempt makes: RETRY at a later time while retries are left, else FAILED or TIMEOUT.

    `excused` of the task's attempts were interrupted and do not count; one that is interrupted now is followed by
    another at once, unless the queue never runs anything twice (`retries=0`).
    """
    if failure.kind is FailureKind.TIMEOUT:
        return decide(task, Event.TIMEOUT, now, failure=failure)
    if failure.kind is FailureKind.INTERRUPTED and config.retries:
        return decide(task, Event.RETRY, now, failure=failure, due=now)
    counted = task.attempts - excused
    if retry.allowed(failure.kind, counted, config.retries, retryable=retryable):
        due = now + retry.delay(counted, config, chance)
        return decide(task, Event.RETRY, now, failure=failure, due=due)
    return decide(task, Event.FAIL, now, failure=failure)
