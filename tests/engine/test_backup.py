"""A backup holds all that a server needs, whatever else happens meanwhile; back from it comes that or nothing."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import apsw
import pytest

from treadle.engine import restore as restoring
from treadle.engine.archive import BLOCK, Archive, Head, of_file
from treadle.engine.assemble import open_blob, open_store
from treadle.engine.audit import audit
from treadle.engine.backup import take
from treadle.engine.outputs import SaveOutput, blob_key, source_key
from treadle.engine.restore import check, restore
from treadle.engine.secrets import KeepSecret
from treadle.model.errors import Conflict, InvalidInput, NotFound, TreadleError

from .making import NOW, Desk

PACKED = b"PK packed source"
PRINTED = b"what a task has saved"


class Lived:
    """A data folder with a task that runs and has saved a file, a source, a secret and a setting."""

    def __init__(self, data: Path) -> None:
        self.data = data
        data.mkdir()
        self.desk = Desk(data)
        self.blob = open_blob(data)
        deployment = self.desk.deploy("q")
        self.put(source_key(sha256(PACKED).hexdigest()), PACKED)
        with self.desk.store.transaction():
            self.desk.store.add_source(1, sha256(PACKED).hexdigest(), len(PACKED), NOW)
            self.desk.store._connection.execute("UPDATE deployment SET source_id = ?", (sha256(PACKED).hexdigest(),))
            self.desk.store._connection.execute("DELETE FROM source WHERE id <> ?", (sha256(PACKED).hexdigest(),))
        self.desk.agent()
        self.container, self.link = self.desk.started(deployment)
        self.task_id = self.desk.submit(deployment)
        self.key = blob_key(self.task_id, "019aab00-0000-7000-8000-0000000000aa")
        self.put(self.key, PRINTED)
        output_id = self.key.rsplit("/", 1)[1]
        self.desk.ask(self.desk.engine.outputs.save, SaveOutput(output_id, self.task_id, 1, "a.txt", len(PRINTED), self.key))
        vault = self.desk.engine.secrets.vault
        sealed = KeepSecret(1, "KEY", vault.seal(1, "KEY", "hidden"))
        self.desk.ask(self.desk.engine.secrets.create, sealed)
        (data / "config.toml").write_text("retention = 30\n")

    def put(self, key: str, data: bytes) -> None:
        upload = self.blob.start(key)
        upload.write(data)
        upload.commit()

    def backup(self) -> bytes:
        taken = take(self.data, self.blob, self.desk.now, "0.0.0")
        try:
            data = b"".join(taken.archive.blocks())
        finally:
            taken.remove()
        assert len(data) == taken.archive.size
        return data

    def close(self) -> None:
        self.desk.close()


@pytest.fixture
def lived(quick_folder: Path) -> Lived:
    return Lived(quick_folder / "data")


@pytest.fixture
def archive(lived: Lived) -> bytes:
    data = lived.backup()
    lived.close()
    return data


def quiet(_: object) -> None:
    pass


def back(data: bytes, folder: Path, *, force: bool = False) -> restoring.Restored:
    folder.mkdir(exist_ok=True)
    return restore(io.BytesIO(data), folder, quiet, force=force)


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# taking one


def test_a_backup_holds_the_database_and_what_it_names(lived: Lived, archive: bytes) -> None:
    """Outputs, sources, the key of the secrets and config.toml are in it; tar reads it, and nothing of it stays behind."""
    (lived.data / "blob" / "stray").write_bytes(b"nobody names it")
    source = f"blob/{source_key(sha256(PACKED).hexdigest())}"
    expected = ["backup.json", "treadle.db", "secret.key", "config.toml", f"blob/{lived.key}", source, "sums.json"]
    assert names(archive) == expected
    assert not list(lived.data.glob("backup.part*"))


def test_tokens_in_the_clear_and_what_is_made_again_are_not_in_it(lived: Lived) -> None:
    """Credentials, images, volumes, logs and the agent's folders stay where they are."""
    (lived.data / "credentials.toml").write_text('token = "t"')
    for folder in ("images", "volumes", "agent"):
        (lived.data / folder).mkdir()
        (lived.data / folder / "file").write_text("x")
    assert not [name for name in names(lived.backup()) if "cred" in name or name.startswith(("im", "vol", "ag"))]
    lived.close()


