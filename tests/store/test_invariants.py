"""Each invariant of the rows is broken once by hand, and found; of rows that nobody touched none is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from treadle.store.invariants import INVARIANTS, breaches
from treadle.store.sqlite import SqliteStore

from . import past

WAITS, RUNS, DONE, FAILED, CANCELLED, *_ = (seq for seq, *_ in past.TASKS)
BROKEN = {
    "relations": (
        "DELETE FROM deployment",
        "DELETE FROM workspace",
        "INSERT INTO payload VALUES (99, x'')",
        "UPDATE attempt SET task_seq = 99 WHERE task_seq = 4",
        "DELETE FROM task WHERE seq = 3",
        "UPDATE log SET task_seq = 99",
        "UPDATE log SET task_seq = NULL, container_seq = 99",
        "DELETE FROM image",
        "DELETE FROM source",
    ),
    "states": (
        "UPDATE task SET status = 'PENDIMG' WHERE seq = 1",
        "UPDATE task SET ended_at = NULL WHERE seq = 3",
        "UPDATE task SET ended_at = 3.0 WHERE seq = 1",
        "UPDATE container SET status = 'GONE' WHERE status = 'STOPPED'",
        "UPDATE delivery SET status = 'SENT'",
    ),
    "payloads": ("UPDATE task SET payload = NULL WHERE seq = 1", "INSERT INTO payload VALUES (1, x'')"),
    "logs are counted": ("UPDATE log_bytes SET bytes = bytes + 1", "UPDATE log SET body = x'00'"),
    "failures": (
        "UPDATE task SET failure = NULL WHERE seq = 4",
        "UPDATE task SET status = 'COMPLETE' WHERE seq = 4",
        "UPDATE task SET status = 'FAILED' WHERE seq = 3",
    ),
    "attempts are counted": (
        "UPDATE task SET attempts = 3 WHERE seq = 3",
        "UPDATE task SET attempts = 2 WHERE seq = 2",
        "DELETE FROM attempt WHERE task_seq = 4 AND number = 1",
        "INSERT INTO attempt VALUES (2, 1, NULL, 'FAILED', 1.0, 2.0, NULL)",
    ),
    "the last attempt decides": (
        "INSERT INTO attempt VALUES (5, 1, NULL, 'TIMEOUT', 1.0, 2.0, NULL); UPDATE task SET attempts = 1 WHERE seq = 5",
        "UPDATE task SET status = 'RETRY', ended_at = NULL WHERE seq = 3",
    ),
    "only the last attempt is a success": ("UPDATE attempt SET status = 'COMPLETE' WHERE task_seq = 3 AND number = 1",),
    "results": (
        "UPDATE task SET result = NULL WHERE seq = 3",
        "UPDATE task SET result = x'37' WHERE seq = 4",
    ),
    "retries are kept to": ("""UPDATE deployment SET config = json_set(config, '$.retries', 0)""",),
    "a stop is not charged": ("""UPDATE task SET failure = '{"kind":"interrupted","reason":"r"}' WHERE seq = 4""",),
    "outputs": ("UPDATE output SET attempt = 3", "UPDATE output SET attempt = 0"),
    "one webhook for a final state": (
        "DELETE FROM delivery WHERE status = 'PENDING'",
        "UPDATE delivery SET task_seq = 4",
        "UPDATE task SET callback_url = NULL WHERE seq = 3",
        "UPDATE task SET callback_url = 'https://example.com' WHERE seq = 5",
    ),
    "webhooks": ("UPDATE delivery SET delivered_at = 1.0", "UPDATE delivery SET delivered_at = NULL"),
    "what runs has a place": (
        "DELETE FROM container WHERE status = 'RUNNING'",
        "UPDATE container SET status = 'STOPPED', ended_at = 3.0",
    ),
    "containers": ("UPDATE container SET ended_at = 3.0", "UPDATE container SET ended_at = NULL"),
    "a device has one user": ("""UPDATE container SET gpus = '["GPU-1"]', status = 'RUNNING', ended_at = NULL""",),
}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[apsw.Connection]:
    """A sound database of the newest schema, open to be broken."""
    path = tmp_path / "treadle.db"
    past.with_rows(past.NEWEST, path)
    SqliteStore.open(path).close()
    connection = apsw.Connection(str(path))
    connection.pragma("synchronous", "off")
    yield connection
    connection.close()


def test_sound_rows_break_nothing(database: apsw.Connection) -> None:
    """Rows as a server has left them, with a task of each kind, keep every invariant."""
    assert list(breaches(database)) == []


def test_every_invariant_is_broken_here_once() -> None:
    """An invariant that no test breaks might never find anything."""
    assert BROKEN.keys() == {invariant.name for invariant in INVARIANTS}


@pytest.mark.parametrize(("name", "damage"), [(name, one) for name, several in BROKEN.items() for one in several])
def test_a_broken_invariant_is_found(database: apsw.Connection, name: str, damage: str) -> None:
    """What is changed behind the server's back is found by its name, with the subject and what is wrong, in one line."""
    database.execute(damage)
    found = [breach for breach in breaches(database) if breach.name == name]
    assert found
    assert all(" " in breach.subject and breach.found and "\n" not in str(breach) for breach in found)


def test_interrupted_attempts_are_not_counted(database: apsw.Connection) -> None:
    """A task that was stopped once may have one attempt more than its retries allow, unless it has no retries."""
    database.execute("UPDATE deployment SET config = json_set(config, '$.retries', 1)")
    database.execute("UPDATE task SET attempts = 3 WHERE seq = 4")
    database.execute("INSERT INTO attempt VALUES (4, 2, NULL, 'FAILED', 2.0, 3.0, NULL)")
    assert [breach.name for breach in breaches(database)] == ["retries are kept to"]
    stop = """UPDATE attempt SET failure = '{"kind":"interrupted","reason":"r"}' WHERE task_seq = 4 AND number = 1"""
    database.execute(stop)
    assert list(breaches(database)) == []
    database.execute("UPDATE deployment SET config = json_set(config, '$.retries', 0)")
    assert {breach.name for breach in breaches(database)} == {"retries are kept to"}
