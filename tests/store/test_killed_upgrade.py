"""An upgrade of the database whose process is killed in the middle of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from treadle.model.task import TaskFilter
from treadle.store.invariants import breaches
from treadle.store.schema import copy_of
from treadle.store.soundness import faults, reading
from treadle.store.sqlite import SqliteStore

from . import past

FROM = 7
MORE = 500  # tasks, so that what is not committed yet is written to the log already
# Opens the store, and is killed before it runs the statement with the given words. Small caches are written out early.
KILLED = """
import os, signal, sys
from pathlib import Path
import apsw
from treadle.store.sqlite import SqliteStore

def trace(cursor, statement, bindings):
    if sys.argv[2] in statement:
        os.kill(os.getpid(), signal.SIGKILL)
    if "slim_task (" in statement:
        cursor.connection.pragma("cache_size", 5)
    return True

apsw.connection_hooks.append(lambda connection: setattr(connection, "exec_trace", trace))
SqliteStore.open(Path(sys.argv[1]))
"""
INSTANTS = {
    "within a script": "ALTER TABLE slim_task RENAME",  # the tables of before are gone by then
    "between two scripts": "DROP INDEX task_unhappy",
    "at the end of the last": "CREATE TRIGGER log_removed",
}


def rows_of(path: Path) -> list[tuple[object, ...]]:
    with reading(path) as connection:
        return list(connection.execute("SELECT * FROM task JOIN payload ON task_seq = seq ORDER BY seq"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "treadle.db"
    past.with_rows(FROM, path)
    old = past.of_schema(FROM, path)
    ids = [(100 + number, f"019aab00-0000-7000-8000-{number:012}") for number in range(100, 100 + MORE)]
    with old:
        rest = (past.DEPLOYMENT, "PENDING", 0, None, None, "", None, None)
        old.executemany(past.TASK, [(*row, *rest) for row in ids])
        old.executemany("INSERT INTO payload VALUES (?, ?)", [(seq, past.LARGE) for seq, _ in ids])
    old.close()
    return path


@pytest.mark.process
@pytest.mark.parametrize("instant", INSTANTS)
def test_an_upgrade_that_is_killed_is_made_again(path: Path, instant: str) -> None:
    """Whenever it is killed, the next start finds every row of before, and the copy beside it is as that was."""
    before = rows_of(path)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), INSTANTS[instant]], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -9, done.stderr
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0, "nothing of the upgrade had been written"
    copy = copy_of(path, FROM)
    assert (rows_of(copy), faults(copy, full=True)) == (before, [])

    store = SqliteStore.open(path)
    found = store.tasks(TaskFilter(1, limit=2 * MORE))
    assert sorted(task.id for task in found) == sorted(str(row[1]) for row in before)
    assert all(store.payload(past.TASKS[seq - 1][1]) == past.payload(seq) for seq, *_ in past.TASKS)
    store.close()
    assert faults(path, full=True) == []
    with reading(path) as connection:
        assert (connection.pragma("user_version"), list(breaches(connection))) == (past.NEWEST, [])
    assert (rows_of(copy), faults(copy, full=True)) == (before, [])
    assert sorted(one.name for one in path.parent.iterdir() if "schema" in one.name) == [copy.name]
