-- A row that is written is held against the condition of each index. SQLite makes a table in memory for a list of more
-- than two words, for each row anew: 2.4 of the 5 microseconds that an insert or update of a task took.

DROP INDEX task_unhappy;
CREATE INDEX task_unhappy ON task (status)
    WHERE status = 'FAILED' OR status = 'CANCELLED' OR status = 'TIMEOUT' OR status = 'EXPIRED';
