"""A database that is damaged is refused at the start, in one line that says what to do, and is left as it was found."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from treadle.model.errors import TreadleError
from treadle.model.task import Task, TaskFilter
from treadle.store import wal
from treadle.store.soundness import damaged
from treadle.store.sqlite import SqliteStore

from . import past
from .making import NOW, insert, task

PAGE = 4096
SEEDS = range(60)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database of the newest schema with some hundred tasks, closed."""
    path = tmp_path / "data" / "treadle.db"
    path.parent.mkdir()
    past.with_rows(past.NEWEST, path)
    store = SqliteStore.open(path)
    for batch in range(10):
        insert(store, *(fresh(100 + batch * 20 + number) for number in range(20)))
    store.close()
    return path


def fresh(number: int) -> Task:
    return task(f"019aab00-0000-7000-8000-{number:012}", deployment_id=past.DEPLOYMENT)


@pytest.fixture
def killed(path: Path) -> Path:
    """The same of a server that was killed: the last ten commits are in the write-ahead log alone."""
    store = SqliteStore.open(path)
    for batch in range(10):
        insert(store, *(fresh(1000 + batch * 20 + number) for number in range(20)))
    folder = path.parent.with_name("killed")
    folder.mkdir()
    for end in ("", "-wal"):
        shutil.copy(f"{path}{end}", folder / f"{path.name}{end}")
    store.close()
    return folder / path.name


def contents(path: Path) -> dict[str, bytes]:
    return {found.name: found.read_bytes() for found in path.parent.iterdir() if not found.name.endswith("-shm")}


