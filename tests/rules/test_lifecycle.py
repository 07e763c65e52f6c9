"""The one table of a task's life: every status meets every event."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.model.deployment import QueueConfig
from treadle.model.task import FINAL, WAITING, Attempt, Failure, FailureKind, Task, TaskStatus
from treadle.rules.lifecycle import TABLE, Event, after_failure, decide

S, E = TaskStatus, Event
BOOM = Failure(FailureKind.EXCEPTION, "ValueError: no")

# The whole product; "-" is a refusal. Columns: the events in their order.
PRODUCT = """
           claim    return   succeed   retry  fail    timeout  cancel     expire
PENDING    RUNNING  -        -         -      -       -        CANCELLED  EXPIRED
RUNNING    -        PENDING  COMPLETE  RETRY  FAILED  TIMEOUT  CANCELLED  -
RETRY      RUNNING  -        -         -      -       -        CANCELLED  EXPIRED
COMPLETE   -        -        -         -      -       -        -          -
FAILED     -        -        -         -      -       -        -          -
CANCELLED  -        -        -         -      -       -        -          -
TIMEOUT    -        -        -         -      -       -        -          -
EXPIRED    -        -        -         -      -       -        -          -
"""
HEADER, *LINES = [line.split() for line in PRODUCT.strip().splitlines()]
CELLS = [(line[0], event, cell) for line in LINES for event, cell in zip(HEADER, line[1:], strict=True)]


def task(status: TaskStatus, attempts: int = 1) -> Task:
    number = 0 if status is S.PENDING else attempts
    started = None if status is S.PENDING else 5.0
    return Task("t", 1, "d", status, 1.0, 5.0, 1.0, attempts=number, started_at=started, container_id="c" if number else "")


def test_the_table_below_is_complete() -> None:
    """Each status and each event is in it."""
    assert {(a, b) for a, b, _ in CELLS} == {(a.value, b.value) for a, b in product(S, E)}


@pytest.mark.parametrize(("status", "event", "expected"), CELLS)
def test_every_status_meets_every_event(status: str, event: str, expected: str) -> None:
    """An event leads to the status in its cell, or changes nothing."""
    before = task(S(status))
    change = decide(before, E(event), 9.0, container_id="new", failure=BOOM, result=b"1", due=20.0)
    if expected == "-":
        assert change is None
        return
    assert change is not None
    assert (change.task.status, change.task.updated_at) == (S(expected), 9.0)
    assert (change.expected, change.expected_attempts) == (before.status, before.attempts)
    assert change.notify == (change.task.status in FINAL)
    assert (change.task.ended_at is not None) == (change.task.status in FINAL)


def test_what_was_given_back_is_as_if_it_had_not_been_claimed() -> None:
    """The attempt is not counted and leaves no trace, and the task keeps its place in the line."""
    waiting = task(S.PENDING)
    claim = decide(waiting, E.CLAIM, 9.0, container_id="c")
    assert claim is not None
    back = decide(claim.task, E.RETURN, 10.0)
    assert back is not None
    assert back.attempt is None
    assert (back.task.status, back.task.attempts, back.task.due) == (S.PENDING, 0, waiting.due)
    assert (back.task.container_id, back.task.started_at) == ("", None)


@pytest.mark.parametrize(("status", "event"), [pair for pair in TABLE if pair[1] is not Event.RETURN])
def test_an_attempt_ends_with_its_task_and_no_other_way(status: TaskStatus, event: Event) -> None:
    """A running attempt ends in a final state of its own; a waiting task has none to end."""
    failure = None if event is E.SUCCEED else BOOM
    change = decide(task(status, attempts=2), event, 9.0, container_id="new", failure=failure, result=b"1", due=20.0)
    assert change is not None
    if status is S.RUNNING:
        ended = TABLE[status, event].attempt
        assert ended in FINAL
        assert change.attempt == Attempt("t", 2, "c", ended, 5.0, 9.0, failure)
    else:
        assert change.attempt is None


@pytest.mark.parametrize("status", sorted(WAITING))
def test_a_claim_starts_the_next_attempt(status: TaskStatus) -> None:
    """It counts the attempt, names the container and starts the clock."""
    before = task(status, attempts=2)
    change = decide(before, E.CLAIM, 9.0, container_id="new")
    assert change is not None
    number = before.attempts + 1
    assert (change.task.attempts, change.task.container_id, change.task.started_at) == (number, "new", 9.0)


def test_a_success_forgets_the_failures_before_it() -> None:
    """A task that succeeds on its second attempt has a result and no failure."""
    failed = decide(task(S.RUNNING), E.RETRY, 6.0, failure=BOOM, due=7.0)
    assert failed is not None and failed.task.failure == BOOM
    claimed = decide(failed.task, E.CLAIM, 7.0, container_id="c")
    assert claimed is not None
    done = decide(claimed.task, E.SUCCEED, 8.0, result=b"null")
    assert done is not None
    assert (done.result, done.task.failure, done.task.ended_at) == (b"null", None, 8.0)


@pytest.mark.parametrize(
    ("kind", "attempts", "retries", "retryable", "status"),
    [
        (FailureKind.EXCEPTION, 1, 3, True, S.RETRY),
        (FailureKind.EXCEPTION, 3, 3, True, S.RETRY),
        (FailureKind.EXCEPTION, 4, 3, True, S.FAILED),
        (FailureKind.EXCEPTION, 1, 0, True, S.FAILED),
        (FailureKind.EXCEPTION, 1, 3, False, S.FAILED),
        (FailureKind.OOM, 1, 3, False, S.RETRY),
        (FailureKind.LOST, 1, 1, True, S.RETRY),
        (FailureKind.LOST, 2, 1, True, S.FAILED),
        (FailureKind.RESULT, 1, 3, True, S.FAILED),
        (FailureKind.TIMEOUT, 1, 3, True, S.TIMEOUT),
    ],
)
def test_what_a_failed_attempt_makes_of_its_task(
    kind: FailureKind, attempts: int, retries: int, retryable: bool, status: TaskStatus
) -> None:
    """Another attempt while retries are left and one may help; a timeout is final."""
    config = QueueConfig(handler="app:f", retries=retries, retry_delay=2.0)
    change = after_failure(task(S.RUNNING, attempts), Failure(kind, "why"), config, 9.0, 0.0, retryable=retryable)
    assert change is not None
    assert (change.task.status, change.task.failure) == (status, Failure(kind, "why"))
    assert (change.task.due > 9.0) == (status is S.RETRY)


@pytest.mark.parametrize("status", [s for s in S if s is not S.RUNNING])
def test_only_a_running_task_can_fail(status: TaskStatus) -> None:
    """A failure told of a task that does not run changes nothing."""
    assert after_failure(task(status), BOOM, QueueConfig(handler="app:f"), 9.0, 0.5) is None


@given(st.lists(st.tuples(st.sampled_from(Event), st.floats(0, 10)), max_size=30), st.integers(0, 4))
def test_no_sequence_of_events_breaks_a_task(events: list[tuple[Event, float]], retries: int) -> None:
    """Attempts are counted one by one, a final state is the last, and one webhook is asked for at most."""
    config = QueueConfig(handler="app:f", retries=retries)
    now, notified, current = 1.0, 0, task(S.PENDING)
    for event, passed in events:
        now += passed
        if event in (E.RETRY, E.FAIL):
            change = after_failure(current, BOOM, config, now, 0.5)
        else:
            change = decide(current, event, now, container_id="c", failure=BOOM, result=b"1", due=now)
        if current.status in FINAL:
            assert change is None
        if change is None:
            continue
        assert change.task.attempts - current.attempts == (event is E.CLAIM) - (event is E.RETURN)
        assert (change.task.status is S.RUNNING) == (event is E.CLAIM)
        notified += change.notify
        current = change.task
    assert current.attempts <= 1 + retries
    assert notified == (current.status in FINAL)
    assert (current.ended_at is None) == (current.status not in FINAL)
