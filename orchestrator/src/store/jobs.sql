-- Version 3. Puppet runs, plan jobs, what tasks write, and nodes that were given up.

CREATE TABLE plan_jobs (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    state       TEXT    NOT NULL,
    owner       TEXT    NOT NULL,
    plan_name   TEXT    NOT NULL,
    description TEXT    NOT NULL,
    environment TEXT,
    parameters  TEXT    NOT NULL,  -- JSON: names; their values may be secrets and are not stored
    result      TEXT,              -- JSON
    created     INTEGER NOT NULL,
    finished    INTEGER
);

CREATE TABLE plan_events (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    plan    INTEGER NOT NULL REFERENCES plan_jobs (id) ON DELETE CASCADE,
    type    TEXT    NOT NULL,
    time    INTEGER NOT NULL,
    job     INTEGER,               -- the task job that it is about
    message TEXT    NOT NULL
);
CREATE INDEX plan_events_plan ON plan_events (plan, id);

ALTER TABLE jobs ADD COLUMN plan_job INTEGER;     -- the plan job that it belongs to
ALTER TABLE jobs ADD COLUMN concurrency INTEGER;  -- how many of its nodes may run at once
CREATE INDEX jobs_plan ON jobs (plan_job) WHERE plan_job IS NOT NULL;
CREATE INDEX jobs_finished ON jobs (finished);

ALTER TABLE node_runs ADD COLUMN stdout TEXT;      -- where the result alone does not say it
ALTER TABLE node_runs ADD COLUMN stderr TEXT;
ALTER TABLE node_runs ADD COLUMN usage TEXT;       -- JSON: what it took and how it was contained
ALTER TABLE node_runs ADD COLUMN report TEXT;      -- JSON: the report of a Puppet run
ALTER TABLE node_runs ADD COLUMN unknown INTEGER;  -- since when its agent is silent
ALTER TABLE node_runs ADD COLUMN given_up INTEGER NOT NULL DEFAULT 0;  -- 1: ended without its agent
ALTER TABLE node_runs ADD COLUMN late TEXT;        -- JSON: what the agent reported after that

ALTER TABLE nodes ADD COLUMN first_seen INTEGER;
CREATE INDEX node_runs_certname ON node_runs (certname, job);
