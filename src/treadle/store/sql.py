"""Each SQL statement of the store, once. Column order is the field order of the structs in `treadle.model`."""

# ruff: noqa: S608  (what is put together here are constants of this file; every value is bound)

from __future__ import annotations

from treadle.model import task as words
from treadle.model.task import TaskFilter, TaskStatus
from treadle.store.ids import pack_id

# transactions

BEGIN = "BEGIN IMMEDIATE"
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"
SAVEPOINT = "SAVEPOINT verb"
RELEASE = "RELEASE SAVEPOINT verb"
UNDO = "ROLLBACK TO SAVEPOINT verb"

# tasks

_DEPLOYMENT_ID = "(SELECT deployment.id FROM deployment WHERE deployment.seq = task.deployment_seq)"
_COLUMNS = """task.status, task.created_at, task.updated_at, task.due, task.seq, task.attempts, task.started_at,
    task.ended_at, task.expires_at,
    COALESCE((SELECT container.id FROM container WHERE container.seq = task.container_seq), ''), task.callback_url,
    task.callback_trusted, task.failure"""
_TASK = f"task.id, task.workspace_id, {_DEPLOYMENT_ID}, {_COLUMNS}"
_WAITING = "task.status IN ('PENDING', 'RETRY')"
_RUNNING = "task.status = 'RUNNING'"  # this, and the statuses one by one, in the words of the partial indexes
_HOME = "deployment_seq = (SELECT seq FROM deployment WHERE id = ?1)"
_BODY = "COALESCE(task.payload, (SELECT payload.body FROM payload WHERE payload.task_seq = task.seq))"

LAST_SEQ = "SELECT COALESCE(MAX(seq), 0) FROM task"
SEQ = "SELECT seq FROM task WHERE id = ?"
DEPLOYMENT_SEQ = "SELECT seq FROM deployment WHERE id = ?"
CONTAINER_SEQ = "SELECT seq FROM container WHERE id = ?"
INSERT_TASK = """INSERT INTO task (id, workspace_id, deployment_seq, status, created_at, updated_at, due, seq,
    attempts, started_at, ended_at, expires_at, container_seq, callback_url, callback_trusted, failure, payload)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
INSERT_PAYLOAD = "INSERT INTO payload (task_seq, body) VALUES (?, ?)"
CHANGE_TASK = """UPDATE task SET status = ?, updated_at = ?, due = ?, attempts = ?, started_at = ?, ended_at = ?,
    expires_at = ?, container_seq = ?, failure = ?, result = ?
    WHERE seq = ? AND id = ? AND status = ? AND attempts = ?"""

TASK = f"SELECT {_TASK} FROM task WHERE task.id = ?"
PAYLOAD = f"SELECT {_BODY} FROM task WHERE task.id = ?"
RESULT = "SELECT task.result FROM task WHERE task.id = ? AND task.status = 'COMPLETE'"


def _in_line(columns: str) -> str:
    """What may be claimed of a deployment (?1) now (?2), in order: two indexes, each in order, are merged."""
    pending, retrying = (
        f"""SELECT {columns}, task.due AS line, task.seq AS place FROM task WHERE task.status = '{status}'
        AND task.{_HOME} AND task.due <= ?2 AND (task.expires_at IS NULL OR task.expires_at > ?2)"""
        for status in (TaskStatus.PENDING, TaskStatus.RETRY)
    )
    return f"{pending} UNION ALL {retrying} ORDER BY line, place"


WAITING = f"{_in_line(f'task.id, task.workspace_id, ?1, {_COLUMNS}, {_BODY}')} LIMIT ?3"
WAITING_AT = f"{_in_line('task.id')} LIMIT 1 OFFSET ?3"
NEXT_DUE = f"""SELECT MIN(due) FROM (SELECT MIN(due) AS due FROM task WHERE status = 'PENDING' AND {_HOME}
    UNION ALL SELECT MIN(due) FROM task WHERE status = 'RETRY' AND {_HOME})"""
RUNNING_IN = f"""SELECT {_TASK} FROM task WHERE {_RUNNING}
    AND task.container_seq = (SELECT seq FROM container WHERE id = ?) ORDER BY task.seq"""
EXPIRED = f"""SELECT {_TASK} FROM task WHERE {_WAITING} AND task.expires_at <= ?
    ORDER BY task.expires_at LIMIT ?"""
COUNT_WAITING = """SELECT deployment.id, COUNT(*) FROM (
    SELECT deployment_seq AS home FROM task INDEXED BY task_pending WHERE status = 'PENDING'
    UNION ALL SELECT deployment_seq FROM task INDEXED BY task_retrying WHERE status = 'RETRY')
    JOIN deployment ON deployment.seq = home GROUP BY home"""
COUNT_RUNNING = """SELECT deployment.id, COUNT(*) FROM task INDEXED BY task_running
    JOIN deployment ON deployment.seq = task.deployment_seq WHERE task.status = 'RUNNING' GROUP BY deployment.seq"""

ENDED = """SELECT seq, id, created_at, ended_at IS NOT NULL AND ended_at < ? AND NOT EXISTS (
    SELECT 1 FROM delivery WHERE delivery.task_seq = task.seq AND delivery.status = 'PENDING'),
    EXISTS (SELECT 1 FROM output WHERE output.task_seq = task.seq) FROM task WHERE seq > ? ORDER BY seq LIMIT ?"""
FORGET_TASK = tuple(
    f"DELETE FROM {table} WHERE {column} BETWEEN ? AND ?"
    for table, column in (
        ("delivery", "task_seq"), ("output", "task_seq"), ("payload", "task_seq"), ("attempt", "task_seq"),
        ("log", "task_seq"), ("task", "seq"),
    )
)  # fmt: skip

# attempts

INSERT_ATTEMPT = """INSERT INTO attempt (task_seq, number, container_seq, status, started_at, ended_at, failure)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""
ATTEMPTS = """SELECT ?1, number, COALESCE(container.id, ''), attempt.status, attempt.started_at, attempt.ended_at,
    attempt.failure FROM ended_attempt AS attempt LEFT JOIN container ON container.seq = attempt.container_seq
    WHERE attempt.task_seq = (SELECT seq FROM task WHERE id = ?1)
    UNION ALL SELECT ?1, task.attempts, COALESCE(container.id, ''), task.status, task.started_at, NULL, NULL
    FROM task LEFT JOIN container ON container.seq = task.container_seq WHERE task.id = ?1 AND task.status = 'RUNNING'
    ORDER BY 2"""

