"""What a database written by an earlier schema holds after this program has opened it, and what is kept of it as it was."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import apsw
import pytest

from treadle.model.container import ContainerStatus
from treadle.model.errors import TreadleError
from treadle.model.task import DeliveryStatus, TaskFilter, TaskStatus
from treadle.store import schema, snapshot
from treadle.store.invariants import breaches
from treadle.store.schema import copy_of, in_order, known_scripts
from treadle.store.soundness import faults, reading
from treadle.store.sqlite import SqliteStore

from . import past

S = TaskStatus
VERSIONS = range(1, past.NEWEST + 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "treadle.db"


def version_of(path: Path) -> int:
    with reading(path) as connection:
        return int(connection.pragma("user_version"))


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_of_an_earlier_schema_is_kept(path: Path, version: int) -> None:
    """Tasks, attempts, payloads, results, outputs and webhooks of a database of any earlier schema are as they were."""
    past.with_rows(version, path)
    store = SqliteStore.open(path)

    found = [(task.id, task.status, task.attempts) for task in store.tasks(TaskFilter(1))]
    assert found[::-1] == [(task_id, status, attempts) for _, task_id, _, status, attempts, *_ in past.TASKS]
    ends = [(one.number, one.status, one.ended_at) for one in store.attempts(past.DONE)]
    assert ends == [(1, S.FAILED, 3.0), (2, S.COMPLETE, 5.0)]
    assert [(one.number, one.status) for one in store.attempts(past.RETRIES)] == [(1, S.FAILED)]
    assert [(one.number, one.status) for one in store.attempts(past.OVERDUE)] == [(1, S.FAILED), (2, S.TIMEOUT)]
    assert store.attempts(past.EXPIRED) == []
    (running,) = store.attempts(past.RUNS)
    assert (running.number, running.status, running.container_id) == (1, S.RUNNING, past.CONTAINER)
    assert [task.id for task in store.running_in(past.CONTAINER)] == [past.RUNS]
    assert (store.result(past.DONE), store.result(past.FAILED), store.payload(past.WAITS)) == (b"7", None, b'{"args":[1]}')
    assert store.payload(past.RUNS) == past.LARGE
    assert [(task.id, task.status) for task, _ in store.waiting(past.DEPLOYMENT, 9.0, 9, most=1_000_000)] == [
        (past.WAITS, S.PENDING), (past.RETRIES, S.RETRY),
    ]  # fmt: skip
    assert store.unfinished() == {past.DEPLOYMENT: (2, 1)}
    assert [(one.name, one.key) for one in store.outputs(past.DONE)] == [("a.txt", f"outputs/{past.DONE}/{past.OUTPUT}")]
    sent = {task_id: [one.status for one in store.deliveries(task_id)] for task_id in (past.RUNS, past.DONE, past.FAILED)}
    assert sent == {past.RUNS: [], past.DONE: [DeliveryStatus.DELIVERED], past.FAILED: [DeliveryStatus.PENDING]}
    deployment = store.deployment(past.DEPLOYMENT)
    assert deployment is not None and (deployment.title, deployment.config.retries) == ("q v1", 1)
    assert store.has_source(1, past.SOURCE) and store.image_by_id(past.IMAGE) is not None
    assert [one.status for one in store.containers(1, ended=9)] == [ContainerStatus.STOPPED, ContainerStatus.RUNNING]
    assert [one.name for one in store.secrets(1)] == ["KEY"] * (version >= 3)
    assert [chunk.lines[0].text for chunk in store.task_log(past.DONE, 0, 9)] == ["printed"] * (version >= 4)
    assert [one.name for one in store.volumes(1)] == ["models"] * (version >= 6)
    assert [one.name for one in store.tokens(1)] == ["for CI" if version >= 8 else ""]
    store.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_an_upgraded_database_keeps_every_invariant(path: Path, version: int) -> None:
    """After the upgrade SQLite finds no fault in file and indexes, and no row breaks an invariant."""
    past.with_rows(version, path)
    SqliteStore.open(path).close()

    assert faults(path, full=True) == []
    with reading(path) as connection:
        assert list(breaches(connection)) == []


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_an_upgrade_keeps_a_copy_as_it_was(path: Path, version: int) -> None:
    """The copy beside the database has the old schema and all rows, is a whole database, and its place is told."""
    past.with_rows(version, path)
    said: list[str] = []
    SqliteStore.open(path, said.append).close()

    copy = copy_of(path, version)
    assert len(said) == 1 and str(copy) in said[0] and f"from schema {version} to {past.NEWEST}" in said[0]
    assert (version_of(copy), faults(copy, full=True)) == (version, [])
    with reading(copy) as connection:
        assert connection.execute("SELECT COUNT(*) FROM task").fetchall() == [(len(past.TASKS),)]
    assert version_of(path) == past.NEWEST


def test_an_upgrade_takes_in_what_only_the_log_holds(path: Path) -> None:
    """A server that was killed leaves commits in the write-ahead log: they are in the copy, and in what is upgraded."""
    past.with_rows(past.NEWEST - 1, path)
    writer = past.of_schema(past.NEWEST - 1, path)
    writer.execute("UPDATE workspace SET signing_key = 'sk_new'")
    killed = path.parent / "killed" / path.name
    killed.parent.mkdir()
    for end in ("", "-wal"):
        shutil.copy(f"{path}{end}", f"{killed}{end}")
    writer.close()

    store = SqliteStore.open(killed)
    workspace = store.workspace(1)
    assert workspace is not None and workspace.signing_key == "sk_new"
    store.close()
    with reading(copy_of(killed, past.NEWEST - 1)) as connection:
        assert connection.execute("SELECT signing_key FROM workspace").fetchall() == [("sk_new",)]


def test_no_copy_is_made_without_an_upgrade(path: Path) -> None:
    """A new database and one of the current schema have nothing beside them."""
    SqliteStore.open(path).close()
    SqliteStore.open(path).close()
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_copies_do_not_pile_up(path: Path) -> None:
    """When the database has been opened after an upgrade, the copies of the upgrades before that one are removed."""
    for older in (1, 2):
        copy_of(path, older).write_bytes(b"of an earlier upgrade")
    past.with_rows(past.NEWEST - 1, path)
    SqliteStore.open(path).close()

    assert sorted(path.parent.glob("*.schema-*")) == [copy_of(path, past.NEWEST - 1)]


def test_an_upgrade_is_all_or_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that fails leaves the schema, the rows and the copies as they were; the error says it in one line."""
    past.with_rows(past.NEWEST - 1, path)
    copy_of(path, 1).write_bytes(b"of an earlier upgrade")
    scripts = [*known_scripts(), "CREATE TABLE fine (x); DROP TABLE not_there"]
    monkeypatch.setattr(schema, "known_scripts", lambda: scripts)

    with pytest.raises(TreadleError, match="not_there"):
        SqliteStore.open(path)
    assert version_of(path) == past.NEWEST - 1
    assert copy_of(path, past.NEWEST - 1).exists() and copy_of(path, 1).exists()
    monkeypatch.undo()
    SqliteStore.open(path).close()


