"""Databases as earlier programs have left them: their schema, and rows of everything that a schema had room for."""

from __future__ import annotations

from pathlib import Path

import apsw

from treadle.model.log import Extent, Line, Stream, pack
from treadle.store.schema import known_scripts

NEWEST = len(known_scripts())
LAST_WRITTEN = 7  # rows are written in the words of this schema or an earlier one; later ones are reached by migrating
DEPLOYMENT = "019aab00-0000-7000-8000-00000000000d"
CONTAINER = f"taskqueue-{DEPLOYMENT}-0123abcd"
STOPPED = f"taskqueue-{DEPLOYMENT}-4567cdef"
SOURCE, IMAGE, URL = "5" * 64, "image-1", "https://example.com/hook"
WAITS, RUNS, DONE, FAILED, CANCELLED = (f"019aab00-0000-7000-8000-00000000000{n}" for n in range(1, 6))
OUTPUT = "019aab00-0000-7000-8000-0000000000aa"
FAILURE = '{"kind":"exception","reason":"ValueError: no","type":"ValueError"}'
LOG = pack([Line(2.5, Stream.STDOUT, "printed")])
EXTENT = Extent(1, len(LOG))

WORLD = f"""
INSERT INTO workspace VALUES (1, '019aab00-0000-7000-8000-0000000000ff', 'default', 'sk_x', 'url', 1.0);
INSERT INTO token VALUES ('019aab00-0000-7000-8000-0000000000ee', 1, 'hash', 'admin', 1, 1.0);
INSERT INTO image VALUES ('digest', '{IMAGE}', '{{}}', '3.11.7', '', 1.0);
INSERT INTO source VALUES (1, '{SOURCE}', 4, 1.0);
INSERT INTO deployment (id, workspace_id, kind, name, version, config, source_id, image_id, digest, active, created_at, updated_at)
    VALUES ('{DEPLOYMENT}', 1, 'deployment', 'q', 1, '{{"handler":"app:handler","retries":1}}', '{SOURCE}', '{IMAGE}', 'd', 1, 1.0, 1.0);
INSERT INTO output VALUES (1, '{OUTPUT}', '{DONE}', 2, 'a.txt', 3, 4.0, 'outputs/{DONE}/{OUTPUT}');
INSERT INTO delivery VALUES ('msg_{DONE}', '{DONE}', '{URL}', 'DELIVERED', 5.0, 5.0, 1, 200, '', 5.5),
    ('msg_{FAILED}', '{FAILED}', '{URL}', 'PENDING', 5.0, 5.0, 2, 500, 'no', NULL);
"""
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
)
ENDED = (
    (3, 1, STOPPED, "FAILED", 2.0, 3.0, FAILURE, None),
    (3, 2, STOPPED, "COMPLETE", 4.0, 5.0, None, b"7"),
    (4, 1, STOPPED, "FAILED", 2.0, 3.0, FAILURE, None),
    (4, 2, STOPPED, "FAILED", 4.0, 5.0, FAILURE, None),
)


def with_rows(version: int, path: Path) -> None:
    """A database of that schema, closed, with a deployment, containers and a task of each kind."""
    began = min(version, LAST_WRITTEN)
    connection = of_schema(began, path)
    connection.execute(WORLD)
    for row in CONTAINERS:
        connection.execute(INSERT_CONTAINER, row)
        if began >= 4:
            connection.execute(NUMBER_CONTAINERS)
    connection.executemany(TASK, TASKS)
    connection.executemany("INSERT INTO payload VALUES (?, ?)", [(seq, b'{"args":[%d]}' % seq) for seq, *_ in TASKS])
    if began == 1:
        connection.executemany("INSERT INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?)", [row[:7] for row in ENDED])
        connection.execute("INSERT INTO attempt VALUES (2, 1, ?, 'RUNNING', 2.0, NULL, NULL)", (CONTAINER,))
        connection.execute("INSERT INTO result VALUES (3, ?)", (b"7",))
    else:
        connection.executemany("INSERT INTO attempt VALUES (?, ?, ?, ?, ?, ?, ?, ?)", ENDED)
    if began >= 3:
        connection.execute("INSERT INTO secret VALUES (1, 'KEY', x'0102', 1.0, 2.0)")
    if began >= 4:
        log = (1, 2, 3, 2, 0, EXTENT.lines, EXTENT.size, LOG)
        connection.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?)", log)
    if began >= 6:
        connection.execute("INSERT INTO volume VALUES (1, 'models', 1.0)")
    connection.close()
    if version > began:
        of_schema(version, path).close()


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
