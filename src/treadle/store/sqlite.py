"""The store in one SQLite file: one connection that writes, any number that read. One process opens the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import NoReturn

import apsw
import msgspec

from treadle.model.container import Container, Token, Workspace
from treadle.model.deployment import Deployment, Image
from treadle.model.errors import Conflict, NoSpace, TreadleError
from treadle.model.log import Extent, NewChunk
from treadle.model.secret import Secret
from treadle.model.task import Change, Delivery, Ended, NewTask, Output, Task
from treadle.model.volume import Volume
from treadle.store import rows, sql
from treadle.store.ids import Numbers, pack_id, unpack_id
from treadle.store.reader import BUSY_MILLISECONDS, CACHED_STATEMENTS, SqliteReader, plan_once
from treadle.store.schema import Tell, forget_older_copies, migrate
from treadle.store.soundness import check_at_start, damaged

CACHE_KIB = 16 * 1024  # at most: the pages of some 50 000 waiting tasks, which are read again when they are claimed


class SqliteStore(SqliteReader):
    """Implements `store.base.Store`. Any one thread at a time may use it, not only the one that opened it."""

    def __init__(self, connection: apsw.Connection, path: Path) -> None:
        super().__init__(connection)
        self._path = path
        self._ended_by: BaseException | None = None  # what had SQLite roll back the whole transaction
        self._deployments = Numbers(lambda key: self._value(sql.DEPLOYMENT_SEQ, key), "deployment")
        self._containers = Numbers(lambda key: self._value(sql.CONTAINER_SEQ, key), "container")
        self._last_seq: int = self._value(sql.LAST_SEQ)
        self._last_container_seq: int = self._value(sql.LAST_CONTAINER_SEQ)
        self._last_log_seq: int = self._value(sql.LAST_LOG_SEQ)

    @classmethod
    def open(cls, path: Path, tell: Tell = lambda _line: None) -> SqliteStore:
        """Open the file, make it if there is none, and bring it to the current schema; `tell` gets lines about that.

        Raises:
            TreadleError: the file cannot be opened, is damaged or no database, or was written by a newer Treadle.
        """
        check_at_start(path)
        try:
            _close_to_others(path)
            connection = apsw.Connection(str(path), statementcachesize=CACHED_STATEMENTS)
        except (OSError, apsw.CantOpenError) as error:
            raise TreadleError(
                f"{path} cannot be opened: {error}.", "Check that its folder exists and may be written."
            ) from error
        try:
            _configure(connection)
            migrate(connection, path, tell)
            store = cls(connection, path)
            forget_older_copies(path)
            return store
        except apsw.Error as error:
            connection.close()
            raise TreadleError(f"{path} cannot be used: {error}.", "Is its disk full, or read-only?") from error
        except BaseException:
            connection.close()
            raise

    def reader(self) -> SqliteReader:
        connection = apsw.Connection(
            str(self._path), flags=apsw.SQLITE_OPEN_READONLY, statementcachesize=CACHED_STATEMENTS
        )
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        plan_once(connection)
        return SqliteReader(connection)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._cursor.execute(sql.BEGIN)
        try:
            yield
            self._check_transaction()
            self._cursor.execute(sql.COMMIT)
        except BaseException as error:  # noqa: BLE001 - it is raised again
            self._back(sql.ROLLBACK)
            self._raise(error)
        finally:
            self._ended_by = None

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        self._check_transaction()
        self._cursor.execute(sql.SAVEPOINT)
        try:
            yield
        except BaseException as error:  # noqa: BLE001 - it is raised again
            self._back(sql.UNDO, sql.RELEASE)
            self._raise(error)
        self._cursor.execute(sql.RELEASE)

    def _raise(self, error: BaseException) -> NoReturn:
        """Raise this in our words. What has cost the whole transaction is kept for the others that share it."""
        told = self._told(error)
        if not self._connection.in_transaction:
            self._ended_by = told
        if told is error:
            raise error
        raise told from error

    def _told(self, error: BaseException) -> BaseException:
        match error:
            case apsw.FullError():
                return NoSpace()
            case apsw.CorruptError():
                return damaged(self._path, str(error))
        return error

    def _back(self, *statements: str) -> None:
        self._deployments.forget()  # what had the numbers may not be there any more
        self._containers.forget()
        if self._connection.in_transaction:  # a full disk, say, has rolled it back already
            for statement in statements:
                self._cursor.execute(statement)

    def _check_transaction(self) -> None:
        """Refuse to write outside a transaction, where each statement would be durable alone.

        After an error that had SQLite roll the whole transaction back (a full disk, say) that one is raised again.
        """
        if self._ended_by is not None:
            raise self._ended_by
        if not self._connection.in_transaction:
            raise TreadleError("The store was written to outside a transaction.", "Use `with store.transaction():`.")

    def _write(self, statement: str, bound: Sequence[rows.Row]) -> None:
        """Run the statement for each row of parameters."""
        self._check_transaction()
        try:
            self._cursor.executemany(statement, bound)
        except apsw.ConstraintError as error:
            raise Conflict(f"The store holds such a row already: {error}.", "Use another id or name.") from error

    # tasks

    def insert_tasks(self, tasks: Sequence[NewTask]) -> int:
        first = self._last_seq + 1
        self._last_seq += len(tasks)  # a rollback leaves a gap, which harms nobody
        deployment, container = self._deployments.seq, self._containers.seq
        made = [
            rows.of_task(new, seq, deployment(new.task.deployment_id), container(new.task.container_id))
            for seq, new in enumerate(tasks, first)
        ]
        self._write(sql.INSERT_TASK, made)
        large = [(seq, new.payload) for seq, new in enumerate(tasks, first) if len(new.payload) > rows.SMALL]
        if large:
            self._write(sql.INSERT_PAYLOAD, large)
        return first

    def waiting(self, deployment_id: str, now: float, limit: int, *, most: int) -> list[tuple[Task, bytes]]:
        found = self._rows_within(most, _payload_size, sql.WAITING, deployment_id, now, limit)
        return self._made(_with_payload, found)

    def waiting_at(self, deployment_id: str, now: float, place: int) -> str:
        return unpack_id(self._value(sql.WAITING_AT, deployment_id, now, place) or "")

    def next_due(self, deployment_id: str) -> float | None:
        due: float | None = self._value(sql.NEXT_DUE, deployment_id)
        return due

    def commit(self, changes: Sequence[Change]) -> list[bool]:
        self._check_transaction()
        execute, changes_made, container = self._cursor.execute, self._connection.changes, self._containers.seq
        written: list[bool] = []
        attempts: list[rows.Row] = []
        deliveries: list[rows.Row] = []
        for change in changes:
            task = change.task
            seq = task.seq or self._seq(task.id)
            execute(sql.CHANGE_TASK, rows.of_change(change, seq, container(task.container_id)))
            written.append(changes_made() == 1)
            attempt = change.attempt
            if written[-1] and attempt is not None and not rows.told_by_task(attempt, task):
                attempts.append(rows.of_attempt(attempt, seq, container(attempt.container_id)))
            if written[-1] and change.notify and task.callback_url:
                deliveries.append(rows.first_delivery(task, seq, task.callback_url))
        if attempts:
            self._write(sql.INSERT_ATTEMPT, attempts)
        if deliveries:
            self._write(sql.INSERT_DELIVERY, deliveries)
        return written

    def _seq(self, task_id: str) -> int:
        """For a task that its caller has not read back since it was inserted; 0, which no task has, if unknown."""
        seq: int | None = self._value(sql.SEQ, pack_id(task_id))
        return seq or 0

    def expired(self, now: float, limit: int) -> list[Task]:
        return self._all(rows.to_task, sql.EXPIRED, now, limit)

    def ended(self, before: float, after_seq: int, limit: int) -> tuple[list[Ended], int | None]:
        found = self._all(tuple, sql.ENDED, before, after_seq, limit)
        old = [row for row in found if row[2] < before]  # none ends before it was made, and seq is the order of that
        whole = len(old) == limit
        chosen = [Ended(seq, unpack_id(task_id), bool(saved)) for seq, task_id, _, ended, saved in old if ended]
        return chosen, old[-1][0] if whole else None

    def newest_seq(self) -> int:
        return self._last_seq

    def forget_tasks(self, seqs: Sequence[int]) -> None:
        ranges = list(_ranges(seqs))
        for statement in sql.FORGET_TASK:
            self._write(statement, ranges)

    def unfinished(self) -> dict[str, tuple[int, int]]:
        waiting = dict(self._all(_pair, sql.COUNT_WAITING))
        running = dict(self._all(_pair, sql.COUNT_RUNNING))
        return {key: (waiting.get(key, 0), running.get(key, 0)) for key in waiting.keys() | running.keys()}

    # deployments, images, sources

    def insert_deployment(self, deployment: Deployment) -> None:
        self._write(sql.INSERT_DEPLOYMENT, [rows.of_deployment(deployment)])

    def switch_deployment(self, deployment: Deployment) -> None:
        row = (deployment.active, deployment.updated_at, deployment.deleted_at, deployment.id)
        self._write(sql.SWITCH_DEPLOYMENT, [row])

    def rewrite_served(self, deployment: Deployment) -> None:
        config = rows.of_deployment(deployment)[5]
        row = (config, deployment.source_id, deployment.image_id, deployment.updated_at, deployment.id)
        self._write(sql.REWRITE_SERVED, [row])

    def put_image(self, image: Image) -> None:
        self._write(sql.PUT_IMAGE, [rows.of_image(image)])

    def add_source(self, workspace_id: int, source_id: str, size: int, now: float) -> None:
        self._write(sql.ADD_SOURCE, [(workspace_id, source_id, size, now)])

    # containers

    def insert_container(self, container: Container) -> None:
        self._last_container_seq += 1
        self._write(sql.INSERT_CONTAINER, [(*rows.of_container(container), self._last_container_seq)])

    def update_container(self, container: Container) -> None:
        row = rows.of_container(container)
        self._write(sql.UPDATE_CONTAINER, [(*row[1:], container.id)])

    def forget_containers(self, before: float, limit: int) -> None:
        self._containers.forget()
        for statement in sql.FORGET_CONTAINERS:
            self._write(statement, [(before, limit)])

    def live_containers(self) -> list[Container]:
        return self._all(rows.to_container, sql.LIVE_CONTAINERS)

    # logs

    def insert_logs(self, chunks: Sequence[NewChunk]) -> None:
        numbered = list(enumerate(chunks, self._last_log_seq + 1))
        self._last_log_seq += len(numbered)
        self._write(sql.INSERT_LOG, [rows.of_chunk(chunk, seq) for seq, chunk in numbered])

    def log_end(self, task_seq: int, attempt: int) -> Extent:
        last = self._one(tuple, sql.LOG_END, task_seq)
        return Extent(last[1], last[2]) if last and last[0] == attempt else Extent()

    def own_log_end(self, container_id: str) -> Extent:
        return self._one(lambda row: Extent(*row), sql.OWN_LOG_END, container_id) or Extent()

    def trim_own_log(self, container_id: str, before: Extent) -> None:
        self._write(sql.TRIM_OWN_LOG, [(container_id, before.lines, before.size)])

    def log_bytes(self) -> int:
        return int(self._value(sql.LOG_BYTES))

    def forget_oldest_logs(self, size: int, limit: int) -> None:
        self._write(sql.FORGET_OLDEST_LOGS, [(limit, size)])

    # outputs, deliveries

    def insert_output(self, output: Output) -> bool:
        self._write(sql.INSERT_OUTPUT, [rows.of_output(output)])
        return self._connection.changes() == 1

    def due_deliveries(self, now: float, limit: int) -> list[Delivery]:
        return self._all(rows.to_delivery, sql.DUE_DELIVERIES, now, limit)

    def update_delivery(self, delivery: Delivery) -> None:
        self._write(sql.UPDATE_DELIVERY, [rows.of_delivery(delivery)])

    # workspaces, tokens

    def insert_workspace(self, workspace: Workspace) -> Workspace:
        self._check_transaction()
        try:
            given = self._value(sql.INSERT_WORKSPACE, *rows.of_workspace(workspace))
        except apsw.ConstraintError as error:
            raise Conflict(f"Workspace {workspace.name!r} exists already.", "Use another name.") from error
        return msgspec.structs.replace(workspace, id=given)

    def insert_token(self, token: Token) -> None:
        self._write(sql.INSERT_TOKEN, [rows.of_token(token)])

    def switch_token(self, token_id: str, *, active: bool) -> None:
        self._write(sql.SWITCH_TOKEN, [(int(active), token_id)])

    def delete_token(self, token_id: str) -> None:
        self._write(sql.DELETE_TOKEN, [(token_id,)])

    # secrets

    def put_secret(self, secret: Secret) -> None:
        self._write(sql.PUT_SECRET, [rows.of_secret(secret)])

    def delete_secret(self, workspace_id: int, name: str) -> None:
        self._write(sql.DELETE_SECRET, [(workspace_id, name)])

    # volumes

    def insert_volume(self, volume: Volume) -> None:
        self._write(sql.INSERT_VOLUME, [rows.of_volume(volume)])

    def delete_volume(self, workspace_id: int, name: str) -> None:
        self._write(sql.DELETE_VOLUME, [(workspace_id, name)])


def _close_to_others(path: Path) -> None:
    """It holds signing keys, whoever may look into its folder. SQLite gives its journals the mode of the file."""
    if not path.exists():
        path.touch(mode=0o600)
    for file in path.parent.glob(f"{path.name}*"):
        if file.stat().st_mode & 0o077:
            file.chmod(0o600)


def _configure(connection: apsw.Connection) -> None:
    connection.set_busy_timeout(BUSY_MILLISECONDS)
    plan_once(connection)
    connection.pragma("cache_size", -CACHE_KIB)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.pragma("fullfsync", True)  # macOS: fsync alone leaves the bytes in the drive's cache
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)  # nothing torn is left behind what comes now


def _ranges(seqs: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of each row of numbers that follow each other."""
    for _, run in groupby(enumerate(sorted(seqs)), lambda place: place[1] - place[0]):
        members = [seq for _, seq in run]
        yield members[0], members[-1]


def _with_payload(row: rows.Row) -> tuple[Task, bytes]:
    return rows.to_task(row), row[16]


def _payload_size(row: rows.Row) -> int:
    return len(row[16] or b"")


def _pair(row: rows.Row) -> tuple[str, int]:
    return row[0], row[1]