def write_at(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def truncate(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def refused(path: Path, match: str) -> None:
    """The start is refused with the way out, and no byte of database and log has changed."""
    before = contents(path)
    with pytest.raises(TreadleError, match=match) as error:
        SqliteStore.open(path)
    assert "treadle restore" in error.value.advice
    assert "\n" not in str(error.value)
    assert contents(path) == before


def test_what_a_killed_server_left_is_read(killed: Path) -> None:
    """The commits that only the log holds are there after the next start, which begins an empty log."""
    store = SqliteStore.open(killed)
    assert len(store.tasks(TaskFilter(1, limit=1000))) == len(past.TASKS) + 400
    assert not wal.holds_frames(killed)
    store.close()


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a file of something else": (lambda path: path.write_bytes(b"no database " * 1000), "not an SQLite database"),
    "a header overwritten with zeros": (lambda path: write_at(path, 0, bytes(100)), "not an SQLite database"),
    "garbage in the header": (lambda path: write_at(path, 16, bytes([0xA5]) * 84), "damaged"),
    "a file cut to half": (lambda path: truncate(path, path.stat().st_size // 2 // PAGE * PAGE), "damaged"),
    "a file cut in a page": (lambda path: truncate(path, path.stat().st_size - 1000), "damaged"),
    "a file cut to less than a page": (lambda path: truncate(path, 1000), "damaged"),
    "a page of zeros": (lambda path: write_at(path, PAGE * 3, bytes(PAGE)), "damaged"),
    "two pages exchanged": (lambda path: swap(path, *roots(path)), "damaged"),
}


def roots(path: Path) -> tuple[int, int]:
    """Where a table and its index begin."""
    connection = apsw.Connection(str(path))
    found = connection.execute("SELECT rootpage - 1 FROM sqlite_schema WHERE name IN ('task', 'task_of_deployment')").fetchall()
    connection.close()
    return found[0][0], found[1][0]


def swap(path: Path, one: int, two: int) -> None:
    data = path.read_bytes()
    write_at(path, one * PAGE, data[two * PAGE :][:PAGE])
    write_at(path, two * PAGE, data[one * PAGE :][:PAGE])


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_refused(path: Path, name: str) -> None:
    """Whether it is cut, overwritten or mixed up: it is told in a line with what to do, and nothing is written."""
    damage, told = DAMAGE[name]
    damage(path)
    refused(path, told)


@pytest.mark.parametrize("state", ["missing", "empty"])
def test_a_log_without_its_database_is_refused(killed: Path, state: str) -> None:
    """SQLite would begin anew and drop the log, which may hold the newest commits."""
    if state == "missing":
        killed.unlink()
    else:
        truncate(killed, 0)
    refused(killed, f"{state}, but its write-ahead log")


@pytest.mark.parametrize("kind", ["a Treadle's", "something else's"])
def test_the_log_of_another_database_is_refused(path: Path, tmp_path: Path, kind: str) -> None:
    """Put together with a database that it does not belong to, it is told as such; taken away, the start goes well."""
    other = tmp_path / "other.db"
    connection = apsw.Connection(str(other))
    connection.pragma("journal_mode", "wal")
    connection.pragma("wal_autocheckpoint", 0)
    if kind == "a Treadle's":
        past.bring(connection, past.NEWEST)
        connection.execute("INSERT INTO workspace VALUES (1, 'another', 'default', 'sk', 'u', 1.0)")
    else:
        connection.execute("CREATE TABLE other (x)")
        connection.executemany("INSERT INTO other VALUES (randomblob(?))", [(500,)] * 100)
    shutil.copy(wal.log_of(other), wal.log_of(path))
    connection.close()

    refused(path, "treadle.db-wal does not belong to ")
    wal.log_of(path).unlink()
    SqliteStore.open(path).close()


def test_the_log_of_an_earlier_copy_is_refused(killed: Path, path: Path) -> None:
    """A database put back under the log of a later one: pages of two times do not fit each other."""
    store = SqliteStore.open(path)  # it has gone on since
    for batch in range(20):
        insert(store, *(fresh(5000 + batch * 20 + number) for number in range(20)))
    store.close()
    shutil.copy(path, killed)
    refused(killed, "treadle.db-wal does not belong to .* of an earlier time")


@pytest.mark.parametrize("at", [0, 5, 12, 18, 25])
def test_a_log_with_a_damaged_header_is_refused(killed: Path, at: int) -> None:
    """SQLite would take the whole log for empty, and what was promised to be on disk would be gone without a word."""
    log = wal.log_of(killed)
    write_at(log, at, bytes([log.read_bytes()[at] ^ 0x40]))
    refused(killed, "treadle.db-wal, its first 32 bytes|damaged")


def test_a_log_damaged_in_its_middle_is_refused(killed: Path) -> None:
    """SQLite would take it for the end of the log; commits behind it were acknowledged, so it is told where it is."""
    log = wal.log_of(killed)
    write_at(log, 32 + 24 + 100, b"\xa5" * 8)
    refused(killed, r"treadle.db-wal, it cannot be read at byte 32, and \d+ commits lie behind")


def test_a_log_that_ends_in_a_torn_commit_is_read(killed: Path) -> None:
    """Without power the last commit may be half on disk. Nobody was told of it; all before it are there."""
    log = wal.log_of(killed)
    truncate(log, log.stat().st_size - PAGE // 2)
    write_at(log, log.stat().st_size - PAGE * 2, b"\xa5" * PAGE)

    store = SqliteStore.open(killed)
    assert len(store.tasks(TaskFilter(1, limit=1000))) == len(past.TASKS) + 380
    store.close()


def test_what_a_rolled_back_commit_left_in_the_log_harms_nobody(path: Path) -> None:
    """A transaction larger than the cache goes to the log before it commits; undone, its pages are no lost commits."""
    store = SqliteStore.open(path)
    with pytest.raises(ZeroDivisionError), store.transaction():
        for number in range(40):
            store.add_source(1, f"{number:064}", 1, NOW)
            store._connection.execute("INSERT INTO payload VALUES (?, zeroblob(200000))", (10_000 + number,))
        raise ZeroDivisionError
    insert(store, fresh(9000))
    folder = path.parent.with_name("left")
    shutil.copytree(path.parent, folder, ignore=shutil.ignore_patterns("*-shm"))
    store.close()
    SqliteStore.open(folder / path.name).close()


@pytest.mark.parametrize("seed", SEEDS)
def test_flipped_bits_are_refused_or_told_in_words(path: Path, seed: int) -> None:
    """Whatever some bits in the middle of the file are turned to: every question is answered, or told to be damage."""
    chance = random.Random(seed)
    size = path.stat().st_size
    for _ in range(chance.choice([1, 4, 30])):
        at = chance.randrange(size)
        write_at(path, at, bytes([path.read_bytes()[at] ^ (1 << chance.randrange(8))]))
    try:
        store = SqliteStore.open(path)
    except TreadleError:
        return
    try:
        ask_everything(store)
    except TreadleError as error:
        assert "damaged" in error.message
    finally:
        store.close()


def ask_everything(store: SqliteStore) -> None:
    for one in store.tasks(TaskFilter(1, limit=1000)):
        store.attempts(one.id), store.payload(one.id), store.outputs(one.id), store.deliveries(one.id)
    store.deployments(1), store.live_containers(), store.containers(1, ended=9), store.unfinished()
    store.image_by_id(past.IMAGE), store.secrets(1), store.volumes(1), store.task_log(past.DONE, 0, 9)


def test_damage_met_while_it_runs_is_told_in_words(path: Path) -> None:
    """A page that goes bad under a running server: the question fails with what to do, not with SQLite's own words alone."""
    store = SqliteStore.open(path)
    for page in range(1, path.stat().st_size // PAGE):
        write_at(path, page * PAGE, b"\xa5" * PAGE)
    told = str(damaged(path, "database disk image is malformed"))
    with pytest.raises(TreadleError) as error:
        store.tasks(TaskFilter(1, limit=1000))
    assert str(error.value) == told and "Stop the server" in told
    with pytest.raises(TreadleError, match="damaged"):
        insert(store, fresh(9000))
    store.close()
