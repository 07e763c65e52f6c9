-- The isolation level of a container, as its runner has told it.
ALTER TABLE container ADD COLUMN isolation INTEGER NOT NULL DEFAULT 0;