def test_a_backup_shows_one_moment(lived: Lived, quick_folder: Path) -> None:
    """What is committed while it is written is not in it, and does not keep it from ending."""
    taken = take(lived.data, lived.blob, lived.desk.now, "0.0.0")
    lived.desk.finish(lived.container, lived.link, lived.task_id)
    data = b"".join(taken.archive.blocks())
    taken.remove()
    lived.close()
    assert back(data, quick_folder / "new").held.counts["RUNNING"] == 1


def test_a_damaged_database_is_not_backed_up(lived: Lived) -> None:
    """A backup that could not be restored would be found out too late."""
    lived.close()
    path = lived.data / "treadle.db"
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * 4096 * 4 + content[4096 * 5 :])
    with pytest.raises(TreadleError, match=r"treadle\.db is damaged"):
        take(lived.data, lived.blob, NOW, "0.0.0")
    assert not list(lived.data.glob("backup.part*"))


def test_a_missing_blob_is_told_and_the_rest_is_saved(lived: Lived, quick_folder: Path) -> None:
    """A folder that lacks a file is all the more worth a backup."""
    lived.blob.delete(lived.key)
    data = lived.backup()
    lived.close()
    assert back(data, quick_folder / "new").missing == [lived.key]


def test_a_file_that_changes_its_size_ends_the_backup(lived: Lived) -> None:
    """It would be cut off or run into the next one; the archive is not ended, so that it never counts."""
    taken = take(lived.data, lived.blob, NOW, "0.0.0")
    (lived.data / "config.toml").write_text("")
    with pytest.raises(OSError, match=r"config\.toml has changed its size"):
        list(taken.archive.blocks())
    taken.remove()
    lived.close()


# back from it


def test_what_comes_back_is_what_was_there(lived: Lived, archive: bytes, quick_folder: Path) -> None:
    """Into an empty folder: tasks, files, the secret's value and settings; every invariant holds, and a server opens it."""
    new = quick_folder / "new"
    done = back(archive, new)
    assert (done.head.created_at, done.missing) == (lived.desk.now, [])
    came = {name: data for name, data in files(new).items() if name != "treadle.db"}
    assert came == {name: data for name, data in files(lived.data).items() if name in came}
    assert {"config.toml", "secret.key", f"blob/{lived.key}"} <= came.keys()
    assert audit(new, open_blob(new), quiet, time.time()).breaches == []
    store = open_store(new)
    task = store.task(lived.task_id)
    assert task is not None and task.status == "RUNNING"
    store.close()


def test_a_database_is_not_replaced_unless_told_to(lived: Lived, archive: bytes) -> None:
    """Without --force nothing is changed; with it the folder is as it was, and what no backup holds has stayed."""
    before = files(lived.data)
    with pytest.raises(Conflict, match=r"treadle\.db exists.*--force"):
        back(archive, lived.data)
    assert files(lived.data) == before
    (lived.data / "volumes").mkdir()
    (lived.data / "volumes" / "model").write_text("large")
    (lived.data / "treadle.db").write_bytes(b"ruined")
    (lived.data / "treadle.db-wal").write_bytes(b"of the ruined one")
    (lived.data / "blob" / "stray").write_bytes(b"")
    back(archive, lived.data, force=True)
    assert files(lived.data).keys() == before.keys() | {"volumes/model"}
    assert audit(lived.data, open_blob(lived.data), quiet, time.time()).breaches == []


