"""What is true of the rows after each commit, whatever happened: the simulation and `treadle verify` hold to it.

Each is a question for what breaks it: a subject and what was found. The promises behind them: docs/reliability.md.
"""

# ruff: noqa: S608  (what is put together here are constants of this file)

from __future__ import annotations

from collections.abc import Iterator

import apsw
import msgspec

from treadle.model.container import ContainerStatus
from treadle.model.task import FINAL, WAITING, DeliveryStatus, FailureKind, TaskStatus
from treadle.store.ids import id_text


class Invariant(msgspec.Struct, frozen=True):
    """`question` finds subjects that break the promise, with what is wrong about each."""

    name: str
    question: str


class Breach(msgspec.Struct, frozen=True):
    """One subject that breaks an invariant."""

    name: str
    subject: str
    found: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.found}"


def breaches(connection: apsw.Connection) -> Iterator[Breach]:
    """All that breaks an invariant, one invariant after the other."""
    for invariant in INVARIANTS:
        for subject, found in connection.execute(invariant.question):
            yield Breach(invariant.name, subject, found)


def _listed(words: object) -> str:
    return ", ".join(f"'{word}'" for word in sorted(words))  # type: ignore[call-overload]


_FINAL, _WAITING = _listed(FINAL), _listed(WAITING)
_TASK = f"'task ' || {id_text('task.id')}"
_KIND = "attempt.failure ->> 'kind'"


def _names(subject: str, named: str, there: str, where: str = "TRUE") -> str:
    """Rows that name a row which is not there; both columns with their tables."""
    (table, _), (target, _) = named.split("."), there.split(".")
    return f"""SELECT {subject}, 'it names a {target} that is not there: ' || {named} FROM {table}
        WHERE {where} AND NOT EXISTS (SELECT 1 FROM {target} WHERE {there} = {named})"""


def _other_word(table: str, subject: str, words: object) -> str:
    return f"SELECT {subject}, 'its status is ' || quote(status) FROM {table} WHERE status NOT IN ({_listed(words)})"


RELATIONS = [
    Invariant("relations", question)
    for question in (
        _names(_TASK, "task.deployment_seq", "deployment.seq"),
        _names(_TASK, "task.workspace_id", "workspace.id"),
        _names("'payload ' || payload.task_seq", "payload.task_seq", "task.seq"),
        _names("'attempt ' || attempt.number", "attempt.task_seq", "task.seq"),
        _names("'output ' || output.id", "output.task_seq", "task.seq"),
        _names("'webhook ' || delivery.id", "delivery.task_seq", "task.seq"),
        _names("'log row ' || log.seq", "log.task_seq", "task.seq", "log.task_seq IS NOT NULL"),
        _names("'log row ' || log.seq", "log.container_seq", "container.seq", "log.task_seq IS NULL"),
        _names("'container ' || container.id", "container.deployment_id", "deployment.id"),
        _names("'deployment ' || deployment.id", "deployment.workspace_id", "workspace.id"),
        _names("'deployment ' || deployment.id", "deployment.image_id", "image.id"),
        """SELECT 'deployment ' || id, 'its source was never uploaded: ' || source_id FROM deployment WHERE NOT EXISTS
            (SELECT 1 FROM source WHERE source.id = source_id AND source.workspace_id = deployment.workspace_id)""",
        _names("'token ' || token.id", "token.workspace_id", "workspace.id"),
        _names("'secret ' || secret.name", "secret.workspace_id", "workspace.id"),
        _names("'volume ' || volume.name", "volume.workspace_id", "workspace.id"),
    )
]

STATES = [
    Invariant("states", _other_word("task", _TASK, TaskStatus)),
    Invariant("states", _other_word("container", "'container ' || id", ContainerStatus)),
    Invariant("states", _other_word("delivery", "'webhook ' || id", DeliveryStatus)),
    Invariant(
        "states",
        f"""SELECT {_TASK}, 'it is ' || status || IIF(ended_at IS NULL, ' and has not ended', ' and has ended')
        FROM task WHERE (ended_at IS NOT NULL) <> (status IN ({_FINAL}))""",
    ),
    Invariant(
        "logs are counted",
        """SELECT 'the logs', 'they take ' || found || ' bytes, and ' || bytes || ' are counted' FROM log_bytes
        JOIN (SELECT COALESCE(SUM(length(body)), 0) AS found FROM log) WHERE found <> bytes""",
    ),
    Invariant(
        "payloads",
        f"""SELECT {_TASK}, IIF(payload IS NULL, 'its payload is not there', 'it has two payloads') FROM task
        WHERE (payload IS NULL) <> (seq IN (SELECT task_seq FROM payload))""",
    ),
]

