"""The verdict of a round: what the load, the tasks and the webhooks have told, held against the store's rows."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import apsw

from .load import Told

FINAL = {"COMPLETE", "FAILED", "CANCELLED", "TIMEOUT", "EXPIRED"}
RETRIES = {"patient": 100, "brief": 2, "once": 0, "copied": 100, "overdue": 100, "stale": 100}
BY_ITSELF = {"overdue": {"TIMEOUT"}, "stale": {"COMPLETE", "EXPIRED"}}  # how tasks may end that nobody cancels
TTL = 2.0  # seconds, of `stale`
HEARD = 20.0  # seconds after which nothing of a cancelled attempt goes on
TASKS = """SELECT task.id, task.status, task.attempts, deployment.name, task.seq, task.result, task.ended_at - task.created_at
    FROM task JOIN deployment ON deployment.seq = task.deployment_seq"""
ATTEMPTS = "SELECT task_seq, COALESCE(failure ->> 'kind', '') FROM ended_attempt ORDER BY task_seq, number"
DELIVERIES = "SELECT task.id, delivery.id, delivery.status FROM delivery JOIN task ON task.seq = task_seq"
OUTPUTS = "SELECT task.id, attempt, key FROM output JOIN task ON task.seq = task_seq"
CONTAINERS = "SELECT id FROM container WHERE status <> 'STOPPED'"


class Note(NamedTuple):
    """A line of user code."""

    event: str
    number: int
    task: str
    attempt: int
    container: str
    at: int


class Row(NamedTuple):
    """A task as it is stored."""

    status: str
    attempts: int
    queue: str
    result: bytes | None
    kinds: tuple[str, ...]  # of failures, by attempt; "" for none
    lived: float | None = None  # seconds until its final state


class Books(NamedTuple):
    """All that is known of a round, from both sides."""

    accepted: Mapping[str, tuple[str, int]]
    notes: Sequence[Note]
    told: Sequence[Told]
    tasks: Mapping[str, Row]
    deliveries: Sequence[tuple[str, str, str]]
    outputs: Sequence[tuple[str, int, str]]
    blob: Path
    asked: AbstractSet[str]  # whose cancelling was asked for
    cancelled: Mapping[str, int]  # who was answered for, and when
    heard: float = HEARD


def notes(ledger: Path) -> list[Note]:
    found = (line.split() for line in ledger.read_text().splitlines())
    return [Note(event, int(n), task, int(attempt), box, int(at)) for event, n, task, attempt, box, at in found]


def read_store(file: Path) -> tuple[dict[str, Row], list[tuple[str, str, str]], list[tuple[str, int, str]]]:
    """Tasks, deliveries and outputs, by a reader of this process."""
    with contextlib.closing(apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        connection.set_busy_timeout(20_000)
        with connection:  # all as of one moment
            kinds: dict[int, list[str]] = {}
            for seq, kind in connection.execute(ATTEMPTS):
                kinds.setdefault(seq, []).append(kind)
            tasks = {
                _id(task): Row(status, attempts, queue, result, tuple(kinds.get(seq, ())), lived)
                for task, status, attempts, queue, seq, result, lived in connection.execute(TASKS)
            }
            deliveries = [(_id(task), *rest) for task, *rest in connection.execute(DELIVERIES)]
            return tasks, deliveries, [(_id(task), *rest) for task, *rest in connection.execute(OUTPUTS)]


def _id(stored: bytes) -> str:
    """A task's id is stored as the bytes of its UUID."""
    return str(UUID(bytes=stored))