@pytest.mark.parametrize("at", range(0, 100, 7))
def test_a_backup_that_was_cut_off_is_refused(archive: bytes, quick_folder: Path, at: int) -> None:
    """Wherever it ends, nothing of it is used, and the folder is as it was."""
    new = quick_folder / "new"
    cut = archive[: (len(archive) - 2 * BLOCK) * at // 100]
    with pytest.raises(InvalidInput, match="backup"):
        back(cut, new)
    assert files(new) == {}
    with pytest.raises(InvalidInput):
        check(io.BytesIO(cut), quiet)


@pytest.mark.parametrize("at", range(1, 100, 7))
def test_a_backup_that_was_altered_is_refused(archive: bytes, quick_folder: Path, at: int) -> None:
    """A flipped byte anywhere in a file is found by its sha256, before anything is replaced."""
    place = len(archive) * at // 100
    altered = archive[:place] + bytes([archive[place] ^ 0x10]) + archive[place + 1 :]
    try:
        back(altered, quick_folder / "new")
    except InvalidInput as error:
        assert "backup" in str(error)
        assert files(quick_folder / "new") == {}
    else:  # it was in what tar fills up its blocks with
        assert files(quick_folder / "new") == _restored(archive, quick_folder / "right")


def _restored(archive: bytes, folder: Path) -> dict[str, bytes]:
    back(archive, folder)
    return files(folder)


def _archive(*members: tarfile.TarInfo, head: bytes = b'{"format":1,"treadle":"9","schema":1,"created_at":1.0}') -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        first = tarfile.TarInfo("backup.json")
        first.size = len(head)
        tar.addfile(first, io.BytesIO(head))
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return out.getvalue()


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, 1 if kind == tarfile.REGTYPE else 0
    return info


FOREIGN = {
    "a path upwards": _member("blob/../../evil"),
    "a path from the root": _member("/tmp/evil"),
    "a blob that is a path upwards": _member("blob/outputs/.."),
    "a file that no backup holds": _member("server.json"),
    "a link": _member("treadle.db", tarfile.SYMTYPE, "/etc/passwd"),
    "a hard link": _member("treadle.db", tarfile.LNKTYPE, "/etc/passwd"),
    "a device": _member("treadle.db", tarfile.CHRTYPE),
    "a folder": _member("blob", tarfile.DIRTYPE),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_member_that_no_backup_has_is_refused(quick_folder: Path, what: str) -> None:
    """Nothing is written outside of the folder, whoever made the archive."""
    with pytest.raises(InvalidInput, match="does not belong there"):
        back(_archive(FOREIGN[what]), quick_folder / "new")
    assert files(quick_folder) == {}


def test_another_file_is_no_backup(lived: Lived, quick_folder: Path) -> None:
    """A database, another archive and an empty file are refused."""
    lived.close()
    other = io.BytesIO()
    with tarfile.open(fileobj=other, mode="w") as tar:
        tar.addfile(_member("README"), io.BytesIO(b"x"))
    for data in (b"", b"x" * 10_000, (lived.data / "treadle.db").read_bytes(), other.getvalue()):
        with pytest.raises(InvalidInput, match="backup"):
            back(data, quick_folder / "new")


def test_a_backup_of_a_newer_treadle_is_refused(archive: bytes, lived: Lived, quick_folder: Path) -> None:
    """Of a newer format or schema: the error names the version that made it."""
    newer = b'{"format":2,"treadle":"9.1","schema":1,"created_at":1.0}'
    with pytest.raises(InvalidInput, match=r"format 2.*Treadle 9\.1"):
        back(_archive(head=newer), quick_folder / "new")
    database = lived.data / "treadle.db"
    connection = apsw.Connection(str(database))
    connection.pragma("user_version", 9000)
    connection.close()
    head = Head(1, "9.1", 9000, 1.0)
    later = b"".join(Archive(head, [of_file("treadle.db", database)]).blocks())
    with pytest.raises(InvalidInput, match=r"schema version 9000.*Treadle 9\.1"):
        back(later, quick_folder / "new")
    assert files(quick_folder / "new") == {}


def test_a_restore_that_was_killed_is_not_started_on(lived: Lived, archive: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the first thing replaced and the last no server starts; the same restore again ends it."""
    real = Path.replace

    def killed(path: Path, target: Path) -> Path:
        if path.name == "secret.key":
            raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        back(archive, lived.data, force=True)
    monkeypatch.undo()
    with pytest.raises(TreadleError, match=r"was not finished.*treadle restore"):
        open_store(lived.data)
    assert [breach.subject for breach in audit(lived.data, lived.blob, quiet, time.time()).breaches] == ["restoring"]
    back(archive, lived.data)
    open_store(lived.data).close()


def test_what_killed_backups_and_restores_left_is_removed(lived: Lived) -> None:
    """The next start of a server finds the disk space again."""
    lived.close()
    (lived.data / "backup.part").write_bytes(b"half")
    (lived.data / "backup.part.part").write_bytes(b"half")
    (lived.data / "restore.part").mkdir()
    (lived.data / "restore.part" / "treadle.db").write_bytes(b"half")
    open_store(lived.data).close()
    assert not list(lived.data.glob("*.part*"))


# looking at a folder


BREAKS: dict[str, tuple[Callable[[Lived], object], str]] = {
    "an output's bytes are gone": (lambda it: it.blob.delete(it.key), "blobs: output .* its bytes are not there"),
    "an output was cut": (lambda it: (it.data / "blob" / it.key).write_bytes(b"x"), "blobs: output .* has 1 bytes, not 21"),
    "a source was altered": (lambda it: next((it.data / "blob" / "sources").iterdir()).write_bytes(b"x"), "blobs: source .* not those that were uploaded"),
    "a source is gone": (lambda it: next((it.data / "blob" / "sources").iterdir()).unlink(), "blobs: source .* not there"),
    "the key of the secrets is gone": (lambda it: (it.data / "secret.key").unlink(), "secrets: secret KEY"),
    "the key is another one": (lambda it: (it.data / "secret.key").write_text("A" * 43 + "="), "secrets: secret KEY.*was not encrypted with the key"),
    "a row was changed": (lambda it: alter(it, "UPDATE task SET attempts = 9"), "attempts are counted: task "),
    "an index lacks a row": (lambda it: alter(it, UNINDEX), "file: treadle.db: .*index"),
    "the file is cut": (lambda it: cut(it.data / "treadle.db"), "file: treadle.db: is damaged"),
    "it is of an earlier schema": (lambda it: alter(it, "PRAGMA user_version = 3"), "schema: treadle.db: schema 3"),
}
UNINDEX = """PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'deployment_seq', 'status')
    WHERE name = 'task_of_deployment'"""


def alter(it: Lived, statement: str) -> None:
    connection = apsw.Connection(str(it.data / "treadle.db"))
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
    connection.execute(statement)
    connection.close()


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


@pytest.mark.parametrize("what", BREAKS)
def test_what_is_wrong_in_a_folder_is_found(lived: Lived, what: str) -> None:
    """Each is told by its kind, its subject and what is wrong; looking changes nothing."""
    lived.close()
    damage, told = BREAKS[what]
    assert audit(lived.data, lived.blob, quiet, time.time()).breaches == []
    damage(lived)
    before = files(lived.data)
    found = [f"{breach.name}: {breach}" for breach in audit(lived.data, lived.blob, quiet, time.time()).breaches]
    assert any(re.match(told, line) for line in found), found
    assert files(lived.data) == before


def test_bytes_without_a_row_are_found(lived: Lived) -> None:
    """Once they are too old to be those of an upload whose row is about to come."""
    lived.close()
    for key in ("outputs/task/output", f"sources/{'3' * 64}.zip"):
        upload = lived.blob.start(key)
        upload.write(b"x")
        upload.commit()
    now = time.time()
    assert audit(lived.data, lived.blob, quiet, now).breaches == []
    found = audit(lived.data, lived.blob, quiet, now + 3700).breaches
    assert {"outputs/task/output", f"sources/{'3' * 64}.zip"} <= {breach.subject for breach in found}
    assert all(str(breach).endswith("nothing in the database has these bytes") for breach in found)


def test_a_folder_of_a_killed_server_is_looked_at_with_its_log(lived: Lived, quick_folder: Path) -> None:
    """What only the write-ahead log holds counts too, and stays there."""
    shutil.copytree(lived.data, quick_folder / "killed", ignore=shutil.ignore_patterns("*-shm"))
    lived.close()
    before = files(quick_folder / "killed")
    found = audit(quick_folder / "killed", lived.blob, quiet, time.time())
    assert found.breaches == [] and found.held is not None and found.held.counts["RUNNING"] == 1
    left = {name: data for name, data in files(quick_folder / "killed").items() if not name.endswith("-shm")}
    assert left == before and len(before["treadle.db-wal"]) > 0


def test_a_folder_without_a_database_is_told(quick_folder: Path) -> None:
    """There is nothing to examine, and that is not well."""
    with pytest.raises(NotFound, match="no database"):
        audit(quick_folder, open_blob(quick_folder), quiet, time.time())
