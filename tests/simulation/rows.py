"""Tasks as one reads them in the database, with all of them that must never change once they have ended."""

from __future__ import annotations

from typing import NamedTuple

import apsw

from treadle.model.task import TaskStatus
from treadle.store.ids import unpack_id

TASKS = """SELECT task.seq, task.id, deployment.id, task.status, attempts, task.due, expires_at,
    COALESCE(container.id, ''), callback_url, task.ended_at, task.result, task.failure,
    delivery.id || ' to ' || delivery.url || ' of ' || delivery.created_at, delivery.status
    FROM task JOIN deployment ON deployment.seq = deployment_seq
    LEFT JOIN container ON container.seq = container_seq LEFT JOIN delivery ON delivery.task_seq = task.seq"""


class Row(NamedTuple):
    seq: int
    id: str
    deployment_id: str
    status: TaskStatus
    attempts: int
    due: float
    expires_at: float | None
    container_id: str
    callback_url: str | None
    ended_at: float | None
    result: bytes | None
    failure: str | None
    delivery: str | None  # what of it never changes
    delivery_status: str | None

    def runs(self, attempt: int) -> bool:
        return self.status is TaskStatus.RUNNING and self.attempts == attempt

    def is_as(self, before: Row) -> bool:
        """Nothing but how far its webhook has come differs, and that its container may have been forgotten."""
        container_id = self.container_id or before.container_id
        return self._replace(container_id=container_id, delivery_status=before.delivery_status) == before


def read(connection: apsw.Connection) -> dict[str, Row]:
    found = (Row(*row) for row in connection.execute(TASKS))
    rows = (row._replace(id=unpack_id(row.id), status=TaskStatus(row.status)) for row in found)
    return {row.id: row for row in rows}


def truth(task_id: str, attempt: int) -> bytes:
    """What user code returns in this world: each attempt something else."""
    return f'"{task_id}/{attempt}"'.encode()
