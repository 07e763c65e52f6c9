-- A running attempt stands in its task's row and nowhere else; its own row is written once, when it has ended,
-- with its result. That is one statement and one page of the file less at each claim, and one less at each end.

CREATE TABLE ended (
    task_seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    container_id TEXT NOT NULL,
    status TEXT NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL NOT NULL,
    failure TEXT,
    result BLOB,
    PRIMARY KEY (task_seq, number)
) STRICT, WITHOUT ROWID;

INSERT INTO ended SELECT attempt.task_seq, attempt.number, attempt.container_id, attempt.status, attempt.started_at,
    COALESCE(attempt.ended_at, attempt.started_at), attempt.failure,
    CASE WHEN attempt.status = 'COMPLETE' THEN result.body END
    FROM attempt LEFT JOIN result ON result.task_seq = attempt.task_seq WHERE attempt.status <> 'RUNNING';

DROP TABLE attempt;
DROP TABLE result;
ALTER TABLE ended RENAME TO attempt;

DROP INDEX task_running;
CREATE INDEX task_running ON task (container_id) WHERE status = 'RUNNING';

-- What went wrong is looked for among many that went well.
CREATE INDEX task_unhappy ON task (workspace_id, seq) WHERE status IN ('FAILED', 'CANCELLED', 'TIMEOUT', 'EXPIRED');