def test_without_room_for_the_copy_nothing_is_upgraded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is told with what to do; the database is as it was, and half a copy does not stay."""
    past.with_rows(1, path)

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot, "onto_disk", full)
    with pytest.raises(TreadleError, match=r"No space left.*nothing was changed.*make room"):
        SqliteStore.open(path)
    assert version_of(path) == 1
    assert [found.name for found in path.parent.iterdir() if "schema" in found.name] == []


def test_migrations_have_each_number_once_without_a_gap() -> None:
    """Two scripts of one number, and a number that is left out, are an error that names the script."""
    assert in_order(["0002_b.sql", "0001_a.sql"]) == ["0001_a.sql", "0002_b.sql"]
    for names in (["0001_a.sql", "0001_b.sql"], ["0001_a.sql", "0003_c.sql"], ["0002_b.sql"], ["first.sql"]):
        with pytest.raises(TreadleError, match=names[-1]):
            in_order(names)


def test_an_empty_database_has_the_schema_of_an_upgraded_one(path: Path) -> None:
    """Whichever way a database came to the newest schema, it is the same."""
    past.with_rows(1, path)
    SqliteStore.open(path).close()
    SqliteStore.open(path.with_name("new.db")).close()

    schemas = []
    for one in (path, path.with_name("new.db")):
        connection = apsw.Connection(str(one))
        schemas.append(connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall())
        connection.close()
    assert schemas[0] == schemas[1]


def test_small_rows_hold_what_large_ones_held(path: Path) -> None:
    """A large payload stays apart, attempts that a retry followed keep their end, and of a forgotten container only the id goes."""
    past.with_rows(7, path)
    old = past.of_schema(7, path)
    large = b'{"args":["%s"]}' % (b"x" * 5000)
    old.execute("UPDATE payload SET body = ? WHERE task_seq = 1", (large,))
    retried = "UPDATE task SET status = 'RETRY', attempts = 1, container_id = 'forgotten', failure = ? WHERE seq = 1"
    old.execute(retried, (past.FAILURE,))
    old.execute("INSERT INTO attempt VALUES (1, 1, 'forgotten', 'FAILED', 2.0, 3.0, ?, NULL)", (past.FAILURE,))
    old.close()

    store = SqliteStore.open(path)
    assert (store.payload(past.WAITS), store.payload(past.RUNS)) == (large, past.LARGE)
    (ended,) = store.attempts(past.WAITS)
    assert (ended.container_id, ended.ended_at, ended.failure and ended.failure.type) == ("", 3.0, "ValueError")
    assert [one.container_id for one in store.attempts(past.DONE)] == [past.STOPPED] * 2
    assert [(task.id, body) for task, body in store.waiting(past.DEPLOYMENT, 9.0, 9, most=1_000_000)] == [
        (past.WAITS, large), (past.RETRIES, past.payload(6)),
    ]  # fmt: skip
    assert store.unfinished() == {past.DEPLOYMENT: (2, 1)}
    store.close()
    with reading(path) as connection:
        assert list(breaches(connection)) == []


def test_many_rows_are_brought_over_quickly(path: Path) -> None:
    """It takes microseconds a task: a store of a million is there again within a minute."""
    count = 20_000
    past.with_rows(7, path)
    old = past.of_schema(7, path)
    seqs = range(100, 100 + count)
    with old:
        rows = (past.DEPLOYMENT, "COMPLETE", 1, 2.0, 3.0, past.STOPPED, None, None)
        old.executemany(past.TASK, [(seq, f"019aab00-0000-7000-8000-{seq:012}", *rows) for seq in seqs])
        old.executemany("INSERT INTO payload VALUES (?, ?)", [(seq, b"{}") for seq in seqs])
        attempts = [(seq, 1, past.STOPPED, "COMPLETE", 2.0, 3.0, None, b"1") for seq in seqs]
        old.executemany("INSERT INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?, ?)", attempts)
    old.close()

    began = time.process_time()
    store = SqliteStore.open(path)
    assert (time.process_time() - began) / count < 60 / 1_000_000
    assert store.result(f"019aab00-0000-7000-8000-{seqs[-1]:012}") == b"1"
    store.close()
