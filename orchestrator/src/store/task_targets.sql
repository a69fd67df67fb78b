-- Version 4. Task targets.

CREATE TABLE task_targets (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,  -- a permission may outlive what it names
    display_name TEXT    NOT NULL,
    tasks        TEXT    NOT NULL,                   -- JSON: names
    all_tasks    INTEGER NOT NULL,
    nodes        TEXT    NOT NULL,                   -- JSON: certnames
    node_groups  TEXT    NOT NULL,                   -- JSON: ids
    query        TEXT,
    owner        TEXT    NOT NULL,
    created      INTEGER NOT NULL
);
