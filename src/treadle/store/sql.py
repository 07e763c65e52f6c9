"""Each SQL statement of the store, once. Column order is the field order of the structs in `treadle.model`."""

# ruff: noqa: S608  (what is put together here are constants of this file; every value is bound)

from __future__ import annotations

from treadle.model import task as words
from treadle.model.task import TaskFilter, TaskStatus

# transactions

BEGIN = "BEGIN IMMEDIATE"
COMMIT = "COMMIT"
ROLLBACK = "ROLLBACK"
SAVEPOINT = "SAVEPOINT verb"
RELEASE = "RELEASE SAVEPOINT verb"
UNDO = "ROLLBACK TO SAVEPOINT verb"

# tasks

_TASK = """task.id, task.workspace_id, task.deployment_id, task.status, task.created_at, task.updated_at, task.due,
    task.seq, task.attempts, task.started_at, task.ended_at, task.expires_at, task.container_id, task.callback_url,
    task.failure"""
_WAITING = "task.status IN ('PENDING', 'RETRY')"  # in these words, so that the partial indexes are used
_RUNNING = "task.status = 'RUNNING'"
_UNHAPPY = "task.status IN ('FAILED', 'CANCELLED', 'TIMEOUT', 'EXPIRED')"

LAST_SEQ = "SELECT COALESCE(MAX(seq), 0) FROM task"
SEQ = "SELECT seq FROM task WHERE id = ?"
INSERT_TASK = """INSERT INTO task (id, workspace_id, deployment_id, status, created_at, updated_at, due, seq,
    attempts, started_at, ended_at, expires_at, container_id, callback_url, failure)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
INSERT_PAYLOAD = "INSERT INTO payload (task_seq, body) VALUES (?, ?)"
CHANGE_TASK = """UPDATE task SET status = ?, updated_at = ?, due = ?, attempts = ?, started_at = ?, ended_at = ?,
    expires_at = ?, container_id = ?, failure = ? WHERE seq = ? AND id = ? AND status = ? AND attempts = ?"""

TASK = f"SELECT {_TASK} FROM task WHERE task.id = ?"
PAYLOAD = "SELECT payload.body FROM payload JOIN task ON task.seq = payload.task_seq WHERE task.id = ?"
RESULT = """SELECT attempt.result FROM task
    JOIN attempt ON attempt.task_seq = task.seq AND attempt.number = task.attempts
    WHERE task.id = ? AND task.status = 'COMPLETE'"""
_DUE = f"""{_WAITING} AND task.deployment_id = ? AND task.due <= ?
    AND (task.expires_at IS NULL OR task.expires_at > ?) ORDER BY task.due, task.seq"""
WAITING = f"""SELECT {_TASK}, payload.body FROM task JOIN payload ON payload.task_seq = task.seq
    WHERE {_DUE} LIMIT ?"""
WAITING_AT = f"SELECT task.id FROM task WHERE {_DUE} LIMIT 1 OFFSET ?"
NEXT_DUE = f"SELECT MIN(task.due) FROM task WHERE {_WAITING} AND task.deployment_id = ?"
RUNNING_IN = f"SELECT {_TASK} FROM task WHERE {_RUNNING} AND task.container_id = ? ORDER BY task.seq"
EXPIRED = f"""SELECT {_TASK} FROM task WHERE {_WAITING} AND task.expires_at <= ?
    ORDER BY task.expires_at LIMIT ?"""
COUNT_WAITING = f"SELECT task.deployment_id, COUNT(*) FROM task WHERE {_WAITING} GROUP BY task.deployment_id"
COUNT_RUNNING = f"""SELECT task.deployment_id, COUNT(*) FROM task INDEXED BY task_running WHERE {_RUNNING}
    GROUP BY task.deployment_id"""

ENDED = """SELECT seq, id, created_at, ended_at IS NOT NULL AND ended_at < ? AND NOT EXISTS (
    SELECT 1 FROM delivery WHERE delivery.task_id = task.id AND delivery.status = 'PENDING')
    FROM task WHERE seq > ? ORDER BY seq LIMIT ?"""
FORGET_TASK = (
    "DELETE FROM delivery WHERE task_id = (SELECT id FROM task WHERE seq = ?)",
    "DELETE FROM output WHERE task_id = (SELECT id FROM task WHERE seq = ?)",
    "DELETE FROM payload WHERE task_seq = ?",
    "DELETE FROM attempt WHERE task_seq = ?",
    "DELETE FROM log WHERE task_seq = ?",
    "DELETE FROM task WHERE seq = ?",
)

# attempts

INSERT_ATTEMPT = """INSERT INTO attempt (task_seq, number, container_id, status, started_at, ended_at, failure,
    result) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
ATTEMPTS = """SELECT task.id, attempt.number, attempt.container_id, attempt.status, attempt.started_at,
    attempt.ended_at, attempt.failure FROM attempt JOIN task ON task.seq = attempt.task_seq WHERE task.id = ?1
    UNION ALL SELECT task.id, task.attempts, task.container_id, task.status, task.started_at, NULL, NULL
    FROM task WHERE task.id = ?1 AND task.status = 'RUNNING'
    ORDER BY 2"""

# outputs