# outputs

_OUTPUT = "output.id, task.id, output.attempt, output.name, output.size, output.created_at, output.key"
_OUTPUT_OF = "FROM output JOIN task ON task.seq = output.task_seq"

INSERT_OUTPUT = """INSERT INTO output (id, task_seq, attempt, name, size, created_at, key)
    SELECT ?1, task.seq, ?3, ?4, ?5, ?6, ?7 FROM task
    WHERE task.id = ?2 AND task.status = 'RUNNING' AND task.attempts = ?3"""
OUTPUTS = f"SELECT {_OUTPUT} {_OUTPUT_OF} WHERE task.id = ? ORDER BY output.seq"
OUTPUT = f"SELECT {_OUTPUT} {_OUTPUT_OF} WHERE output.id = ?"

# deliveries

_DELIVERY = """delivery.id, task.id, delivery.url, delivery.status, delivery.due, delivery.created_at, delivery.tries,
    delivery.last_status, delivery.last_error, delivery.delivered_at"""
_DELIVERY_OF = "FROM delivery JOIN task ON task.seq = delivery.task_seq"

INSERT_DELIVERY = """INSERT INTO delivery (id, task_seq, url, status, due, created_at, tries, last_status, last_error,
    delivered_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
UPDATE_DELIVERY = """UPDATE delivery SET url = ?, status = ?, due = ?, created_at = ?, tries = ?, last_status = ?,
    last_error = ?, delivered_at = ? WHERE id = ?"""
DELIVERIES = f"SELECT {_DELIVERY} {_DELIVERY_OF} WHERE task.id = ? ORDER BY delivery.created_at, delivery.id"
DUE_DELIVERIES = f"""SELECT {_DELIVERY} {_DELIVERY_OF} WHERE delivery.status = 'PENDING' AND delivery.due <= ?
    ORDER BY delivery.due, delivery.id LIMIT ?"""

# deployments, images, sources

_DEPLOYMENT = """id, workspace_id, kind, name, version, config, source_id, image_id, digest, active, created_at,
    updated_at, deleted_at"""
_NAMED = "workspace_id = ? AND name <> '' AND deleted_at IS NULL"

INSERT_DEPLOYMENT = f"""INSERT INTO deployment ({_DEPLOYMENT}, seq) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
    (SELECT COALESCE(MAX(seq), 0) + 1 FROM deployment))"""
SWITCH_DEPLOYMENT = "UPDATE deployment SET active = ?, updated_at = ?, deleted_at = ? WHERE id = ?"
REWRITE_SERVED = """UPDATE deployment SET config = ?, source_id = ?, image_id = ?, updated_at = ?
    WHERE id = ? AND kind = 'serve'"""
SERVED = f"SELECT {_DEPLOYMENT} FROM deployment WHERE kind = 'serve' AND active"
DEPLOYMENT = f"SELECT {_DEPLOYMENT} FROM deployment WHERE id = ?"
DEPLOYMENTS = f"""SELECT {_DEPLOYMENT} FROM deployment WHERE {_NAMED}
    ORDER BY created_at DESC, version DESC, id DESC"""
DEPLOYMENTS_NAMED = f"""SELECT {_DEPLOYMENT} FROM deployment WHERE {_NAMED} AND name = ?
    ORDER BY version DESC"""
DEPLOYMENT_VERSION = f"""SELECT {_DEPLOYMENT} FROM deployment
    WHERE {_NAMED} AND name = ? AND version = ?"""
DEPLOYMENT_LATEST = f"""SELECT {_DEPLOYMENT} FROM deployment WHERE {_NAMED} AND name = ?
    ORDER BY version DESC LIMIT 1"""
LAST_VERSION = "SELECT COALESCE(MAX(version), 0) FROM deployment WHERE workspace_id = ? AND name <> '' AND name = ?"
DRAFT = f"SELECT {_DEPLOYMENT} FROM deployment WHERE workspace_id = ? AND name = '' AND digest = ?"

_IMAGE = "id, spec_digest, spec, python, lock, created_at"

PUT_IMAGE = f"""INSERT INTO image ({_IMAGE}) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (spec_digest) DO UPDATE SET id = excluded.id, spec = excluded.spec, python = excluded.python,
    lock = excluded.lock, created_at = excluded.created_at"""
IMAGE = f"SELECT {_IMAGE} FROM image WHERE spec_digest = ?"
IMAGE_BY_ID = f"SELECT {_IMAGE} FROM image WHERE id = ? ORDER BY created_at, spec_digest LIMIT 1"

IMAGE_USES = """SELECT image_id, workspace_id, name, version FROM deployment WHERE name <> '' AND active = 1
    ORDER BY name, version"""

ADD_SOURCE = """INSERT INTO source (workspace_id, id, size, created_at) VALUES (?, ?, ?, ?)
    ON CONFLICT (workspace_id, id) DO NOTHING"""
HAS_SOURCE = "SELECT 1 FROM source WHERE workspace_id = ? AND id = ?"

# containers

_CONTAINER = """id, workspace_id, deployment_id, agent_id, status, token_hash, created_at, lease_until, started_at,
    ended_at, reason, limits, for_task, isolation, gpus, stop_by"""

LAST_CONTAINER_SEQ = """SELECT MAX(COALESCE((SELECT MAX(seq) FROM container), 0),
    COALESCE((SELECT MAX(container_seq) FROM log), 0))"""
INSERT_CONTAINER = f"""INSERT INTO container ({_CONTAINER}, seq)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
UPDATE_CONTAINER = """UPDATE container SET workspace_id = ?, deployment_id = ?, agent_id = ?, status = ?,
    token_hash = ?, created_at = ?, lease_until = ?, started_at = ?, ended_at = ?, reason = ?, limits = ?,
    for_task = ?, isolation = ?, gpus = ?, stop_by = ? WHERE id = ?"""
