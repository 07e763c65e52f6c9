"""Databases as earlier programs have left them: their schema, and rows of everything that a schema had room for."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import apsw

from treadle.model.log import Extent, Line, Stream, pack
from treadle.store.rows import SMALL
from treadle.store.schema import known_scripts

NEWEST = len(known_scripts())
DEPLOYMENT = "019aab00-0000-7000-8000-00000000000d"
CONTAINER = f"taskqueue-{DEPLOYMENT}-0123abcd"
STOPPED = f"taskqueue-{DEPLOYMENT}-4567cdef"
SOURCE, IMAGE, URL = "5" * 64, "image-1", "https://example.com/hook"
WAITS, RUNS, DONE, FAILED, CANCELLED, RETRIES, OVERDUE, EXPIRED = (
    f"019aab00-0000-7000-8000-00000000000{n}" for n in range(1, 9)
)
OUTPUT = "019aab00-0000-7000-8000-0000000000aa"
FAILURE = '{"kind":"exception","reason":"ValueError: no","type":"ValueError"}'
RESULT = "7"
OVER = '{"kind":"timeout","reason":"took longer than timeout=1"}'
LARGE = b'{"args":["%s"]}' % (b"x" * 1000)  # from schema 9 on apart from its task's row
LOG = pack([Line(2.5, Stream.STDOUT, "printed")])
EXTENT = Extent(1, len(LOG))

WORLD = f"""
INSERT INTO workspace VALUES (1, '019aab00-0000-7000-8000-0000000000ff', 'default', 'sk_x', 'url', 1.0);
INSERT INTO token (id, workspace_id, hash, role, active, created_at)
    VALUES ('019aab00-0000-7000-8000-0000000000ee', 1, 'hash', 'admin', 1, 1.0);
INSERT INTO image VALUES ('digest', '{IMAGE}', '{{}}', '3.11.7', '', 1.0);
INSERT INTO source VALUES (1, '{SOURCE}', 4, 1.0);
INSERT INTO deployment (id, workspace_id, kind, name, version, config, source_id, image_id, digest, active, created_at, updated_at)
    VALUES ('{DEPLOYMENT}', 1, 'deployment', 'q', 1, '{{"handler":"app:handler","retries":1}}', '{SOURCE}', '{IMAGE}', 'd', 1, 1.0, 1.0);