def live_containers(file: Path) -> set[str]:
    with contextlib.closing(apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        connection.set_busy_timeout(20_000)
        return {container for (container,) in connection.execute(CONTAINERS)}


def is_whole(file: Path) -> bool:
    with contextlib.closing(apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        return bool(connection.pragma("integrity_check") == "ok")


def broken(books: Books) -> list[str]:
    """What was promised and did not hold, in one line each; empty when all is well."""
    checks = (_missing, _unfinished, _unasked, _cancelled, _bounds, _twice, _attempts, _results, _webhooks, _outputs)
    return [line for check in checks for line in _few(check(books))]


def _few(lines: Iterable[str], most: int = 10) -> list[str]:
    found = list(lines)
    return found[:most] + [f"… and {len(found) - most} more like that"] * (len(found) > most)


def _missing(books: Books) -> Iterable[str]:
    for task, (queue, number) in books.accepted.items():
        if task not in books.tasks:
            yield f"acknowledged and missing: {task} ({queue}, number {number})"


def _unfinished(books: Books) -> Iterable[str]:
    for task, row in books.tasks.items():
        if row.status not in FINAL:
            yield f"not final: {task} ({row.queue}) is {row.status}"


def _unasked(books: Books) -> Iterable[str]:
    for task, row in books.tasks.items():
        by_itself = BY_ITSELF.get(row.queue, {"COMPLETE", "FAILED"})
        if row.status in FINAL - by_itself and not (row.status == "CANCELLED" and task in books.asked):
            yield f"ended as nobody asked: {task} ({row.queue}) is {row.status} {row.kinds}"


def _cancelled(books: Books) -> Iterable[str]:
    for task in books.cancelled:
        row = books.tasks.get(task)
        if row is None or row.status != "CANCELLED":
            yield f"answered as cancelled, and it is not: {task} is {row}"
    for note in books.notes:
        late = (note.at - books.cancelled.get(note.task, note.at)) / 1e9
        if late > books.heard:
            yield f"went on {late:.0f} s after it was cancelled: attempt {note.attempt} of {note.task}, {note.event}"


def _bounds(books: Books) -> Iterable[str]:
    """A timeout ends one attempt, and the task with it; a ttl ends a task that has waited as long, and not before."""
    for task, row in books.tasks.items():
        if (row.status == "TIMEOUT") != ("timeout" in row.kinds) or "timeout" in row.kinds[:-1]:
            yield f"a timeout that ended no task, or a task that it did not end: {task} is {row.status} {row.kinds}"
        if row.status == "EXPIRED" and (row.lived or 0.0) < TTL:
            yield f"expired after {row.lived} s of {TTL}: {task}"
    for note in books.notes:
        if note.event == "end" and note.task in books.tasks and books.tasks[note.task].queue == "overdue":
            yield f"went on to its end past its timeout: attempt {note.attempt} of {note.task}"


def _twice(books: Books) -> Iterable[str]:
    for note in books.notes:
        if note.event == "twice":
            yield f"two attempts alive at once: attempt {note.attempt} of {note.task} (number {note.number})"
    begun = Counter((note.task, note.attempt) for note in books.notes if note.event == "begin")
    for (task, attempt), times in begun.items():
        if times > 1:
            yield f"begun {times} times: attempt {attempt} of {task}"


def _attempts(books: Books) -> Iterable[str]:
    for task, row in books.tasks.items():
        retries = RETRIES[row.queue]
        allowed = 1 + (retries and retries + row.kinds.count("interrupted"))  # what a stop cut off is not counted
        if row.attempts > allowed:
            yield f"{row.attempts} attempts, {allowed} allowed: {task} ({row.queue})"
        if row.status == "FAILED" and row.attempts < allowed:
            yield f"given up after {row.attempts} of {allowed} attempts: {task} ({row.queue}) {row.kinds}"
        if len(row.kinds) != row.attempts:
            yield f"{row.attempts} attempts and {len(row.kinds)} rows of them: {task}"
    for note in books.notes:
        if note.task not in books.tasks or note.attempt > books.tasks[note.task].attempts:
            yield f"ran and is not on the books: attempt {note.attempt} of {note.task}"


def _results(books: Books) -> Iterable[str]:
    ended = {(note.task, note.attempt, note.number) for note in books.notes if note.event == "end"}
    for task, row in books.tasks.items():
        if row.status != "COMPLETE":
            continue
        result = json.loads(row.result or b"{}")
        if result.get("attempt") != row.attempts or (task, row.attempts, result.get("number")) not in ended:
            yield f"the result is not that of the last attempt, or that did not end: {task} {result}, {row.attempts}"


def _webhooks(books: Books) -> Iterable[str]:
    rows = Counter(task for task, _, _ in books.deliveries)
    ids = {task: delivery for task, delivery, _ in books.deliveries}
    for task, row in books.tasks.items():
        if rows[task] != (row.status in FINAL):
            yield f"{rows[task]} webhooks of {task}, which is {row.status}"
    for told in books.told:
        row_ = books.tasks.get(told.task)
        if row_ is None or told.status != row_.status or told.message != ids.get(told.task):
            yield f"a webhook told {told}, but the task is {row_} and its webhook {ids.get(told.task)}"
    heard = {told.task for told in books.told}
    for task, _, status in books.deliveries:
        if status == "DELIVERED" and task not in heard:
            yield f"a webhook counts as delivered and never came: {task}"


def _outputs(books: Books) -> Iterable[str]:
    there = {(task, attempt) for task, attempt, _ in books.outputs}
    for task, attempt, key in books.outputs:
        if not (books.blob / key).is_file():
            yield f"an output without bytes: {task}, attempt {attempt}"
    for note in books.notes:
        row = books.tasks.get(note.task)
        if note.event == "saved" and row and row.attempts == note.attempt and (note.task, note.attempt) not in there:
            yield f"saved and not there: the output of {note.task}, attempt {note.attempt}"