ATTEMPTS = [
    Invariant(
        "failures",
        f"""SELECT {_TASK}, 'it is ' || status || IIF(failure IS NULL, ' without a failure', ' with a failure')
        FROM task WHERE IIF(status = 'COMPLETE', failure IS NOT NULL,
            status NOT IN ('PENDING', 'RUNNING') AND failure IS NULL)""",
    ),
    Invariant(
        "attempts are counted",
        f"""SELECT {_TASK}, 'it is ' || task.status || ' after ' || task.attempts || ' attempts; '
            || COUNT(attempt.number) || ' have ended, the last as number ' || COALESCE(MAX(attempt.number), 0)
        FROM task LEFT JOIN ended_attempt AS attempt ON attempt.task_seq = task.seq GROUP BY task.seq
        HAVING COUNT(attempt.number) <> task.attempts - (task.status = 'RUNNING')
            OR COALESCE(MAX(attempt.number), 0) <> COUNT(attempt.number) OR MIN(attempt.number) < 1""",
    ),
    Invariant(
        "the last attempt decides",
        f"""SELECT {_TASK},
            'it is ' || task.status || ', its last attempt ' || COALESCE(attempt.status, 'is not there')
        FROM task LEFT JOIN ended_attempt AS attempt
            ON attempt.task_seq = task.seq AND attempt.number = task.attempts
        WHERE CASE WHEN task.status IN ('COMPLETE', 'FAILED', 'TIMEOUT') THEN attempt.status IS NOT task.status
            WHEN task.status = 'CANCELLED' THEN attempt.status NOT IN ('CANCELLED', 'FAILED')
            WHEN task.status = 'RUNNING' THEN attempt.status IS NOT NULL
            WHEN task.status = 'RETRY' THEN attempt.status IS NOT 'FAILED'
            ELSE attempt.status <> 'FAILED' END""",
    ),
    Invariant(
        "only the last attempt is a success",
        f"""SELECT {_TASK}, 'its attempt ' || attempt.number || ' is ' || attempt.status || ', and it has '
            || task.attempts FROM attempt JOIN task ON task.seq = attempt.task_seq
        WHERE attempt.number < task.attempts AND attempt.status <> 'FAILED'""",
    ),
    Invariant(
        "results",
        f"""SELECT {_TASK}, 'it is ' || status || IIF(result IS NULL, ' without a result', ' with a result')
        FROM task WHERE (result IS NOT NULL) <> (status = 'COMPLETE')""",
    ),
    Invariant(  # what is served may have had another definition when its attempts were made
        "retries are kept to",
        f"""SELECT {_TASK}, task.attempts || ' attempts with retries=' || (deployment.config ->> 'retries')
        FROM task JOIN deployment ON deployment.seq = task.deployment_seq
        WHERE deployment.kind <> 'serve' AND task.attempts > 1 AND task.attempts > 1
            + (deployment.config ->> 'retries') + (deployment.config ->> 'retries' > 0) * (SELECT COUNT(*)
                FROM ended_attempt AS attempt
                WHERE attempt.task_seq = task.seq AND {_KIND} = '{FailureKind.INTERRUPTED}')""",
    ),
    Invariant(
        "a stop is not charged",
        f"""SELECT {_TASK}, 'it FAILED by an interrupted attempt with retries=' || (deployment.config ->> 'retries')
        FROM task JOIN deployment ON deployment.seq = task.deployment_seq
        JOIN ended_attempt AS attempt ON attempt.task_seq = task.seq AND attempt.number = task.attempts
        WHERE deployment.kind <> 'serve' AND task.status = 'FAILED' AND {_KIND} = '{FailureKind.INTERRUPTED}'
            AND deployment.config ->> 'retries' > 0""",
    ),
    Invariant(
        "outputs",
        """SELECT 'output ' || output.id, 'it is of attempt ' || output.attempt || ' of ' || task.attempts
        FROM output JOIN task ON task.seq = output.task_seq WHERE output.attempt NOT BETWEEN 1 AND task.attempts""",
    ),
]

WEBHOOKS = [
    Invariant(
        "one webhook for a final state",
        f"""SELECT {_TASK}, 'it is ' || task.status || IIF(task.callback_url IS NULL, ' without', ' with')
            || ' a callback_url and has ' || COUNT(delivery.id) || ' webhooks'
        FROM task LEFT JOIN delivery ON delivery.task_seq = task.seq GROUP BY task.seq
        HAVING COUNT(delivery.id) <> (task.status IN ({_FINAL}) AND task.callback_url IS NOT NULL)""",
    ),
    Invariant(
        "webhooks",
        f"""SELECT 'webhook ' || id, 'it is ' || status || IIF(delivered_at IS NULL, ' and was not', ' and was')
            || ' delivered'
        FROM delivery WHERE (delivered_at IS NOT NULL) <> (status = '{DeliveryStatus.DELIVERED}')""",
    ),
]

CONTAINERS = [
    Invariant(
        "what runs has a place",
        f"""SELECT {_TASK}, 'it is RUNNING in ' || COALESCE('container ' || container.id || ', which is '
            || container.status || ' and of deployment ' || container.deployment_id, 'no container')
        FROM task LEFT JOIN container ON container.seq = task.container_seq WHERE task.status = 'RUNNING'
            AND (container.id IS NULL OR container.status = 'STOPPED' OR container.deployment_id <>
                (SELECT deployment.id FROM deployment WHERE deployment.seq = task.deployment_seq))""",
    ),
    Invariant(
        "containers",
        """SELECT 'container ' || id,
            'it is ' || status || IIF(ended_at IS NULL, ' and has not ended', ' and has ended')
        FROM container WHERE (ended_at IS NOT NULL) <> (status = 'STOPPED')""",
    ),
    Invariant(
        "a device has one user",
        """SELECT 'device ' || device.value, COUNT(*) || ' containers have it'
        FROM container, json_each(container.gpus) AS device WHERE container.status <> 'STOPPED'
        GROUP BY container.agent_id, device.value HAVING COUNT(*) > 1""",
    ),
]

INVARIANTS = RELATIONS + STATES + ATTEMPTS + WEBHOOKS + CONTAINERS
