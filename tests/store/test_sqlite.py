"""What concerns the SQLite file alone: its schema's version, how safely it writes, which indexes answer."""

from __future__ import annotations

import re
from pathlib import Path

import apsw
import pytest

from treadle.model.errors import NoSpace, TreadleError
from treadle.model.task import TaskFilter, TaskStatus
from treadle.store import sql
from treadle.store.sqlite import SqliteStore


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """A file written by a newer Treadle is left alone, and the error names both versions and the way out."""
    path = tmp_path / "treadle.db"
    SqliteStore.open(path).close()
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", 9000)

    with pytest.raises(TreadleError, match=r"version 9000.*up to \d+.*newer one"):
        SqliteStore.open(path)
    assert connection.pragma("user_version") == 9000
    connection.close()


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    """Another kind of file, and a folder that does not exist, are told in words."""
    (tmp_path / "text").write_text("no database " * 100)

    with pytest.raises(TreadleError, match="not an SQLite database"):
        SqliteStore.open(tmp_path / "text")
    with pytest.raises(TreadleError, match="cannot be opened"):
        SqliteStore.open(tmp_path / "missing" / "treadle.db")


def test_a_commit_is_on_disk(tmp_path: Path) -> None:
    """The connection that writes uses the write-ahead log and syncs it at each commit."""
    store = SqliteStore.open(tmp_path / "treadle.db")

    assert store._connection.pragma("journal_mode") == "wal"
    assert store._connection.pragma("synchronous") == 2
    store.close()


def test_a_full_disk_is_told_and_costs_nothing_that_was_there(tmp_path: Path) -> None:
    """What does not fit is refused with what to do, at the write or at the commit; then there is room, and it is written."""
    store = SqliteStore.open(tmp_path / "treadle.db")
    with store.transaction():
        store.add_source(1, "before", 1, 0.0)
    size = store._connection.pragma("page_count")
    store._connection.pragma("max_page_count", size)  # SQLite's own way to have a full disk

    with pytest.raises(NoSpace, match=r"full.*Make room"), store.transaction(), store.savepoint():
        for number in range(1000):
            store.add_source(1, f"too many {number}", 1, 0.0)
    assert not store._connection.in_transaction
    store._connection.pragma("max_page_count", size + 1000)
    with store.transaction():
        store.add_source(1, "after", 1, 0.0)
    found = store._cursor.execute("SELECT id FROM source ORDER BY id").fetchall()
    assert found == [("after",), ("before",)]
    store.close()


def test_a_full_disk_is_the_answer_to_all_that_share_the_transaction(tmp_path: Path) -> None:
    """SQLite has rolled it back at once: later parts and the commit are told why, and the next transaction is as ever."""
    store = SqliteStore.open(tmp_path / "treadle.db")
    size = store._connection.pragma("page_count")
    store._connection.pragma("max_page_count", size)

    with pytest.raises(NoSpace), store.transaction():
        with pytest.raises(NoSpace), store.savepoint():
            store.add_source(1, "x" * 100_000, 1, 0.0)
        assert not store._connection.in_transaction
        with pytest.raises(NoSpace), store.savepoint():
            pytest.fail("this part cannot be written any more")
    store._connection.pragma("max_page_count", size + 1000)
    with pytest.raises(TreadleError, match="outside a transaction"):
        store.add_source(1, "alone", 1, 0.0)
    with store.transaction(), store.savepoint():
        store.add_source(1, "after", 1, 0.0)
    assert store._cursor.execute("SELECT id FROM source").fetchall() == [("after",)]
    store.close()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    """Readers open the file read-only."""
    store = SqliteStore.open(tmp_path / "treadle.db")
    reader = store.reader()

    with pytest.raises(apsw.ReadOnlyError):
        reader._cursor.execute(sql.ADD_SOURCE, (1, "s", 1, 0.0))
    reader.close()
    store.close()


def test_statements_are_planned_once(tmp_path: Path) -> None:
    """A question that was asked before is not planned again for other values, by the writer or by readers."""
    store = SqliteStore.open(tmp_path / "treadle.db")
    reader = store.reader()

    for connection in (store._connection, reader._connection):
        assert connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, -1) == 1
    reader.close()
    store.close()


