//! Users, roles and what they permit.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Store, StoreError};
use crate::grant::{Grant, Pattern};

/// A user as stored. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredUser {
    pub(crate) login: String,
    pub(crate) display_name: String,
    /// The hash of the password, when there is one.
    pub(crate) password: Option<String>,
    pub(crate) created: i64,
    pub(crate) last_login: Option<i64>,
    pub(crate) revoked: Option<i64>,
}

/// A user, the roles, and what they permit together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) user: StoredUser,
    pub(crate) roles: Vec<String>,
    pub(crate) grants: Vec<Grant>,
}

/// A role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredRole {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) grants: Vec<Grant>,
    pub(crate) users: Vec<String>,
}

/// What an administrator changes. Each answers whether there was what it names.
#[derive(Debug, Clone)]
pub(crate) enum AccessChange {
    AddUser(StoredUser),
    SetPassword {
        login: String,
        hash: String,
    },
    RemoveUser {
        login: String,
    },
    /// With `at`, nothing is allowed from then on; without, it is again.
    RevokeUser {
        login: String,
        at: Option<i64>,
    },
    LoggedIn {
        login: String,
        at: i64,
    },
    GiveRole {
        login: String,
        role: String,
    },
    TakeRole {
        login: String,
        role: String,
    },
    AddRole {
        name: String,
        description: String,
    },
    RemoveRole {
        name: String,
    },
    Grant {
        role: String,
        grant: Grant,
    },
    TakeGrant {
        role: String,
        grant: Grant,
    },
}

impl Store {
    /// Changes users and roles. Gives whether anything was there to be changed.
    ///
    /// # Errors
    /// [`StoreError`]: nothing has been changed.
    pub(crate) async fn change_access(&self, change: AccessChange) -> Result<bool, StoreError> {
        self.write(move |connection| {
            apply(connection, change)
                .map(|rows| rows > 0)
                .map_err(StoreError::of("change users or roles"))
        })
        .await
    }

    /// A user with everything that the roles permit.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn account(&self, login: String) -> Result<Option<Account>, StoreError> {
        self.read(move |connection| account(connection, &login))
            .await
    }

    /// All users, by login.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        self.read(|connection| {
            texts(connection, "SELECT login FROM users ORDER BY login", "")?
                .iter()
                .filter_map(|login| account(connection, login).transpose())
                .collect()
        })
        .await
    }

    /// All roles, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn roles(&self) -> Result<Vec<StoredRole>, StoreError> {
        self.read(|connection| {
            let mut roles = Vec::new();
            for name in texts(connection, "SELECT name FROM roles ORDER BY name", "")? {
                let description = connection
                    .query_row(
                        "SELECT description FROM roles WHERE name = ?1",
                        [&name],
                        |row| row.get(0),
                    )
                    .map_err(StoreError::of("read a role"))?;
                let users = "SELECT login FROM user_roles WHERE role = ?1 ORDER BY login";
                roles.push(StoredRole {
                    description,
                    grants: grants(
                        connection,
                        "SELECT action, tasks, nodes FROM role_grants WHERE role = ?1",
                        &name,
                    )?,
                    users: texts(connection, users, &name)?,
                    name,
                });
            }
            Ok(roles)
        })
        .await
    }
}

