"""What every store must do with decisions: all of a change is written, or nothing when its guard fails."""

from __future__ import annotations

import msgspec
import pytest

from treadle.model.task import Change, Delivery, DeliveryStatus, Output, TaskStatus
from treadle.store.base import Reader, Store

from .conftest import OpenStore
from .making import CONTAINER, NOW, URL, claim, claimed, ended, insert, read, retried, task, write


def test_a_whole_life_is_written(store: Store, reader: Reader) -> None:
    """Claim, failure, second claim, completion: the task row and each attempt say so."""
    insert(store, task("a"))
    failure = retried(claim(store, "a"), due=NOW + 4)
    assert write(store, failure) == [True]
    assert reader.task("a") == failure.task
    assert reader.attempts("a") == [failure.attempt]

    success = ended(claim(store, "a"), TaskStatus.COMPLETE, result=b'{"n":1}')
    assert write(store, success) == [True]
    assert reader.task("a") == success.task
    assert reader.attempts("a") == [failure.attempt, success.attempt]
    assert reader.result("a") == b'{"n":1}'


@pytest.mark.parametrize("result", [b"null", b"0", b'""', b"[]", b"false"])
def test_a_falsy_result_is_a_result(store: Store, result: bytes) -> None:
    """Raw JSON comes back byte for byte, whatever it says."""
    insert(store, task("a"))
    write(store, ended(claim(store, "a"), TaskStatus.COMPLETE, result=result))

    assert store.result("a") == result


def test_only_a_complete_task_has_a_result(store: Store) -> None:
    """A task that left COMPLETE has no result, and its next one replaces the old."""
    insert(store, task("a"))
    done = ended(claim(store, "a"), TaskStatus.COMPLETE, result=b"1")
    write(store, done)
    replayed = msgspec.structs.replace(done.task, status=TaskStatus.PENDING, ended_at=None)
    assert write(store, Change(replayed, TaskStatus.COMPLETE, 1)) == [True]
    assert store.result("a") is None

    write(store, ended(claim(store, "a"), TaskStatus.COMPLETE, result=b"2"))
    assert store.result("a") == b"2"


def test_a_stale_attempt_is_refused_everything(store: Store) -> None:
    """A late end of attempt 1, while attempt 2 runs, writes no task, attempt, result, webhook or output."""
    insert(store, task("a", callback_url=URL))
    stale = claim(store, "a")
    write(store, retried(stale, due=NOW))
    current = claim(store, "a", container_id="another")
    before = store.attempts("a")

    assert write(store, ended(stale, TaskStatus.COMPLETE, result=b"1", notify=True)) == [False]

    assert read(store, "a") == current
    assert store.attempts("a") == before
    assert (store.result("a"), store.deliveries("a")) == (None, [])


@pytest.mark.parametrize("status", [TaskStatus.COMPLETE, TaskStatus.CANCELLED, TaskStatus.EXPIRED])
def test_a_finished_task_is_not_claimed(store: Store, status: TaskStatus) -> None:
    """A claim that was decided before the task ended inserts no attempt."""
    insert(store, task("a"))
    late = claimed(read(store, "a"))
    final = msgspec.structs.replace(late.task, status=status, attempts=0)
    assert write(store, Change(final, TaskStatus.PENDING, 0)) == [True]

    assert write(store, late) == [False]
    assert store.attempts("a") == []
    assert store.running_in(CONTAINER) == []


def test_an_unknown_task_is_refused(store: Store) -> None:
    """A change to a task that does not exist is False and writes nothing."""
    assert write(store, claimed(task("never"))) == [False]
    assert write(store, claimed(task("never", seq=7))) == [False]
    assert store.attempts("never") == []


def test_a_change_is_held_to_its_id(store: Store) -> None:
    """A seq that belongs to another task does not let a change through."""
    insert(store, task("a"))
    seq = read(store, "a").seq

    assert write(store, claimed(task("b", seq=seq))) == [False]
    assert read(store, "a").status is TaskStatus.PENDING


