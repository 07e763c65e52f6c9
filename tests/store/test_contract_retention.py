"""Forgetting what ended long ago: chosen in slices from the oldest on, deleted with all that belongs to it."""

from __future__ import annotations

import msgspec

from treadle.model.container import Container, ContainerStatus
from treadle.model.task import DeliveryStatus, Output, TaskStatus
from treadle.store.base import Store

from .making import NOW, claim, ended, insert, task, write

URL = "https://example.com/hook"


def finish(store: Store, task_id: str, at: float, *, result: bytes | None = None, notify: bool = False) -> None:
    change = ended(claim(store, task_id), TaskStatus.COMPLETE, at, result=result, notify=notify)
    assert write(store, change) == [True]


def test_only_what_ended_before_the_time_is_chosen(store: Store) -> None:
    """Waiting, running and recently ended tasks stay."""
    insert(store, *(task(name) for name in ("old", "waiting", "running", "fresh")))
    finish(store, "old", NOW + 5)
    finish(store, "fresh", NOW + 50)
    claim(store, "running")
    chosen, last = store.ended(NOW + 10, 0, 100)
    assert [old.task_id for old in chosen] == ["old"]
    assert last is None


def test_a_walk_goes_on_where_the_slice_before_ended(store: Store) -> None:
    """The last seq of a full slice is where the next one begins; at what is too young the walk ends."""
    insert(store, *(task(f"t{n}") for n in range(5)), task("young", created_at=NOW + 100))
    for n in range(5):
        finish(store, f"t{n}", NOW + 5)
    seen: list[str] = []
    after: int | None = 0
    while after is not None:
        chosen, after = store.ended(NOW + 10, after, 2)
        seen += [old.task_id for old in chosen]
    assert seen == ["t0", "t1", "t2", "t3", "t4"]


def test_a_task_with_a_webhook_to_send_is_kept(store: Store) -> None:
    """It may be forgotten once the delivery has come to its end."""
    insert(store, task("a", callback_url=URL))
    finish(store, "a", NOW + 5, notify=True)
    assert store.ended(NOW + 10, 0, 100) == ([], None)
    (delivery,) = store.deliveries("a")
    with store.transaction():
        store.update_delivery(msgspec.structs.replace(delivery, status=DeliveryStatus.DELIVERED))
    assert [old.task_id for old in store.ended(NOW + 10, 0, 100)[0]] == ["a"]


def test_a_forgotten_task_leaves_nothing_behind(store: Store) -> None:
    """Its row goes with payload, result, attempts, outputs and deliveries; its neighbour keeps all of them."""
    for name in ("gone", "kept"):
        insert(store, task(name, callback_url=URL))
        running = claim(store, name)
        with store.transaction():
            assert store.insert_output(Output(f"out-{name}", name, 1, "a.txt", 1, NOW, f"outputs/{name}"))
        write(store, ended(running, TaskStatus.COMPLETE, NOW + 5, result=b"1", notify=True))
    gone = store.task("gone")
    assert gone is not None
    with store.transaction():
        store.forget_tasks([gone.seq])
    for name, there in (("gone", False), ("kept", True)):
        kept = [store.task(name), store.payload(name), store.result(name)]
        lists = [store.attempts(name), store.outputs(name), store.deliveries(name)]
        assert [part is not None for part in kept] + [bool(rows) for rows in lists] == [there] * 6


def test_containers_that_stopped_long_ago_are_forgotten(store: Store) -> None:
    """At most as many as asked for; live ones and those that stopped lately stay."""
    with store.transaction():
        for name, status, at in (("old", ContainerStatus.STOPPED, 5), ("new", ContainerStatus.STOPPED, 50), ("on", ContainerStatus.RUNNING, 5)):
            row = Container(name, 1, "d", "agent", status, f"hash of {name}", NOW, NOW, ended_at=NOW + at)
            store.insert_container(row)
        store.forget_containers(NOW + 10, 100)
    assert [name for name in ("old", "new", "on") if store.container(name)] == ["new", "on"]