fn apply(connection: &Connection, change: AccessChange) -> rusqlite::Result<usize> {
    match change {
        AccessChange::AddUser(user) => connection.execute(
            "INSERT INTO users (login, display_name, password, created, last_login, revoked) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
            params![
                user.login,
                user.display_name,
                user.password,
                user.created,
                user.last_login,
                user.revoked
            ],
        ),
        AccessChange::SetPassword { login, hash } => connection.execute(
            "UPDATE users SET password = ?2 WHERE login = ?1",
            params![login, hash],
        ),
        AccessChange::RemoveUser { login } => {
            connection.execute("DELETE FROM users WHERE login = ?1", [login])
        }
        AccessChange::RevokeUser { login, at } => connection.execute(
            "UPDATE users SET revoked = ?2 WHERE login = ?1",
            params![login, at],
        ),
        AccessChange::LoggedIn { login, at } => connection.execute(
            "UPDATE users SET last_login = ?2 WHERE login = ?1",
            params![login, at],
        ),
        AccessChange::GiveRole { login, role } => connection.execute(
            "INSERT INTO user_roles (login, role) \
             SELECT users.login, roles.name FROM users, roles \
             WHERE users.login = ?1 AND roles.name = ?2 \
             ON CONFLICT DO UPDATE SET role = excluded.role",
            params![login, role],
        ),
        AccessChange::TakeRole { login, role } => connection.execute(
            "DELETE FROM user_roles WHERE login = ?1 AND role = ?2",
            params![login, role],
        ),
        AccessChange::AddRole { name, description } => connection.execute(
            "INSERT INTO roles (name, description) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![name, description],
        ),
        AccessChange::RemoveRole { name } => {
            connection.execute("DELETE FROM roles WHERE name = ?1", [name])
        }
        AccessChange::Grant { role, grant } => {
            let (action, tasks, nodes) = columns(&grant);
            connection.execute(
                "INSERT INTO role_grants (role, action, tasks, nodes) \
                 SELECT name, ?2, ?3, ?4 FROM roles WHERE name = ?1 \
                 ON CONFLICT DO UPDATE SET nodes = excluded.nodes",
                params![role, action, tasks, nodes],
            )
        }
        AccessChange::TakeGrant { role, grant } => {
            let (action, tasks, nodes) = columns(&grant);
            connection.execute(
                "DELETE FROM role_grants \
                 WHERE role = ?1 AND action = ?2 AND tasks = ?3 AND nodes = ?4",
                params![role, action, tasks, nodes],
            )
        }
    }
}

pub(super) fn account(connection: &Connection, login: &str) -> Result<Option<Account>, StoreError> {
    let user = connection
        .prepare_cached(
            "SELECT login, display_name, password, created, last_login, revoked \
             FROM users WHERE login = ?1",
        )
        .and_then(|mut select| select.query_row([login], user).optional())
        .map_err(StoreError::of("read a user"))?;
    let Some(user) = user else { return Ok(None) };
    Ok(Some(Account {
        user,
        roles: texts(
            connection,
            "SELECT role FROM user_roles WHERE login = ?1 ORDER BY role",
            login,
        )?,
        grants: grants(
            connection,
            "SELECT action, tasks, nodes FROM role_grants \
             JOIN user_roles USING (role) WHERE login = ?1",
            login,
        )?,
    }))
}

fn user(row: &Row<'_>) -> rusqlite::Result<StoredUser> {
    Ok(StoredUser {
        login: row.get(0)?,
        display_name: row.get(1)?,
        password: row.get(2)?,
        created: row.get(3)?,
        last_login: row.get(4)?,
        revoked: row.get(5)?,
    })
}

/// One column of a query with at most one parameter.
fn texts(connection: &Connection, sql: &str, key: &str) -> Result<Vec<String>, StoreError> {
    connection
        .prepare_cached(sql)
        .and_then(|mut select| {
            let keys = [key];
            let keys = keys.get(..select.parameter_count()).unwrap_or_default();
            select
                .query_map(rusqlite::params_from_iter(keys), |row| row.get(0))?
                .collect()
        })
        .map_err(StoreError::of("list users or roles"))
}

fn grants(connection: &Connection, sql: &str, key: &str) -> Result<Vec<Grant>, StoreError> {
    let rows: Vec<(String, String, String)> = connection
        .prepare_cached(sql)
        .and_then(|mut select| {
            select
                .query_map([key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })
        .map_err(StoreError::of("read permissions"))?;
    let damaged = StoreError::Damaged {
        what: "a permission",
    };
    rows.into_iter()
        .map(|row| grant(&row).ok_or_else(|| damaged.clone()))
        .collect()
}

/// A grant from its columns; nothing when this version does not know what is permitted.
fn grant((action, tasks, nodes): &(String, String, String)) -> Option<Grant> {
    Some(Grant {
        action: match action.as_str() {
            "*" => None,
            word => Some(word.parse().ok()?),
        },
        tasks: tasks.parse().ok()?,
        nodes: nodes
            .split(',')
            .map(|pattern| pattern.parse().ok())
            .collect::<Option<_>>()?,
    })
}

fn columns(grant: &Grant) -> (&'static str, String, String) {
    let nodes: Vec<_> = grant.nodes.iter().map(Pattern::text).collect();
    (
        grant.action.map_or("*", crate::grant::Action::text),
        grant.tasks.text().to_owned(),
        nodes.join(","),
    )
}
