-- What tasks and containers print, in chunks of lines (msgpack). Containers get a number, which chunks name them by.

ALTER TABLE container ADD COLUMN for_task TEXT NOT NULL DEFAULT '';
ALTER TABLE container ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
UPDATE container SET seq = rowid;
CREATE UNIQUE INDEX container_seq ON container (seq);
CREATE INDEX container_of_deployment ON container (deployment_id);
CREATE INDEX container_for_task ON container (for_task) WHERE for_task <> '';

CREATE TABLE log (
    seq INTEGER PRIMARY KEY,
    container_seq INTEGER NOT NULL,
    task_seq INTEGER,
    attempt INTEGER NOT NULL,
    starting INTEGER NOT NULL,
    lines INTEGER NOT NULL,
    size INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX log_of_task ON log (task_seq, seq) WHERE task_seq IS NOT NULL;
CREATE INDEX log_of_container ON log (container_seq, seq);
CREATE INDEX log_own ON log (container_seq, seq) WHERE task_seq IS NULL;
