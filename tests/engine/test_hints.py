"""Hints of a transaction that is rolled back leave no trace."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.engine.hints import Hints, Journal

CONTAINERS = {"a": "d1", "b": "d1", "c": "d2"}
NAMES = st.sampled_from(sorted(CONTAINERS))
HOMES = st.sampled_from(["d1", "d2"])
JOURNALLED = st.one_of(
    st.tuples(st.just("give"), NAMES, st.integers(-2, 3), st.integers(1, 2)),
    st.tuples(st.just("take"), HOMES),
    st.tuples(st.just("detach"), NAMES),
    st.tuples(st.just("move"), HOMES, st.integers(-2, 2), st.integers(-2, 2)),
    st.tuples(st.just("due"), HOMES, st.none() | st.floats(0, 9)),
)
FACTS = st.one_of(
    st.tuples(st.just("attach"), NAMES, st.integers(-1, 3), st.integers(1, 2)),
    st.tuples(st.just("unlink"), NAMES, st.integers(1, 2)),
)


def do(hints: Hints, op: tuple[Any, ...], now: float = 0.0) -> None:
    match op:
        case ("give", name, count, link):
            hints.slots.give(name, count, link, now)
        case ("take", home):
            hints.slots.take(home, 1)
        case ("detach", name):
            hints.slots.detach(name)
        case ("move", home, waiting, running):
            hints.counts.move(home, waiting=waiting, running=running)
        case ("due", home, due):
            hints.counts.set_due(home, due)
        case ("attach", name, free, link):
            hints.slots.attach(name, CONTAINERS[name], free, link=link, now=now)
        case ("unlink", name, link):
            hints.slots.unlink(name, link)


def seen(hints: Hints) -> Any:
    counts, slots = hints.counts, hints.slots
    return deepcopy((
        {k: n for k, n in counts.waiting.items() if n},
        {k: n for k, n in counts.running.items() if n},
        counts.next_due,
        {name: (slots.home(name), slots.free_in(name)) for name in CONTAINERS},
        {home: slots.room(home) for home in ("d1", "d2")},
    ))


@given(st.lists(JOURNALLED | FACTS, max_size=12), st.lists(JOURNALLED, max_size=12))
def test_a_rollback_puts_everything_back(before: list[Any], undone: list[Any]) -> None:
    """Whatever was given, taken, detached, counted or planned since the mark."""
    hints = Hints()
    for op in before:
        do(hints, op)
    mark, was = hints.journal.mark(), seen(hints)
    for op in undone:
        do(hints, op)
    hints.journal.back_to(mark)
    assert seen(hints) == was


@given(st.lists(JOURNALLED | FACTS, max_size=30), st.lists(st.integers(0, 30), max_size=5))
def test_free_children_are_never_counted_for_a_container_without_a_link(ops: list[Any], undo_at: list[int]) -> None:
    """Nor are there fewer in the sum than in its parts, whatever is rolled back in between."""
    hints = Hints()
    for number, op in enumerate(ops):
        do(hints, op)
        if number in undo_at:
            hints.journal.back_to(0)
        if op[0] == "unlink":
            home = hints.slots.home(op[1])
            assert home is None or hints.slots.home(op[1]) == CONTAINERS[op[1]]
        for home in ("d1", "d2"):
            parts = [max(hints.slots.free_in(name), 0) for name, at in CONTAINERS.items() if at == home]
            assert hints.slots.room(home) == sum(parts)
        for name in CONTAINERS:
            assert hints.slots.home(name) is not None or hints.slots.free_in(name) == 0


def test_an_old_link_is_not_heard() -> None:
    """What it still says about free children, and its end, change nothing for the new link."""
    hints = Hints()
    slots = hints.slots
    slots.attach("a", "d1", 1, link=1, now=0.0)
    slots.attach("a", "d1", 2, link=2, now=1.0)
    slots.give("a", 1, link=1, now=2.0)
    slots.unlink("a", link=1)
    assert slots.room("d1") == 2
    slots.unlink("a", link=2)
    assert (slots.room("d1"), slots.home("a"), slots.take("d1", 1)) == (0, None, [])


def test_a_debt_is_paid_before_anything_is_free() -> None:
    """A container with more work than children takes none until as many children have become free."""
    slots = Hints().slots
    slots.attach("a", "d1", -1, link=1, now=0.0)
    slots.give("a", 1, link=1, now=1.0)
    assert slots.take("d1", 1) == []
    slots.give("a", 1, link=1, now=2.0)
    assert slots.take("d1", 2) == ["a"]


def test_the_end_of_a_link_is_not_undone() -> None:
    """A rollback does not bring back a container whose link closed meanwhile."""
    hints = Hints()
    hints.slots.attach("a", "d1", 1, link=1, now=0.0)
    hints.journal.forget()
    hints.slots.take("d1", 1)
    hints.slots.detach("a")
    hints.slots.unlink("a", link=1)
    hints.journal.back_to(0)
    assert (hints.slots.home("a"), hints.slots.room("d1")) == (None, 0)


@pytest.mark.parametrize("free", [0, 1, 3])
def test_idle_since_is_when_a_child_last_became_free(free: int) -> None:
    """Connecting counts, taking work does not."""
    slots = Hints().slots
    slots.attach("a", "d1", free, link=1, now=5.0)
    slots.take("d1", 1)
    assert slots.idle_since["a"] == 5.0
    slots.give("a", 1, link=1, now=9.0)
    assert slots.idle_since["a"] == 9.0
    slots.detach("a")
    assert "a" not in slots.idle_since


KEYS = st.sampled_from("abc")
WRITES = st.lists(st.tuples(KEYS, st.none() | st.integers(0, 9)))


@given(st.dictionaries(KEYS, st.integers(0, 9)), WRITES)
def test_a_table_is_as_it_was(before: dict[str, int], writes: list[tuple[str, int | None]]) -> None:
    """Whatever was put into it and dropped from it, once or often, before the rollback."""
    table, journal = dict(before), Journal()
    for key, value in writes:
        if value is None:
            journal.drop(table, key)
        else:
            journal.put(table, key, value)
    journal.back_to(0)
    assert table == before
