-- Small rows, since a task's row is written two or three times in its life and every page of it goes through the log.
--
-- task.id            the 16 bytes of its UUID (an id that is none, which only old or foreign data have, as text)
-- task.deployment_seq, task.container_seq, attempt.container_seq
--                    `seq` of those tables in place of their ids. No container: NULL. One that was forgotten: NULL here,
--                    or a number that no container has. Numbers are never given twice.
-- task.payload       the arguments up to 512 bytes; larger ones stand in `payload`, and this is NULL then. So each task
--                    has its payload in exactly one of the two.
-- task.result        raw JSON of a COMPLETE task, else NULL
-- attempt            the attempts that ended while their task went on, and only those. The latest one stands in the row
--                    of its task: while that is RUNNING, and when the task has ended with it. Numbers 1 to
--                    task.attempts are all there, in one of the two places: in `attempt` the numbers below
--                    task.attempts; and task.attempts itself where the task waits, or ended while it waited. The view
--                    `ended_attempt` has all that have ended, wherever they stand.
-- output.task_seq, delivery.task_seq
--                    `seq` of their task. An id of a delivery is `msg_` and its task's.

ALTER TABLE deployment ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
UPDATE deployment SET seq = rowid;
CREATE UNIQUE INDEX deployment_seq ON deployment (seq);

CREATE TABLE slim_task (
    seq INTEGER PRIMARY KEY,
    id ANY NOT NULL UNIQUE,
    workspace_id INTEGER NOT NULL,
    deployment_seq INTEGER NOT NULL,
    status TEXT NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    due REAL NOT NULL,
    attempts INTEGER NOT NULL,
    started_at REAL,
    ended_at REAL,
    expires_at REAL,
    container_seq INTEGER,
    callback_url TEXT,
    failure TEXT,
    payload BLOB,
    result BLOB
) STRICT;

-- Deployments are never deleted, so each task has one.
INSERT INTO slim_task SELECT task.seq, CASE WHEN length(task.id) = 36 THEN COALESCE(unhex(replace(task.id, '-', '')), task.id)
    ELSE task.id END, task.workspace_id, deployment.seq, task.status, task.created_at, task.updated_at, task.due,
    task.attempts, task.started_at, task.ended_at, task.expires_at, container.seq, task.callback_url, task.failure,
    CASE WHEN length(payload.body) <= 512 THEN payload.body END,
    CASE WHEN task.status = 'COMPLETE' THEN attempt.result END
    FROM task LEFT JOIN deployment ON deployment.id = task.deployment_id
    LEFT JOIN container ON container.id = task.container_id
    LEFT JOIN payload ON payload.task_seq = task.seq
    LEFT JOIN attempt ON attempt.task_seq = task.seq AND attempt.number = task.attempts
    ORDER BY task.seq;
DELETE FROM payload WHERE length(body) <= 512;

CREATE TABLE slim_attempt (
    task_seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    container_seq INTEGER,
    status TEXT NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL NOT NULL,
    failure TEXT,
    PRIMARY KEY (task_seq, number)
) STRICT, WITHOUT ROWID;
INSERT INTO slim_attempt SELECT attempt.task_seq, attempt.number, container.seq, attempt.status, attempt.started_at,
    attempt.ended_at, attempt.failure
    FROM attempt JOIN task ON task.seq = attempt.task_seq LEFT JOIN container ON container.id = attempt.container_id
    WHERE NOT (attempt.number = task.attempts AND attempt.status = task.status
        AND attempt.container_id = task.container_id AND attempt.started_at IS task.started_at
        AND attempt.ended_at IS task.ended_at AND attempt.failure IS task.failure);

CREATE TABLE slim_output (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    task_seq INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    created_at REAL NOT NULL,
    key TEXT NOT NULL
) STRICT;
INSERT INTO slim_output SELECT output.seq, output.id, task.seq, output.attempt, output.name, output.size,
    output.created_at, output.key FROM output JOIN task ON task.id = output.task_id;

CREATE TABLE slim_delivery (
    id TEXT PRIMARY KEY,
    task_seq INTEGER NOT NULL,
    url TEXT NOT NULL,
    status TEXT NOT NULL,
    due REAL NOT NULL,
    created_at REAL NOT NULL,
    tries INTEGER NOT NULL,
    last_status INTEGER,
    last_error TEXT NOT NULL,
    delivered_at REAL
) STRICT;
INSERT INTO slim_delivery SELECT delivery.id, task.seq, delivery.url, delivery.status, delivery.due,
    delivery.created_at, delivery.tries, delivery.last_status, delivery.last_error, delivery.delivered_at
    FROM delivery JOIN task ON task.id = delivery.task_id;

DROP TABLE task;
DROP TABLE attempt;
DROP TABLE output;
DROP TABLE delivery;
ALTER TABLE slim_task RENAME TO task;
ALTER TABLE slim_attempt RENAME TO attempt;
ALTER TABLE slim_output RENAME TO output;
ALTER TABLE slim_delivery RENAME TO delivery;

-- All attempts that have ended, of both places.
CREATE VIEW ended_attempt AS
    SELECT task_seq, number, container_seq, status, started_at, ended_at, failure FROM attempt
    UNION ALL SELECT seq, attempts, container_seq, status, started_at, ended_at, failure FROM task
    WHERE ended_at IS NOT NULL AND attempts > 0 AND status NOT IN ('PENDING', 'RETRY')
    AND NOT EXISTS (SELECT 1 FROM attempt WHERE attempt.task_seq = task.seq AND attempt.number = task.attempts);

-- In an index the row's `seq` follows the columns named. Each waiting status has an index of its own, so that a list
-- of the one is not hidden by many of the other. Lists of everything follow `seq` itself: there is one workspace.
CREATE INDEX task_pending ON task (deployment_seq, due) WHERE status = 'PENDING';
CREATE INDEX task_retrying ON task (deployment_seq, due) WHERE status = 'RETRY';
CREATE INDEX task_running ON task (container_seq) WHERE status = 'RUNNING';
CREATE INDEX task_expiring ON task (expires_at) WHERE status IN ('PENDING', 'RETRY') AND expires_at IS NOT NULL;
CREATE INDEX task_of_deployment ON task (deployment_seq);
CREATE INDEX task_unhappy ON task (status) WHERE status IN ('FAILED', 'CANCELLED', 'TIMEOUT', 'EXPIRED');
CREATE INDEX output_of_task ON output (task_seq);
CREATE INDEX delivery_due ON delivery (due, id) WHERE status = 'PENDING';
CREATE INDEX delivery_of_task ON delivery (task_seq, created_at);
