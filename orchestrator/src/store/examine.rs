//! A look at a database without changing it, beside a running orchestrator or without one: for
//! `doctor`.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{BUSY, StoreError, migrate};

/// What a database holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    /// The version of its form.
    pub(crate) version: i64,
    /// The version that this software writes. An older database is brought to it at the next start.
    pub(crate) known: i64,
    /// How many jobs are kept.
    pub(crate) jobs: u64,
    /// Logins of users that are not revoked; nothing when the database is of an older version.
    pub(crate) logins: Option<Vec<String>>,
    /// Tokens that are valid, as of a time in milliseconds since 1970.
    pub(crate) tokens: u64,
}

/// Looks into a database that is there.
///
/// # Errors
/// [`StoreError`] when it cannot be read, is damaged, or is newer than this software.
pub(crate) fn examine(path: &Path, now: i64) -> Result<Contents, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(StoreError::of("open its file"))?;
    connection
        .busy_timeout(BUSY)
        .map_err(StoreError::of("be set up"))?;
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", (), |row| row.get(0))
        .map_err(StoreError::of("be checked"))?;
    if verdict != "ok" {
        return Err(StoreError::Damaged {
            what: "pages or indexes",
        });
    }
    let (version, known) = (migrate::version(&connection)?, migrate::known());
    if version > known {
        return Err(StoreError::TooNew {
            found: version,
            known,
        });
    }
    let count = |sql: &str, now: &[i64]| -> Result<u64, StoreError> {
        let count: i64 = connection
            .query_row(sql, rusqlite::params_from_iter(now), |row| row.get(0))
            .map_err(StoreError::of("count its rows"))?;
        Ok(count.try_into().unwrap_or_default())
    };
    let is_current = version == known;
    Ok(Contents {
        version,
        known,
        jobs: if version > 0 {
            count("SELECT count(*) FROM jobs", &[])?
        } else {
            0
        },
        tokens: if version > 0 {
            count("SELECT count(*) FROM tokens WHERE expires > ?1", &[now])?
        } else {
            0
        },
        logins: is_current.then(|| logins(&connection)).transpose()?,
    })
}

fn logins(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let read = || {
        let sql = "SELECT login FROM users WHERE revoked IS NULL ORDER BY login";
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map((), |row| row.get(0))?;
        rows.collect::<Result<Vec<String>, _>>()
    };
    read().map_err(StoreError::of("list its users"))
}