CONTAINER = f"SELECT {_CONTAINER} FROM container WHERE id = ?"
CONTAINER_BY_TOKEN = f"SELECT {_CONTAINER} FROM container WHERE token_hash = ?"
# The newest stays, so that no number is given twice: rows of tasks have it.
_OLD_CONTAINERS = """FROM container WHERE status = 'STOPPED' AND ended_at < ?
    AND seq < (SELECT MAX(seq) FROM container) ORDER BY created_at LIMIT ?"""
FORGET_CONTAINERS = (
    f"DELETE FROM log WHERE task_seq IS NULL AND container_seq IN (SELECT seq {_OLD_CONTAINERS})",
    f"DELETE FROM container WHERE id IN (SELECT id {_OLD_CONTAINERS})",
)
LIVE_CONTAINERS = f"""SELECT {_CONTAINER} FROM container WHERE status IN ('STARTING', 'RUNNING', 'STOPPING')
    ORDER BY created_at, id"""

CONTAINERS = f"""SELECT {_CONTAINER} FROM container WHERE workspace_id = ? AND status IN ('STARTING', 'RUNNING',
    'STOPPING') ORDER BY created_at DESC, id"""
ALL_CONTAINERS = f"SELECT {_CONTAINER} FROM container WHERE workspace_id = ? ORDER BY seq DESC LIMIT ?"

# logs

_CHUNK = "log.seq, task.id, log.attempt, container.id, log.body"
_WITH_TASK = "LEFT JOIN task ON task.seq = log.task_seq"

