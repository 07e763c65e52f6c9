"""What a database written by an earlier schema holds after this program has opened it."""

from __future__ import annotations

from pathlib import Path

import apsw

from treadle.model.task import TaskStatus
from treadle.store.schema import _scripts
from treadle.store.sqlite import SqliteStore

INSERT_TASK = """INSERT INTO task VALUES (?, ?, 1, 'd', ?, 1.0, 4.0, 1.0, ?, 2.0, ?, NULL, 'c', NULL, NULL)"""


def of_schema(version: int, path: Path) -> apsw.Connection:
    """An empty database as that schema was."""
    connection = apsw.Connection(str(path))
    for number in range(1, version + 1):
        connection.execute(_scripts()[number])
    connection.pragma("user_version", version)
    return connection


def test_attempts_and_results_of_the_first_schema_are_kept(tmp_path: Path) -> None:
    """An ended attempt keeps its end and a result its task; a running one is known from its task's row."""
    old = of_schema(1, tmp_path / "treadle.db")
    old.executemany(INSERT_TASK, [(1, "done", "COMPLETE", 2, 4.0), (2, "runs", "RUNNING", 1, None)])
    old.executemany(
        "INSERT INTO attempt VALUES (?, ?, 'c', ?, 2.0, ?, NULL)",
        [(1, 1, "FAILED", 3.0), (1, 2, "COMPLETE", 4.0), (2, 1, "RUNNING", None)],
    )
    old.execute("INSERT INTO result VALUES (1, ?)", (b"7",))
    old.close()

    store = SqliteStore.open(tmp_path / "treadle.db")
    ends = [(attempt.number, attempt.status, attempt.ended_at) for attempt in store.attempts("done")]
    assert ends == [(1, TaskStatus.FAILED, 3.0), (2, TaskStatus.COMPLETE, 4.0)]
    assert (store.result("done"), store.result("runs")) == (b"7", None)
    (running,) = store.attempts("runs")
    assert (running.number, running.status, running.started_at) == (1, TaskStatus.RUNNING, 2.0)
    assert [task.id for task in store.running_in("c")] == ["runs"]
    store.close()
