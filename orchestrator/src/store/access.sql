-- Version 2. Users, their roles, and what the roles permit.

CREATE TABLE users (
    login        TEXT PRIMARY KEY,
    display_name TEXT    NOT NULL,
    password     TEXT,                -- argon2id; NULL: no login by password
    created      INTEGER NOT NULL,
    last_login   INTEGER,
    revoked      INTEGER              -- since then nothing is allowed
) WITHOUT ROWID;

CREATE TABLE roles (
    name        TEXT PRIMARY KEY,
    description TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE role_grants (
    role   TEXT NOT NULL REFERENCES roles (name) ON DELETE CASCADE,
    action TEXT NOT NULL,             -- the permission's word, or *
    tasks  TEXT NOT NULL,             -- pattern of task names
    nodes  TEXT NOT NULL,             -- patterns of certnames with commas between
    PRIMARY KEY (role, action, tasks, nodes)
) WITHOUT ROWID;

CREATE TABLE user_roles (
    login TEXT NOT NULL REFERENCES users (login) ON DELETE CASCADE,
    role  TEXT NOT NULL REFERENCES roles (name) ON DELETE CASCADE,
    PRIMARY KEY (login, role)
) WITHOUT ROWID;
CREATE INDEX user_roles_role ON user_roles (role);

-- Whose permissions a token has. NULL: an administrator made it on the host for a login that is no
-- user, as all tokens of version 1; it may do everything.
ALTER TABLE tokens ADD COLUMN user TEXT REFERENCES users (login) ON DELETE CASCADE;
CREATE INDEX tokens_user ON tokens (user);

INSERT INTO roles (name, description) VALUES
    ('Administrators', 'May do everything'),
    ('Operators', 'Run tasks and Puppet everywhere, see and stop the jobs of all'),
    ('Viewers', 'See jobs, results and connected nodes');
INSERT INTO role_grants (role, action, tasks, nodes) VALUES
    ('Administrators', '*', '*', '*'),
    ('Operators', 'tasks:run', '*', '*'),
    ('Operators', 'puppet_agent:run', '*', '*'),
    ('Operators', 'plans:run', '*', '*'),
    ('Operators', 'orchestrator:view', '*', '*'),
    ('Operators', 'job:stop', '*', '*'),
    ('Viewers', 'orchestrator:view', '*', '*');
