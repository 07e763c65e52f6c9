"""What every store must do with transactions and tasks, whichever database keeps them."""

from __future__ import annotations

import threading

import msgspec
import pytest

from treadle.model.errors import Conflict, TreadleError
from treadle.model.task import NewTask, TaskStatus
from treadle.store.base import Reader, Store

from .conftest import OpenStore
from .making import (
    CONTAINER,
    DEPLOYMENT,
    NOW,
    RAISED,
    URL,
    attempt_of,
    claim,
    claimed,
    ended,
    furnish,
    ids,
    insert,
    listed,
    payload_of,
    read,
    task,
    write,
)

# transactions


def test_a_rollback_leaves_nothing(store: Store, reader: Reader) -> None:
    """A transaction whose body raises has written nothing, and the store goes on."""
    with pytest.raises(ZeroDivisionError), store.transaction():
        furnish(store, task("a"))
        store.insert_tasks([NewTask(task("a"), b"{}")])
        store.add_source(1, "s", 3, NOW)
        raise ZeroDivisionError

    insert(store, task("b"))
    assert listed(reader) == ["b"]
    assert reader.payload("a") is None
    assert not reader.has_source(1, "s")


def test_a_savepoint_undoes_only_itself(store: Store, reader: Reader) -> None:
    """A verb that fails takes back its own writes, not those of its neighbours in the transaction."""
    with store.transaction():
        with store.savepoint():
            furnish(store, task("before"))
            store.insert_tasks([NewTask(task("before"), b"{}")])
        with pytest.raises(ZeroDivisionError), store.savepoint():
            store.insert_tasks([NewTask(task("undone"), b"{}")])
            raise ZeroDivisionError
        with store.savepoint():
            store.insert_tasks([NewTask(task("after"), b"{}")])

    assert listed(reader) == ["after", "before"]
    assert reader.payload("undone") is None


def test_savepoints_nest(store: Store) -> None:
    """An inner savepoint that failed leaves the outer one's writes."""
    with store.transaction(), store.savepoint():
        store.add_source(1, "outer", 1, NOW)
        with pytest.raises(ZeroDivisionError), store.savepoint():
            store.add_source(1, "inner", 1, NOW)
            raise ZeroDivisionError

    assert store.has_source(1, "outer")
    assert not store.has_source(1, "inner")


def test_a_reader_sees_what_is_committed(store: Store, reader: Reader) -> None:
    """The writer sees its own transaction at once, a reader when it is committed."""
    with store.transaction():
        furnish(store, task("a"))
        store.insert_tasks([NewTask(task("a"), b"{}")])
        assert listed(store) == ["a"]
        assert listed(reader) == []
    assert listed(reader) == ["a"]


def test_writing_needs_a_transaction(store: Store) -> None:
    """A write outside a transaction is refused: it would be durable alone and in part."""
    with store.transaction():
        furnish(store, claimed(task("a")).task)
    with pytest.raises(TreadleError, match="outside a transaction"):
        store.insert_tasks([NewTask(task("a"), b"{}")])
    with pytest.raises(TreadleError, match="outside a transaction"):
        store.commit([claimed(task("a"))])
    with pytest.raises(TreadleError, match="outside a transaction"), store.savepoint():
        pass
    assert listed(store) == []


def test_the_same_id_twice_is_a_conflict(store: Store) -> None:
    """A second row with an id that exists is refused with Conflict, and its savepoint can be left."""
    insert(store, task("a"))
    with store.transaction():
        with pytest.raises(Conflict), store.savepoint():
            store.insert_tasks([NewTask(task("b"), b"{}"), NewTask(task("a"), b"{}")])
        store.insert_tasks([NewTask(task("c"), b"{}")])

    assert listed(store) == ["c", "a"]


def test_another_thread_may_write(store: Store, reader: Reader) -> None:
    """The writer's thread need not be the one that opened the store."""
    writer = threading.Thread(target=insert, args=(store, task("a")))
    writer.start()
    writer.join(10)

    assert listed(reader) == ["a"]


def test_everything_is_kept_when_the_store_is_opened_again(open_store: OpenStore) -> None:
    """Tasks, payloads, attempts and results outlive the process, and numbering goes on."""
    first = open_store()
    insert(first, task("a"), task("b"))
    done = ended(claim(first, "a"), TaskStatus.COMPLETE, result=b"0")
    assert write(first, done) == [True]
    first.close()

    again = open_store()
    assert again.task("a") == done.task
    assert again.payload("b") == payload_of("b")
    assert again.attempts("a") == [done.attempt]
    assert again.result("a") == b"0"
    insert(again, task("c"))
    assert listed(again) == ["c", "b", "a"]


# inserting


def test_a_task_is_read_as_it_was_inserted(store: Store, reader: Reader) -> None:
    """Every field comes back, with a seq of the store's own."""
    full = task(
        "a", due=NOW + 5, attempts=2, started_at=NOW + 1, ended_at=NOW + 2, expires_at=NOW + 9,
        status=TaskStatus.RETRY, container_id=CONTAINER, callback_url=URL, callback_trusted=True, failure=RAISED,
    )  # fmt: skip
    insert(store, full, task("b"))

    found = read(reader, "a")
    assert found == msgspec.structs.replace(full, seq=found.seq)
    assert 0 < found.seq < read(reader, "b").seq
    assert reader.payload("a") == payload_of("a")
    assert reader.result("a") is None
    assert not any((reader.attempts("a"), reader.outputs("a"), reader.deliveries("a")))


