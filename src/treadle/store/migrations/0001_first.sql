-- The first schema. Times are Unix seconds; payloads, results and configurations are JSON.

CREATE TABLE workspace (
    id INTEGER PRIMARY KEY,
    external_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    signing_key TEXT NOT NULL,
    url_key TEXT NOT NULL,
    created_at REAL NOT NULL
) STRICT;

CREATE TABLE token (
    id TEXT PRIMARY KEY,
    workspace_id INTEGER NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    active INTEGER NOT NULL,
    created_at REAL NOT NULL
) STRICT;

CREATE TABLE image (
    spec_digest TEXT PRIMARY KEY,
    id TEXT NOT NULL,
    spec TEXT NOT NULL,
    python TEXT NOT NULL,
    lock TEXT NOT NULL,
    created_at REAL NOT NULL
) STRICT;
CREATE INDEX image_id ON image (id);

CREATE TABLE source (
    workspace_id INTEGER NOT NULL,
    id TEXT NOT NULL,
    size INTEGER NOT NULL,
    created_at REAL NOT NULL,
    PRIMARY KEY (workspace_id, id)
) STRICT;

CREATE TABLE deployment (
    id TEXT PRIMARY KEY,
    workspace_id INTEGER NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    config TEXT NOT NULL,
    source_id TEXT NOT NULL,
    image_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    active INTEGER NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
) STRICT;
CREATE UNIQUE INDEX deployment_version ON deployment (workspace_id, name, version) WHERE name <> '';
CREATE UNIQUE INDEX deployment_draft ON deployment (workspace_id, digest) WHERE name = '';

CREATE TABLE container (
    id TEXT PRIMARY KEY,
    workspace_id INTEGER NOT NULL,
    deployment_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    status TEXT NOT NULL,
    token_hash TEXT NOT NULL UNIQUE,
    created_at REAL NOT NULL,
    lease_until REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    reason TEXT NOT NULL,
    limits TEXT NOT NULL
) STRICT;
CREATE INDEX container_status ON container (status, created_at);

-- A status change rewrites the whole row, so everything large is a row of its own.
CREATE TABLE task (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    workspace_id INTEGER NOT NULL,
    deployment_id TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    due REAL NOT NULL,
    attempts INTEGER NOT NULL,
    started_at REAL,
    ended_at REAL,
    expires_at REAL,
    container_id TEXT NOT NULL,
    callback_url TEXT,
    failure TEXT
) STRICT;
CREATE INDEX task_waiting ON task (deployment_id, due, seq) WHERE status IN ('PENDING', 'RETRY');
CREATE INDEX task_expiring ON task (expires_at) WHERE status IN ('PENDING', 'RETRY') AND expires_at IS NOT NULL;
CREATE INDEX task_running ON task (container_id, deployment_id) WHERE status = 'RUNNING';
CREATE INDEX task_of_deployment ON task (deployment_id, seq);
CREATE INDEX task_of_workspace ON task (workspace_id, seq);

CREATE TABLE payload (
    task_seq INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE result (
    task_seq INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE attempt (
    task_seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    container_id TEXT NOT NULL,
    status TEXT NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL,
    failure TEXT,
    PRIMARY KEY (task_seq, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE output (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    task_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    created_at REAL NOT NULL,
    key TEXT NOT NULL
) STRICT;
CREATE INDEX output_of_task ON output (task_id, seq);

CREATE TABLE delivery (
    id TEXT PRIMARY KEY,
    task_id TEXT NOT NULL,
    url TEXT NOT NULL,
    status TEXT NOT NULL,
    due REAL NOT NULL,
    created_at REAL NOT NULL,
    tries INTEGER NOT NULL,
    last_status INTEGER,
    last_error TEXT NOT NULL,
    delivered_at REAL
) STRICT;
CREATE INDEX delivery_due ON delivery (due, id) WHERE status = 'PENDING';
CREATE INDEX delivery_of_task ON delivery (task_id, created_at);