_OUTPUT = "id, task_id, attempt, name, size, created_at, key"

INSERT_OUTPUT = f"""INSERT INTO output ({_OUTPUT}) SELECT ?, ?, ?, ?, ?, ?, ?
    WHERE EXISTS (SELECT 1 FROM task WHERE id = ? AND status = 'RUNNING' AND attempts = ?)"""
OUTPUTS = f"SELECT {_OUTPUT} FROM output WHERE task_id = ? ORDER BY seq"
OUTPUT = f"SELECT {_OUTPUT} FROM output WHERE id = ?"

# deliveries

_DELIVERY = "id, task_id, url, status, due, created_at, tries, last_status, last_error, delivered_at"

INSERT_DELIVERY = f"INSERT INTO delivery ({_DELIVERY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
UPDATE_DELIVERY = """UPDATE delivery SET task_id = ?, url = ?, status = ?, due = ?, created_at = ?, tries = ?,
    last_status = ?, last_error = ?, delivered_at = ? WHERE id = ?"""
DELIVERIES = f"SELECT {_DELIVERY} FROM delivery WHERE task_id = ? ORDER BY created_at, id"
DUE_DELIVERIES = f"SELECT {_DELIVERY} FROM delivery WHERE status = 'PENDING' AND due <= ? ORDER BY due, id LIMIT ?"

# deployments, images, sources

_DEPLOYMENT = """id, workspace_id, kind, name, version, config, source_id, image_id, digest, active, created_at,
    updated_at, deleted_at"""
_NAMED = "workspace_id = ? AND name <> '' AND deleted_at IS NULL"

INSERT_DEPLOYMENT = f"INSERT INTO deployment ({_DEPLOYMENT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
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
_OLD_CONTAINERS = "FROM container WHERE status = 'STOPPED' AND ended_at < ? ORDER BY created_at LIMIT ?"
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

# volumes

_VOLUME = "workspace_id, name, created_at"

INSERT_VOLUME = f"INSERT INTO volume ({_VOLUME}) VALUES (?, ?, ?)"
DELETE_VOLUME = "DELETE FROM volume WHERE workspace_id = ? AND name = ?"
VOLUME = f"SELECT {_VOLUME} FROM volume WHERE workspace_id = ? AND name = ?"
VOLUMES = f"SELECT {_VOLUME} FROM volume WHERE workspace_id = ? ORDER BY name"


def list_tasks(which: TaskFilter) -> tuple[str, tuple[str | int | float, ...]]:
    """The statement of a filter and its parameters: fixed fragments, every value bound."""
    names_in = "task.deployment_id IN (SELECT id FROM deployment WHERE workspace_id = ? AND name <> '' AND name IN"
    bounds: tuple[tuple[str, str | int | float | None], ...] = (
        ("task.created_at >= ?", which.created_from),
        ("task.created_at <= ?", which.created_to),
        ("task.seq < ?", which.before_seq),
    )
    sets: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("task.status IN", which.statuses),
        ("task.id IN", which.task_ids),
        ("task.deployment_id IN", which.deployment_ids),
        ("task.container_id IN", which.container_ids),
    )
    # The plus keeps the planner off an index: with one deployment its own has the rows in order, and named tasks are
    # few, whatever their order.
    named = bool(which.task_ids)
    where = ["+task.workspace_id = ?" if named or len(which.deployment_ids) == 1 else "task.workspace_id = ?"]
    bound: list[str | int | float] = [which.workspace_id]
    for fragment, value in bounds:
        if value is not None:
            where.append(fragment)
            bound.append(value)
    for fragment, members in sets:
        if members:
            where.append(f"{fragment} ({_marks(members)})")
            bound.extend(members)
    leading, bound_there = _by_index(which)
    where += leading
    bound += bound_there
    if which.names:
        where.append(f"{names_in} ({_marks(which.names)}))")
        bound.extend((which.workspace_id, *which.names))
    bound.append(which.limit)
    order = "+task.seq" if named else "task.seq"
    return f"SELECT {_TASK} FROM task WHERE {' AND '.join(where)} ORDER BY {order} DESC LIMIT ?", tuple(bound)


def _by_index(which: TaskFilter) -> tuple[list[str], list[str]]:
    """What leads to few rows by a partial index, where the order of the list would lead through all; its values."""
    statuses = frozenset(which.statuses)
    if not statuses or which.task_ids:
        return [], []
    if statuses <= words.FINAL - {TaskStatus.COMPLETE}:
        return [_UNHAPPY], []
    if statuses <= words.WAITING | {TaskStatus.RUNNING}:
        homes = which.deployment_ids
        there = f" AND task.deployment_id IN ({_marks(homes)})" if homes else ""
        parts = []
        if statuses & words.WAITING:
            parts.append(f"SELECT seq FROM task INDEXED BY task_waiting WHERE {_WAITING}{there}")
        if TaskStatus.RUNNING in statuses:
            parts.append(f"SELECT seq FROM task INDEXED BY task_running WHERE {_RUNNING}{there}")
        return [f"task.seq IN ({' UNION ALL '.join(parts)})"], [*homes] * len(parts)
    return [], []


def _marks(members: tuple[str, ...]) -> str:
    return ", ".join("?" * len(members))
