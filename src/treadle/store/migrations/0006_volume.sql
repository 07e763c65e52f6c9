-- Folders that containers share. What is in them is on the disk, below `volumes/` in the data folder.

CREATE TABLE volume (
    workspace_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (workspace_id, name)
) STRICT, WITHOUT ROWID;