LAST_LOG_SEQ = "SELECT COALESCE(MAX(seq), 0) FROM log"
INSERT_LOG = """INSERT INTO log (seq, container_seq, task_seq, attempt, starting, lines, size, body)
    VALUES (?, (SELECT seq FROM container WHERE id = ?), ?, ?, ?, ?, ?, ?)"""
LOG_END = "SELECT attempt, lines, size FROM log WHERE task_seq = ? ORDER BY seq DESC LIMIT 1"
OWN_LOG_END = """SELECT lines, size FROM log WHERE task_seq IS NULL
    AND container_seq = (SELECT seq FROM container WHERE id = ?) ORDER BY seq DESC LIMIT 1"""
TRIM_OWN_LOG = """DELETE FROM log WHERE task_seq IS NULL
    AND container_seq = (SELECT seq FROM container WHERE id = ?) AND (lines <= ? OR size <= ?)"""
LOG_BYTES = "SELECT bytes FROM log_bytes"
FORGET_OLDEST_LOGS = """DELETE FROM log WHERE seq IN (SELECT seq FROM (
    SELECT seq, SUM(bytes) OVER (ORDER BY seq) - bytes AS before
    FROM (SELECT seq, length(body) AS bytes FROM log ORDER BY seq LIMIT ?)) WHERE before < ?)"""
TASK_LOG = f"""SELECT {_CHUNK} FROM task JOIN log ON log.task_seq = task.seq
    LEFT JOIN container ON container.seq = log.container_seq WHERE task.id = ? AND log.seq >= ?
    UNION ALL SELECT log.seq, NULL, log.attempt, container.id, log.body FROM container
    JOIN log ON log.container_seq = container.seq AND log.task_seq IS NULL AND log.starting
    WHERE container.for_task <> '' AND container.for_task = ? AND log.seq >= ? ORDER BY 1 LIMIT ?"""
CONTAINER_LOG = f"""SELECT {_CHUNK} FROM container JOIN log ON log.container_seq = container.seq {_WITH_TASK}
    WHERE container.id = ? AND log.seq >= ? ORDER BY log.seq LIMIT ?"""
DEPLOYMENT_LOG = f"""SELECT {_CHUNK} FROM container CROSS JOIN log ON log.container_seq = container.seq {_WITH_TASK}
    WHERE container.deployment_id = ? AND log.seq >= ? ORDER BY log.seq LIMIT ?"""  # CROSS: containers first, few

# workspaces, tokens

_WORKSPACE = "id, external_id, name, signing_key, url_key, created_at"

INSERT_WORKSPACE = """INSERT INTO workspace (external_id, name, signing_key, url_key, created_at)
    VALUES (?, ?, ?, ?, ?) RETURNING id"""
WORKSPACE = f"SELECT {_WORKSPACE} FROM workspace WHERE id = ?"
WORKSPACE_BY_NAME = f"SELECT {_WORKSPACE} FROM workspace WHERE name = ?"

_TOKEN = "id, workspace_id, hash, role, active, created_at, name"  # noqa: S105  (column names, not a secret)

INSERT_TOKEN = f"INSERT INTO token ({_TOKEN}) VALUES (?, ?, ?, ?, ?, ?, ?)"
TOKEN = f"SELECT {_TOKEN} FROM token WHERE hash = ?"
TOKENS = f"SELECT {_TOKEN} FROM token WHERE workspace_id = ? ORDER BY created_at, id"
SWITCH_TOKEN = "UPDATE token SET active = ? WHERE id = ?"  # noqa: S105  (no secret)
DELETE_TOKEN = "DELETE FROM token WHERE id = ?"  # noqa: S105  (no secret)

# secrets

_SECRET = "workspace_id, name, sealed, created_at, updated_at"  # noqa: S105  (column names, not a secret)

PUT_SECRET = f"""INSERT INTO secret ({_SECRET}) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (workspace_id, name) DO UPDATE SET sealed = excluded.sealed, created_at = excluded.created_at,
    updated_at = excluded.updated_at"""
DELETE_SECRET = "DELETE FROM secret WHERE workspace_id = ? AND name = ?"  # noqa: S105
SECRET = f"SELECT {_SECRET} FROM secret WHERE workspace_id = ? AND name = ?"
SECRETS = f"SELECT {_SECRET} FROM secret WHERE workspace_id = ? ORDER BY name"
EVERY_SECRET = f"SELECT {_SECRET} FROM secret ORDER BY workspace_id, name"

# volumes

_VOLUME = "workspace_id, name, created_at"

