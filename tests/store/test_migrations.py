"""What a database written by an earlier schema holds after this program has opened it, and what is kept of it as it was."""

from __future__ import annotations

import shutil
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
    (running,) = store.attempts(past.RUNS)
    assert (running.number, running.status, running.container_id) == (1, S.RUNNING, past.CONTAINER)
    assert [task.id for task in store.running_in(past.CONTAINER)] == [past.RUNS]
    assert (store.result(past.DONE), store.result(past.FAILED), store.payload(past.WAITS)) == (b"7", None, b'{"args":[1]}')
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

    monkeypatch.setattr(snapshot, "_onto_disk", full)
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