"""
OUTPUTS = ((1, OUTPUT, DONE, 2, "a.txt", 3, 4.0, f"outputs/{DONE}/{OUTPUT}"),)
DELIVERIES = (
    (f"msg_{DONE}", DONE, URL, "DELIVERED", 5.0, 5.0, 1, 200, "", 5.5),
    (f"msg_{FAILED}", FAILED, URL, "PENDING", 5.0, 5.0, 2, 500, "no", None),
)
CONTAINERS = (
    (CONTAINER, DEPLOYMENT, "RUNNING", "hash-1", None, ""),
    (STOPPED, DEPLOYMENT, "STOPPED", "hash-2", 3.0, "idle"),
)
INSERT_CONTAINER = """INSERT INTO container (id, workspace_id, deployment_id, agent_id, status, token_hash, created_at,
    lease_until, started_at, ended_at, reason, limits) VALUES (?, 1, ?, 'agent', ?, ?, 1.0, 9.0, 1.5, ?, ?, 'cgroup2')"""
NUMBER_CONTAINERS = "UPDATE container SET seq = rowid WHERE seq = 0"
TASK = "INSERT INTO task VALUES (?, ?, 1, ?, ?, 1.0, 4.0, 1.0, ?, ?, ?, NULL, ?, ?, ?)"
TASKS = (
    (1, WAITS, DEPLOYMENT, "PENDING", 0, None, None, "", None, None),
    (2, RUNS, DEPLOYMENT, "RUNNING", 1, 2.0, None, CONTAINER, URL, None),
    (3, DONE, DEPLOYMENT, "COMPLETE", 2, 4.0, 5.0, STOPPED, URL, None),
    (4, FAILED, DEPLOYMENT, "FAILED", 2, 4.0, 5.0, STOPPED, URL, FAILURE),
    (5, CANCELLED, DEPLOYMENT, "CANCELLED", 0, None, 5.0, "", None, '{"kind":"cancelled","reason":"Cancelled."}'),
    (6, RETRIES, DEPLOYMENT, "RETRY", 1, 2.0, None, STOPPED, URL, FAILURE),
    (7, OVERDUE, DEPLOYMENT, "TIMEOUT", 2, 4.0, 5.0, STOPPED, None, OVER),
    (8, EXPIRED, DEPLOYMENT, "EXPIRED", 0, None, 5.0, "", None, '{"kind":"expired","reason":"waited longer than ttl=4"}'),
)
ENDED = (
    (3, 1, STOPPED, "FAILED", 2.0, 3.0, FAILURE, None),
    (3, 2, STOPPED, "COMPLETE", 4.0, 5.0, None, RESULT.encode()),
    (4, 1, STOPPED, "FAILED", 2.0, 3.0, FAILURE, None),
    (4, 2, STOPPED, "FAILED", 4.0, 5.0, FAILURE, None),
    (6, 1, STOPPED, "FAILED", 2.0, 3.0, FAILURE, None),
    (7, 1, STOPPED, "FAILED", 2.0, 3.0, FAILURE, None),
    (7, 2, STOPPED, "TIMEOUT", 4.0, 5.0, OVER, None),
)


# From schema 9 on: ids as bytes, numbers in place of ids, small payloads and results in the task's row, and of the
# attempts those alone that a later one or a wait has followed.
SLIM_TASK = f"""INSERT INTO task (seq, id, workspace_id, deployment_seq, status, created_at, updated_at, due, attempts, started_at,
    ended_at, container_seq, callback_url, failure, payload, result) VALUES (?, ?, 1, (SELECT seq FROM deployment WHERE id = ?),
    ?, 1.0, 4.0, 1.0, ?, ?, ?, (SELECT seq FROM container WHERE id = ?), ?, ?, ?, IIF(?1 = 3, CAST('{RESULT}' AS BLOB), NULL))"""
SLIM_ATTEMPT = """INSERT INTO attempt (task_seq, number, container_seq, status, started_at, ended_at, failure)
    VALUES (?, ?, (SELECT seq FROM container WHERE id = ?), ?, ?, ?, ?)"""
SLIM_OUTPUT = "INSERT INTO output (seq, id, task_seq, attempt, name, size, created_at, key) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
SLIM_DELIVERY = """INSERT INTO delivery (id, task_seq, url, status, due, created_at, tries, last_status, last_error, delivered_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


def payload(seq: int) -> bytes:
    return LARGE if seq == 2 else b'{"args":[%d]}' % seq


def with_rows(version: int, path: Path) -> None:
    """A database of that schema, closed, with a deployment, containers and a task of each kind, in that schema's words."""
    connection = of_schema(version, path)
    connection.execute(WORLD)
    if version >= 8:
        connection.execute("UPDATE token SET name = 'for CI'")
    for row in CONTAINERS:
        connection.execute(INSERT_CONTAINER, row)
        if version >= 4:
            connection.execute(NUMBER_CONTAINERS)
    if version >= 9:
        connection.execute("UPDATE deployment SET seq = rowid")
    (_tasks if version < 9 else _slim_tasks)(connection, version)
    if version >= 3:
        connection.execute("INSERT INTO secret VALUES (1, 'KEY', x'0102', 1.0, 2.0)")
    if version >= 4:
        log = (1, 2, 3, 2, 0, EXTENT.lines, EXTENT.size, LOG)
        connection.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?)", log)
    if version >= 6:
        connection.execute("INSERT INTO volume VALUES (1, 'models', 1.0)")
    connection.close()


def _tasks(connection: apsw.Connection, version: int) -> None:
    connection.executemany(TASK, TASKS)
    connection.executemany("INSERT INTO payload VALUES (?, ?)", [(seq, payload(seq)) for seq, *_ in TASKS])
    connection.executemany("INSERT INTO output VALUES (?, ?, ?, ?, ?, ?, ?, ?)", OUTPUTS)
    connection.executemany("INSERT INTO delivery VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", DELIVERIES)
    if version == 1:
        connection.executemany("INSERT INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?)", [row[:7] for row in ENDED])
        connection.execute("INSERT INTO attempt VALUES (2, 1, ?, 'RUNNING', 2.0, NULL, NULL)", (CONTAINER,))
        connection.execute("INSERT INTO result VALUES (3, ?)", (RESULT.encode(),))
    else:
        connection.executemany("INSERT INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?, ?)", ENDED)


def _slim_tasks(connection: apsw.Connection, _: int) -> None:
    seqs = {task_id: seq for seq, task_id, *_ in TASKS}
    for seq, task_id, *rest in TASKS:
        small = None if len(payload(seq)) > SMALL else payload(seq)
        connection.execute(SLIM_TASK, (seq, UUID(task_id).bytes, *rest, small))
        if small is None:
            connection.execute("INSERT INTO payload VALUES (?, ?)", (seq, payload(seq)))
    ends = {(seq, attempts) for seq, _, _, status, attempts, *_ in TASKS if status != "RETRY"}
    connection.executemany(SLIM_ATTEMPT, [row[:7] for row in ENDED if row[:2] not in ends])
    connection.executemany(SLIM_OUTPUT, [(number, name, seqs[task], *rest) for number, name, task, *rest in OUTPUTS])
    connection.executemany(SLIM_DELIVERY, [(name, seqs[task], *rest) for name, task, *rest in DELIVERIES])


def of_schema(version: int, path: Path) -> apsw.Connection:
    """A database brought to that schema, open."""
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "off")
    bring(connection, version)
    return connection


def bring(connection: apsw.Connection, version: int) -> None:
    """Run the migrations up to that schema which it has not seen."""
    for number, script in enumerate(known_scripts()[:version], 1):
        if number > connection.pragma("user_version"):
            connection.execute(script)
            connection.pragma("user_version", number)
