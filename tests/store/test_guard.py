"""The guard of `commit` against random decisions: the store agrees with a dictionary."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.model.task import Attempt, Change, TaskStatus
from treadle.store.base import Store

from .conftest import FACTORIES, OpenStore
from .making import NOW, insert, read, task

NAMES = ("a", "b")
STATUSES = (TaskStatus.PENDING, TaskStatus.RUNNING, TaskStatus.RETRY, TaskStatus.COMPLETE)
State = tuple[TaskStatus, int]
Memory = dict[str, tuple[State, dict[int, TaskStatus]]]  # each task's state and its attempts


class Step(msgspec.Struct, frozen=True):
    """A decision made in the belief that the task is `expected`; right or wrong."""

    name: str
    expected: State
    after: TaskStatus


STATES = st.tuples(st.sampled_from(STATUSES), st.integers(0, 2))
STEPS = st.builds(Step, st.sampled_from(NAMES), STATES, st.sampled_from(STATUSES))
BATCHES = st.lists(st.tuples(st.lists(STEPS, max_size=6), st.booleans()), max_size=6)


def change_of(store: Store, step: Step) -> Change:
    """A claim starts an attempt, leaving RUNNING ends it, the rest touches none."""
    status, attempts = step.expected
    number, attempt = attempts, None
    if step.after is TaskStatus.RUNNING and status is not TaskStatus.RUNNING:
        number += 1
    elif status is TaskStatus.RUNNING and step.after is not TaskStatus.RUNNING:
        attempt = Attempt(step.name, attempts, "", TaskStatus.COMPLETE, NOW, NOW)
    after = msgspec.structs.replace(read(store, step.name), status=step.after, attempts=number)
    return Change(after, status, attempts, attempt)


def applied(memory: Memory, step: Step, change: Change) -> bool:
    """The same decision on the dictionary."""
    state, attempts = memory[step.name]
    if state != step.expected:
        return False
    if change.attempt is not None:
        attempts[change.attempt.number] = change.attempt.status
    memory[step.name] = ((change.task.status, change.task.attempts), attempts)
    return True


def seen(store: Store) -> Memory:
    return {
        name: (
            (read(store, name).status, read(store, name).attempts),
            {attempt.number: attempt.status for attempt in store.attempts(name) if attempt.ended_at is not None},
        )
        for name in NAMES
    }


@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
@settings(max_examples=60)
@given(batches=BATCHES)
def test_the_guard_lets_through_what_is_expected_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory,
    factory: Callable[[Path], OpenStore],
    batches: list[tuple[list[Step], bool]],
) -> None:
    """After every batch, kept or undone, tasks and attempts are those of a plain dictionary."""
    store = factory(tmp_path_factory.mktemp("store"))()
    insert(store, *(task(name) for name in NAMES))
    memory: Memory = {name: ((TaskStatus.PENDING, 0), {}) for name in NAMES}
    for steps, undone in batches:
        trial: Memory = {name: (state, dict(attempts)) for name, (state, attempts) in memory.items()}
        changes = [change_of(store, step) for step in steps]
        expected = [applied(trial, step, change) for step, change in zip(steps, changes, strict=True)]
        with store.transaction():
            try:
                with store.savepoint():
                    assert store.commit(changes) == expected
                    if undone:
                        raise InterruptedError
            except InterruptedError:
                pass
            else:
                memory = trial
        assert seen(store) == memory
    store.close()
