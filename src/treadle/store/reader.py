"""Questions to the SQLite file: one connection, one thread at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import apsw
import msgspec

from treadle.model.container import Container, Token, Workspace
from treadle.model.deployment import Deployment, Image, ImageUse
from treadle.model.errors import TreadleError
from treadle.model.log import Chunk
from treadle.model.secret import Secret
from treadle.model.task import Attempt, Delivery, Output, Task, TaskFilter
from treadle.model.volume import Volume
from treadle.store import rows, sql
from treadle.store.ids import pack_id
from treadle.store.soundness import damaged

CACHED_STATEMENTS = 200  # more than there are in `sql`; lists of tasks come in several forms
BUSY_MILLISECONDS = 10_000  # readers meet a lock only while the file is opened or recovered
UNREADABLE = (LookupError, ValueError, TypeError, AttributeError, msgspec.MsgspecError)  # what flipped bits lead to

Bound = str | bytes | int | float | None
T = TypeVar("T")


def plan_once(connection: apsw.Connection) -> None:
    """Keep a statement's plan whatever values it is given.

    Else SQLite, where it is built with STAT4, plans each one that has a range anew at each use: 50 µs instead of 5.
    """
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)


class SqliteReader:
    """Implements `store.base.Reader`. No answer is fetched later, so that no snapshot is held open."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()

    def close(self) -> None:
        self._connection.close()

    def _all(self, make: Callable[[rows.Row], T], statement: str, *bound: Bound) -> list[T]:
        return self._made(make, self._rows(statement, bound))

    def _made(self, make: Callable[[rows.Row], T], found: Sequence[rows.Row]) -> list[T]:
        try:
            return [make(row) for row in found]
        except UNREADABLE as error:
            raise self._damaged(f"a row cannot be read ({type(error).__name__}: {error})") from error

    def _one(self, make: Callable[[rows.Row], T], statement: str, *bound: Bound) -> T | None:
        found = self._all(make, statement, *bound)
        return found[0] if found else None

    def _value(self, statement: str, *bound: Bound) -> Any:
        """The single column of the single row, None without a row."""
        found = self._rows(statement, bound)
        return found[0][0] if found else None

    def _rows(self, statement: str, bound: Sequence[Bound]) -> list[rows.Row]:
        try:
            return self._cursor.execute(statement, bound).fetchall()
        except (apsw.CorruptError, UnicodeDecodeError) as error:
            raise self._damaged(str(error)) from error

    def _rows_within(
        self, most: int, weigh: Callable[[rows.Row], int], statement: str, *bound: Bound
    ) -> list[rows.Row]:
        """The first rows, which weigh `most` together; one at least, if there is any. The rest is not read."""
        found: list[rows.Row] = []
        weight = 0
        try:
            with closing(self._connection.cursor()) as cursor:  # closed, it holds no snapshot open
                for row in cursor.execute(statement, bound):
                    weight += weigh(row)
                    if found and weight > most:
                        break
                    found.append(row)
        except (apsw.CorruptError, UnicodeDecodeError) as error:
            raise self._damaged(str(error)) from error
        return found

    def _damaged(self, what: str) -> TreadleError:
        return damaged(Path(self._connection.filename), what)

    # tasks

    def task(self, task_id: str) -> Task | None:
        return self._one(rows.to_task, sql.TASK, pack_id(task_id))

    def payload(self, task_id: str) -> bytes | None:
        body: bytes | None = self._value(sql.PAYLOAD, pack_id(task_id))
        return body

    def result(self, task_id: str) -> bytes | None:
        body: bytes | None = self._value(sql.RESULT, pack_id(task_id))
        return body

    def attempts(self, task_id: str) -> list[Attempt]:
        return self._all(rows.to_attempt, sql.ATTEMPTS, pack_id(task_id))

    def tasks(self, which: TaskFilter) -> list[Task]:
        statement, bound = sql.list_tasks(which)
        return self._all(rows.to_task, statement, *bound)

    def running_in(self, container_id: str) -> list[Task]:
        return self._all(rows.to_task, sql.RUNNING_IN, container_id)

    def outputs(self, task_id: str) -> list[Output]:
        return self._all(rows.to_output, sql.OUTPUTS, pack_id(task_id))

    def output(self, output_id: str) -> Output | None:
        return self._one(rows.to_output, sql.OUTPUT, output_id)

    def deliveries(self, task_id: str) -> list[Delivery]:
        return self._all(rows.to_delivery, sql.DELIVERIES, pack_id(task_id))

    # deployments, images, sources

    def deployment(self, deployment_id: str) -> Deployment | None:
        return self._one(rows.to_deployment, sql.DEPLOYMENT, deployment_id)

    def deployments(self, workspace_id: int, name: str = "") -> list[Deployment]:
        if name:
            return self._all(rows.to_deployment, sql.DEPLOYMENTS_NAMED, workspace_id, name)
        return self._all(rows.to_deployment, sql.DEPLOYMENTS, workspace_id)

    def served(self) -> list[Deployment]:
        return self._all(rows.to_deployment, sql.SERVED)

    def deployment_version(self, workspace_id: int, name: str, version: int | None) -> Deployment | None:
        if version is None:
            return self._one(rows.to_deployment, sql.DEPLOYMENT_LATEST, workspace_id, name)
        return self._one(rows.to_deployment, sql.DEPLOYMENT_VERSION, workspace_id, name, version)

    def last_version(self, workspace_id: int, name: str) -> int:
        return int(self._value(sql.LAST_VERSION, workspace_id, name))

    def draft(self, workspace_id: int, digest: str) -> Deployment | None:
        return self._one(rows.to_deployment, sql.DRAFT, workspace_id, digest)

    def image(self, spec_digest: str) -> Image | None:
        return self._one(rows.to_image, sql.IMAGE, spec_digest)

    def image_by_id(self, image_id: str) -> Image | None:
        return self._one(rows.to_image, sql.IMAGE_BY_ID, image_id)

    def image_uses(self) -> list[ImageUse]:
        return self._all(lambda row: ImageUse(*row), sql.IMAGE_USES)

    def has_source(self, workspace_id: int, source_id: str) -> bool:
        return self._value(sql.HAS_SOURCE, workspace_id, source_id) is not None

    # containers

    def container(self, container_id: str) -> Container | None:
        return self._one(rows.to_container, sql.CONTAINER, container_id)

    def container_by_token(self, token_hash: str) -> Container | None:
        return self._one(rows.to_container, sql.CONTAINER_BY_TOKEN, token_hash)

    def containers(self, workspace_id: int, *, ended: int = 0) -> list[Container]:
        if ended:
            return self._all(rows.to_container, sql.ALL_CONTAINERS, workspace_id, ended)
        return self._all(rows.to_container, sql.CONTAINERS, workspace_id)

    # logs

    def task_log(self, task_id: str, seq: int, limit: int) -> list[Chunk]:
        return self._all(rows.to_chunk, sql.TASK_LOG, pack_id(task_id), seq, task_id, seq, limit)

    def container_log(self, container_id: str, seq: int, limit: int) -> list[Chunk]:
        return self._all(rows.to_chunk, sql.CONTAINER_LOG, container_id, seq, limit)

    def deployment_log(self, deployment_id: str, seq: int, limit: int) -> list[Chunk]:
        return self._all(rows.to_chunk, sql.DEPLOYMENT_LOG, deployment_id, seq, limit)

    # workspaces, tokens

    def workspace(self, workspace_id: int) -> Workspace | None:
        return self._one(rows.to_workspace, sql.WORKSPACE, workspace_id)

    def workspace_by_name(self, name: str) -> Workspace | None:
        return self._one(rows.to_workspace, sql.WORKSPACE_BY_NAME, name)

    def token(self, token_hash: str) -> Token | None:
        return self._one(rows.to_token, sql.TOKEN, token_hash)

    def tokens(self, workspace_id: int) -> list[Token]:
        return self._all(rows.to_token, sql.TOKENS, workspace_id)

    def secret(self, workspace_id: int, name: str) -> Secret | None:
        return self._one(rows.to_secret, sql.SECRET, workspace_id, name)

    def secrets(self, workspace_id: int) -> list[Secret]:
        return self._all(rows.to_secret, sql.SECRETS, workspace_id)

    def volume(self, workspace_id: int, name: str) -> Volume | None:
        return self._one(rows.to_volume, sql.VOLUME, workspace_id, name)

    def volumes(self, workspace_id: int) -> list[Volume]:
        return self._all(rows.to_volume, sql.VOLUMES, workspace_id)