def test_answers_are_in_the_order_of_the_changes(store: Store) -> None:
    """One batch: each change is judged alone."""
    insert(store, task("a"), task("b"), task("c"))
    claim(store, "b")
    changes = [claimed(read(store, name)) for name in ("a", "c")]
    twice = claimed(task("b", seq=read(store, "b").seq))

    assert write(store, changes[0], twice, changes[1]) == [True, False, True]


def test_one_task_may_change_several_times_in_a_batch(store: Store) -> None:
    """Claim, failure, claim and end of one task in one call leave what four calls would leave."""
    insert(store, task("a"), task("b"))
    first = claimed(read(store, "a"))
    failure = retried(first.task, due=NOW)
    second = claimed(failure.task, container_id="another")
    end = ended(second.task, TaskStatus.FAILED)

    assert write(store, first, claimed(read(store, "b")), failure, second, end, second) == [True] * 5 + [False]
    assert read(store, "a") == end.task
    assert store.attempts("a") == [failure.attempt, end.attempt]


def test_the_webhook_is_written_with_the_final_state(store: Store, reader: Reader) -> None:
    """A PENDING delivery, due at once, appears in the commit of the final state and not before."""
    insert(store, task("a", callback_url=URL))
    end = ended(claim(store, "a"), TaskStatus.FAILED, notify=True)
    with store.transaction():
        assert store.commit([end]) == [True]
        assert reader.deliveries("a") == []

    at = end.task.updated_at
    assert reader.deliveries("a") == [Delivery("msg_a", "a", URL, DeliveryStatus.PENDING, at, at)]


@pytest.mark.parametrize(("url", "notify"), [(None, True), (URL, False)])
def test_no_webhook_without_url_or_notify(store: Store, url: str | None, notify: bool) -> None:
    """A task without callback_url, or a change that does not ask for it, writes no delivery."""
    insert(store, task("a", callback_url=url))
    write(store, ended(claim(store, "a"), TaskStatus.COMPLETE, result=b"1", notify=notify))

    assert store.deliveries("a") == []


def test_decisions_of_a_failed_transaction_are_gone(open_store: OpenStore) -> None:
    """Nothing of a change survives a rollback, not even in the file."""
    store = open_store()
    insert(store, task("a", callback_url=URL))
    running = claim(store, "a")
    with pytest.raises(ZeroDivisionError), store.transaction():
        assert store.commit([ended(running, TaskStatus.COMPLETE, result=b"1", notify=True)]) == [True]
        raise ZeroDivisionError
    store.close()

    again = open_store()
    assert again.task("a") == running
    assert [attempt.status for attempt in again.attempts("a")] == [TaskStatus.RUNNING]
    assert (again.result("a"), again.deliveries("a")) == (None, [])


# outputs


def output(number: int, attempt: int) -> Output:
    return Output(f"o{number}", "a", attempt, "cat.png", 12, NOW, f"outputs/a/o{number}")


def save(store: Store, saved: Output) -> bool:
    with store.transaction():
        return store.insert_output(saved)


def test_outputs_of_the_running_attempt_are_kept(store: Store, reader: Reader) -> None:
    """Oldest first, of all attempts; the same name twice is two outputs."""
    insert(store, task("a"))
    running = claim(store, "a")
    assert save(store, output(2, attempt=1))
    write(store, retried(running, due=NOW))
    claim(store, "a")
    assert save(store, output(1, attempt=2))

    assert reader.outputs("a") == [output(2, 1), output(1, 2)]
    assert reader.output("o1") == output(1, 2)
    assert reader.output("o3") is None


def test_a_stale_attempt_saves_no_output(store: Store) -> None:
    """Refused before the attempt, after it, in a later one, and for a task that is unknown."""
    insert(store, task("a"), task("b"))
    assert not save(store, output(1, attempt=0))
    running = claim(store, "a")
    assert not save(store, output(2, attempt=2))
    write(store, retried(running, due=NOW))
    assert not save(store, output(3, attempt=1))
    claim(store, "a")
    assert not save(store, output(4, attempt=1))
    assert not save(store, msgspec.structs.replace(output(5, attempt=1), task_id="unknown"))

    assert store.outputs("a") == []