def test_an_unknown_task_has_nothing(reader: Reader) -> None:
    """Questions about an unknown id are answered with None or an empty list."""
    assert (reader.task("x"), reader.payload("x"), reader.result("x")) == (None, None, None)
    assert (reader.attempts("x"), reader.outputs("x"), reader.deliveries("x")) == ([], [], [])


def test_a_task_can_be_inserted_already_claimed(store: Store) -> None:
    """Claim-on-insert: the task is RUNNING with its first attempt, and is not among the waiting."""
    change = claimed(task("a"))
    with store.transaction():
        furnish(store, change.task)
        first = store.insert_tasks([NewTask(change.task, b"{}"), NewTask(task("b"), b"{}")])

    assert read(store, "a") == msgspec.structs.replace(change.task, seq=first)
    assert store.attempts("a") == [attempt_of(change.task)]
    assert ids(store.running_in(CONTAINER)) == ["a"]
    assert [each.id for each, _ in store.waiting(DEPLOYMENT, NOW, 9, most=1_000_000)] == ["b"]


def test_a_task_that_was_never_read_back_can_be_changed(store: Store) -> None:
    """A change to a task whose seq the caller does not know finds its row by the id."""
    start = claimed(task("a"))
    with store.transaction():
        furnish(store, start.task)
        store.insert_tasks([NewTask(task("other"), b"{}"), NewTask(start.task, b"{}")])
        assert store.commit([ended(start.task, TaskStatus.COMPLETE, result=b"1")]) == [True]

    assert store.result("a") == b"1"
    assert [attempt.status for attempt in store.attempts("a")] == [TaskStatus.COMPLETE]


# waiting


def test_waiting_is_by_due_then_in_order_of_acceptance(store: Store) -> None:
    """FIFO by (due, seq); what is due later, expired, of another deployment or not waiting is left out."""
    insert(
        store,
        task("third"),
        task("fourth"),
        task("first", due=NOW - 2),
        task("second", due=NOW - 1, status=TaskStatus.RETRY, attempts=1),
        task("later", due=NOW + 1),
        task("expired", expires_at=NOW),
        task("fifth", expires_at=NOW + 0.5),
        task("elsewhere", deployment_id="other"),
        task("done", status=TaskStatus.COMPLETE),
        task("running", status=TaskStatus.RUNNING, attempts=1),
    )
    order = ["first", "second", "third", "fourth", "fifth"]

    found = store.waiting(DEPLOYMENT, NOW, 9, most=1_000_000)
    assert [each.id for each, _ in found] == order
    assert [payload for _, payload in found] == [payload_of(each) for each in order]
    assert [each.id for each, _ in store.waiting(DEPLOYMENT, NOW, 2, most=1_000_000)] == order[:2]


def test_waiting_reads_no_more_payloads_than_are_asked_for(store: Store) -> None:
    """Of those in line as many as fit, and the first of them however large it is; large ones lie elsewhere."""
    sizes = {"a": 10, "b": 20_000, "c": 10}
    with store.transaction():
        furnish(store, claimed(task("a")).task)
        store.insert_tasks([NewTask(task(name), b"x" * size) for name, size in sizes.items()])

    def found(most: int, limit: int = 9) -> list[str]:
        return [each.id for each, _ in store.waiting(DEPLOYMENT, NOW, limit, most=most)]

    assert [found(most) for most in (0, 10, 20_009, 20_010, 20_020)] == [["a"], ["a"], ["a"], ["a", "b"], ["a", "b", "c"]]
    assert found(20_020, limit=2) == ["a", "b"]
    with store.transaction():  # nothing is held open
        store.commit([claimed(task("a"))])
    assert found(10) == ["b"]


def test_next_due_is_the_earliest_waiting(store: Store) -> None:
    """`next_due` looks at waiting tasks of the deployment only; without any it is None."""
    insert(store, task("a", due=NOW - 9, status=TaskStatus.FAILED), task("b", due=NOW + 7), task("c", due=NOW + 3))

    assert store.next_due(DEPLOYMENT) == NOW + 3
    assert store.next_due("other") is None


def test_expired_are_the_waiting_past_their_ttl(store: Store) -> None:
    """The longest overdue first, at most `limit`; a running task does not expire."""
    insert(
        store,
        task("b", expires_at=NOW),
        task("a", expires_at=NOW - 1, status=TaskStatus.RETRY),
        task("not yet", expires_at=NOW + 1),
        task("never"),
        task("running", expires_at=NOW - 1, status=TaskStatus.RUNNING),
    )

    assert ids(store.expired(NOW, 9)) == ["a", "b"]
    assert ids(store.expired(NOW, 1)) == ["a"]


def test_unfinished_counts_waiting_and_running(store: Store) -> None:
    """(waiting, running) per deployment; one that has neither is not there."""
    insert(store, *(task(f"w{n}") for n in range(3)), task("retry", status=TaskStatus.RETRY, deployment_id="other"))
    claim(store, "w0")
    claim(store, "w1", container_id="another-container")
    insert(store, task("done", deployment_id="quiet", status=TaskStatus.COMPLETE))

    assert store.unfinished() == {DEPLOYMENT: (1, 2), "other": (1, 0)}


def test_running_in_is_by_container(store: Store) -> None:
    """Only RUNNING tasks of that container, in order of acceptance."""
    insert(store, task("a"), task("b"), task("c"), task("d"))
    for name in ("c", "a", "d"):
        claim(store, name)
    claim(store, "b", container_id="other")
    write(store, ended(read(store, "d"), TaskStatus.COMPLETE, result=b"1"))

    assert ids(store.running_in(CONTAINER)) == ["a", "c"]
    assert ids(store.running_in("other")) == ["b"]
