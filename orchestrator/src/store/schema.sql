-- Version 1. Times are milliseconds since 1970. States are the API's words.

CREATE TABLE jobs (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    type        TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    environment TEXT    NOT NULL,
    task        TEXT    NOT NULL,
    owner       TEXT    NOT NULL,
    description TEXT    NOT NULL,
    options     TEXT    NOT NULL,  -- JSON, sensitive parameters left out
    userdata    TEXT    NOT NULL,  -- JSON
    request     TEXT,              -- JSON sent to agents; NULL when it holds sensitive parameters
    files       TEXT    NOT NULL,  -- JSON: digest and path of each file
    time_limit  INTEGER NOT NULL,  -- seconds on each node
    node_count  INTEGER NOT NULL,
    node_states TEXT,              -- JSON: how many nodes ended in which state; NULL until the end
    created     INTEGER NOT NULL,
    changed     INTEGER NOT NULL,
    started     INTEGER,
    finished    INTEGER
);
CREATE INDEX jobs_state ON jobs (state);

CREATE TABLE job_states (
    job     INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    step    INTEGER NOT NULL,
    state   TEXT    NOT NULL,
    entered INTEGER NOT NULL,
    PRIMARY KEY (job, step)
) WITHOUT ROWID;

CREATE TABLE node_runs (
    job            INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    node           INTEGER NOT NULL,  -- position in the job
    certname       TEXT    NOT NULL,
    transaction_id TEXT    NOT NULL,
    state          TEXT    NOT NULL,
    accepted       INTEGER NOT NULL DEFAULT 0,  -- 1: the agent has it in its spool
    changed        INTEGER NOT NULL,
    started        INTEGER,
    finished       INTEGER,
    message        TEXT,
    result         TEXT,              -- JSON
    PRIMARY KEY (job, node)
) WITHOUT ROWID;
CREATE UNIQUE INDEX node_runs_transaction ON node_runs (transaction_id);
-- What followers of a job ask for all the time: how many nodes are in a state, and which came last.
CREATE INDEX node_runs_state ON node_runs (job, state, finished);

CREATE TABLE events (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    job     INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    type    TEXT    NOT NULL,
    time    INTEGER NOT NULL,
    node    TEXT,                     -- certname
    message TEXT    NOT NULL,
    detail  TEXT    NOT NULL          -- JSON
);
CREATE INDEX events_job ON events (job, id);

CREATE TABLE nodes (
    certname TEXT PRIMARY KEY,        -- every node that has ever been connected
    changed  INTEGER NOT NULL         -- when it last came or went
) WITHOUT ROWID;

CREATE TABLE tokens (
    hash    BLOB PRIMARY KEY,         -- SHA-256; the token itself is stored nowhere
    login   TEXT    NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    revoked INTEGER
) WITHOUT ROWID;
