"""The verdict sees each broken promise: books that are in order pass, and books with one thing wrong do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .load import Told
from .verdict import Books, Note, Row, broken

END = Note("end", 7, "a", 2, "box", 30)
NOTES = [
    Note("begin", 7, "a", 1, "box", 10), Note("begin", 7, "a", 2, "box", 20), Note("saved", 7, "a", 2, "box", 25), END,
]  # fmt: skip
RESULT = json.dumps({"number": 7, "attempt": 2}).encode()
DONE = Row("COMPLETE", 2, "patient", RESULT, ("signal", ""))
FAILED = Row("FAILED", 3, "brief", None, ("signal", "lost", "signal"))
CANCELLED = Row("CANCELLED", 1, "patient", None, ("cancelled",))
OVERDUE = Row("TIMEOUT", 2, "overdue", None, ("signal", "timeout"))
EXPIRED = Row("EXPIRED", 1, "stale", None, ("signal",), 2.1)
UNHAPPY = {"c": CANCELLED, "d": OVERDUE, "e": EXPIRED}
SECOND = 1_000_000_000


@pytest.fixture
def books(tmp_path: Path) -> Books:
    """A task that took two attempts and saved an output, one that failed as often as it may, and one of each other end."""
    (tmp_path / "key").write_text("saved")
    return Books(
        accepted={"a": ("patient", 7), "b": ("brief", 8)},
        notes=NOTES,
        told=[Told("a", "COMPLETE", "m1"), Told("a", "COMPLETE", "m1"), Told("b", "FAILED", "m2")],
        tasks={"a": DONE, "b": FAILED} | UNHAPPY,
        deliveries=[("a", "m1", "DELIVERED"), ("b", "m2", "DELIVERED"), *((task, f"m{task}", "PENDING") for task in UNHAPPY)],
        outputs=[("a", 2, "key")],
        blob=tmp_path,
        asked={"a", "c"},
        cancelled={"c": SECOND},
    )


def test_books_in_order_pass(books: Books) -> None:
    """Retries, and a webhook that came twice with one id, are no broken promise."""
    assert broken(books) == []


WRONG: dict[str, Callable[[Books], Books]] = {
    "acknowledged and missing": lambda b: b._replace(accepted={**b.accepted, "z": ("once", 9)}),
    "not final": lambda b: b._replace(tasks={**b.tasks, "b": FAILED._replace(status="RETRY")}),
    "two attempts alive at once": lambda b: b._replace(notes=[*b.notes, Note("twice", 7, "a", 2, "box", 20)]),
    "begun 2 times": lambda b: b._replace(notes=[*b.notes, NOTES[0]]),
    "nobody asked: c (patient) is CANCELLED": lambda b: b._replace(asked=set(), cancelled={}),
    "nobody asked: b (brief) is EXPIRED": lambda b: b._replace(tasks={**b.tasks, "b": EXPIRED._replace(queue="brief")}),
    "nobody asked: b (brief) is TIMEOUT": lambda b: b._replace(tasks={**b.tasks, "b": OVERDUE._replace(queue="brief")}),
    "nobody asked: d (overdue) is COMPLETE": lambda b: b._replace(tasks={**b.tasks, "d": DONE._replace(queue="overdue")}),
    "answered as cancelled, and it is not": lambda b: b._replace(cancelled={"a": SECOND}),
    "went on 21 s after it was cancelled": lambda b: b._replace(
        notes=[*b.notes, Note("raised", 9, "c", 1, "box", 22 * SECOND)]
    ),
    "a timeout that ended no task": lambda b: b._replace(
        tasks={**b.tasks, "d": OVERDUE._replace(attempts=3, kinds=("timeout", "signal", "timeout"))}
    ),
    "or a task that it did not end": lambda b: b._replace(
        tasks={**b.tasks, "d": OVERDUE._replace(kinds=("signal", "lost"))}
    ),
    "expired after 1.9 s of 2.0": lambda b: b._replace(tasks={**b.tasks, "e": EXPIRED._replace(lived=1.9)}),
    "went on to its end past its timeout": lambda b: b._replace(notes=[*b.notes, Note("end", 9, "d", 2, "box", 40)]),
    "2 attempts, 1 allowed": lambda b: b._replace(
        tasks={**b.tasks, "b": Row("FAILED", 2, "once", None, ("interrupted", "lost"))}
    ),
    "4 attempts, 3 allowed": lambda b: b._replace(
        tasks={**b.tasks, "b": FAILED._replace(attempts=4, kinds=("lost",) * 4)}
    ),
    "given up after 2 of 3 attempts": lambda b: b._replace(
        tasks={**b.tasks, "b": FAILED._replace(attempts=2, kinds=("lost",) * 2)}
    ),
    "3 attempts and 2 rows": lambda b: b._replace(tasks={**b.tasks, "b": FAILED._replace(kinds=("lost",) * 2)}),
    "is not on the books": lambda b: b._replace(notes=[*b.notes, Note("begin", 7, "a", 3, "box", 40)]),
    "the result is not that of the last attempt": lambda b: b._replace(
        tasks={**b.tasks, "a": DONE._replace(result=RESULT.replace(b"2", b"1"))}
    ),
    "or that did not end": lambda b: b._replace(notes=NOTES[:3]),
    "0 webhooks": lambda b: b._replace(deliveries=[b.deliveries[0], *b.deliveries[2:]], told=b.told[:2]),
    "2 webhooks": lambda b: b._replace(deliveries=[*b.deliveries, ("b", "m2", "PENDING")]),
    "a webhook told": lambda b: b._replace(told=[*b.told, Told("b", "COMPLETE", "m2")]),
    "counts as delivered and never came": lambda b: b._replace(told=b.told[:2]),
    "an output without bytes": lambda b: b._replace(outputs=[("a", 2, "other")]),
    "saved and not there": lambda b: b._replace(outputs=[]),
}


@pytest.mark.parametrize("line", WRONG)
def test_a_broken_promise_is_seen(books: Books, line: str) -> None:
    """One thing is wrong, and one line says so."""
    assert any(line in found for found in broken(WRONG[line](books)))