INSERT_VOLUME = f"INSERT INTO volume ({_VOLUME}) VALUES (?, ?, ?)"
DELETE_VOLUME = "DELETE FROM volume WHERE workspace_id = ? AND name = ?"
VOLUME = f"SELECT {_VOLUME} FROM volume WHERE workspace_id = ? AND name = ?"
VOLUMES = f"SELECT {_VOLUME} FROM volume WHERE workspace_id = ? ORDER BY name"


Bound = str | bytes | int | float


class _Where:
    """Conditions and their values, in order."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.bound: list[Bound] = []

    def add(self, condition: str, *values: Bound) -> None:
        self.parts.append(condition)
        self.bound += values

    def __str__(self) -> str:
        return " AND ".join(self.parts)


def list_tasks(which: TaskFilter) -> tuple[str, tuple[Bound, ...]]:
    """The statement of a filter and its parameters: fixed fragments, every value bound."""
    where = _Where()
    order = "task.seq"
    if which.task_ids:
        order = "+task.seq"  # off this index: named tasks are few, whatever their order
        where.add(f"task.id IN ({_marks(which.task_ids)})", *map(pack_id, which.task_ids))
        _in_bounds(where, which, "+task.workspace_id = ?")
    elif which.statuses and set(which.statuses) <= _BY_STATUS.keys():
        _newest_by_status(where, which)
    else:
        _in_bounds(where, which, "task.workspace_id = ?")
    if which.statuses:
        where.add(f"task.status IN ({_marks(which.statuses)})", *which.statuses)
    return f"SELECT {_TASK} FROM task WHERE {where} ORDER BY {order} DESC LIMIT ?", (*where.bound, which.limit)


def _in_bounds(where: _Where, which: TaskFilter, of_workspace: str) -> None:
    """All that a filter asks for but status and id.

    A plus keeps the planner off an index that would have it sort all rows of several deployments.
    """
    where.add(of_workspace, which.workspace_id)
    for condition, value in (
        ("task.created_at >= ?", which.created_from),
        ("task.created_at <= ?", which.created_to),
        ("task.seq < ?", which.before_seq),
    ):
        if value is not None:
            where.add(condition, value)
    if len(which.deployment_ids) == 1:  # its index has the rows in order
        where.add("task.deployment_seq = (SELECT seq FROM deployment WHERE id = ?)", *which.deployment_ids)
    elif which.deployment_ids:
        among = f"SELECT seq FROM deployment WHERE id IN ({_marks(which.deployment_ids)})"
        where.add(f"+task.deployment_seq IN ({among})", *which.deployment_ids)
    if which.names:
        named = f"workspace_id = ? AND name <> '' AND name IN ({_marks(which.names)})"
        where.add(
            f"+task.deployment_seq IN (SELECT seq FROM deployment WHERE {named})", which.workspace_id, *which.names
        )
    if which.container_ids:
        marks = _marks(which.container_ids)
        where.add(f"task.container_seq IN (SELECT seq FROM container WHERE id IN ({marks}))", *which.container_ids)


_BY_STATUS = {  # the index that has all tasks of a status, and the words that lead to it
    TaskStatus.PENDING: ("task_pending", "task.status = 'PENDING'"),
    TaskStatus.RETRY: ("task_retrying", "task.status = 'RETRY'"),
    TaskStatus.RUNNING: ("task_running", _RUNNING),
} | {
    status: ("task_unhappy", f"task.status = '{status.value}'") for status in words.FINAL - {TaskStatus.COMPLETE}
}
# What the index itself tells, so that no row is read of the many that are not among the newest.
_OF_WORKSPACE = "+task.deployment_seq IN (SELECT seq FROM deployment WHERE workspace_id = ?)"


def _newest_by_status(where: _Where, which: TaskFilter) -> None:
    """The newest rows that fit, of each status by its own index: in the order of the list they may lie far apart.

    Not for COMPLETE, which nearly all tasks are.
    """
    parts: list[str] = []
    bound: list[Bound] = []
    for status in dict.fromkeys(which.statuses):
        index, words_of_index = _BY_STATUS[status]
        found = _Where()
        found.add(words_of_index)
        _in_bounds(found, which, _OF_WORKSPACE if status in words.WAITING else "task.workspace_id = ?")
        newest = f"SELECT seq FROM task INDEXED BY {index} WHERE {found} ORDER BY seq DESC LIMIT ?"
        parts.append(f"SELECT seq FROM ({newest})")
        bound += [*found.bound, which.limit]
    where.add(f"task.seq IN ({' UNION ALL '.join(parts)})", *bound)


def _marks(members: tuple[str, ...]) -> str:
    return ", ".join("?" * len(members))