@pytest.mark.parametrize("statement", [sql.INSERT_TASK, sql.CHANGE_TASK])
def test_writing_a_task_makes_no_table_on_the_way(tmp_path: Path, statement: str) -> None:
    """No condition of an index, and nothing else, has SQLite build something in memory for each row that is written."""
    store = SqliteStore.open(tmp_path / "treadle.db")
    steps = store._cursor.execute(f"EXPLAIN {statement}", (None,) * statement.count("?")).fetchall()

    assert "Insert" in {step[1] for step in steps}
    assert [step for step in steps if step[1] in {"OpenEphemeral", "OpenAutoindex"}] == []
    store.close()


ONE_DEPLOYMENT, _ = sql.list_tasks(TaskFilter(1, deployment_ids=("d",)))
ANY, _ = sql.list_tasks(TaskFilter(1, before_seq=9))
NAMED, _ = sql.list_tasks(TaskFilter(1, (TaskStatus.PENDING,), task_ids=("t", "u")))
OF_ONE, _ = sql.list_tasks(TaskFilter(1, (TaskStatus.PENDING, TaskStatus.RUNNING), deployment_ids=("d",)))
IN_LINE = (sql.WAITING, sql.WAITING_AT)
SMALL = ("task_pending", "task_retrying", "task_running")  # indexes that may be read from end to end
UNHAPPY, _ = sql.list_tasks(TaskFilter(1, (TaskStatus.FAILED, TaskStatus.TIMEOUT)))
RETRYING, _ = sql.list_tasks(TaskFilter(1, (TaskStatus.RETRY,)))
UNFINISHED, _ = sql.list_tasks(TaskFilter(1, (TaskStatus.PENDING, TaskStatus.RUNNING)))


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (sql.WAITING, "task_pending (deployment_seq=? AND due<?)"),
        (sql.WAITING, "task_retrying (deployment_seq=? AND due<?)"),
        (sql.WAITING_AT, "task_pending (deployment_seq=? AND due<?)"),
        (sql.NEXT_DUE, "task_pending (deployment_seq=?)"),
        (sql.NEXT_DUE, "task_retrying (deployment_seq=?)"),
        (sql.COUNT_WAITING, "task_pending"),
        (sql.EXPIRED, "task_expiring"),
        (sql.RUNNING_IN, "task_running"),
        (sql.COUNT_RUNNING, "task_running"),
        (ONE_DEPLOYMENT, "task_of_deployment"),
        (ANY, "INTEGER PRIMARY KEY (rowid<?)"),
        (UNHAPPY, "task_unhappy"),
        (UNFINISHED, "COVERING INDEX task_pending"),
        (UNFINISHED, "task_running"),
        (OF_ONE, "COVERING INDEX task_pending (deployment_seq=?)"),
        (RETRYING, "COVERING INDEX task_retrying"),
        (OF_ONE, "task_running"),
        (NAMED, "sqlite_autoindex_task_1 (id=?)"),
        (sql.DUE_DELIVERIES, "delivery_due"),
        (sql.DRAFT, "deployment_draft"),
        (sql.LIVE_CONTAINERS, "container_status"),
    ],
)
def test_the_index_meant_for_it_answers(tmp_path: Path, statement: str, index: str) -> None:
    """A question that is asked often never reads the finished tasks."""
    store = SqliteStore.open(tmp_path / "treadle.db")
    numbered = [int(number) for number in re.findall(r"\?(\d)", statement)]
    nothing = (None,) * (max(numbered) if numbered else statement.count("?"))
    plan = store._cursor.execute(f"EXPLAIN QUERY PLAN {statement}", nothing).fetchall()

    assert index in str(plan)
    assert all(any(name in step for name in SMALL) for *_, step in plan if step.startswith("SCAN task")), plan
    assert statement not in IN_LINE or "ORDER BY" not in str(plan), "the line is read in its order, never sorted"
    store.close()
