//! Brings a database to this version, one numbered step after another, each in one transaction.

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// The steps. Step n brings version n to n + 1. A step never changes once it has been released.
const STEPS: [&str; 4] = [
    include_str!("schema.sql"),
    include_str!("access.sql"),
    include_str!("jobs.sql"),
    include_str!("task_targets.sql"),
];

/// The version that this software writes.
pub(super) fn known() -> i64 {
    i64::try_from(STEPS.len()).unwrap_or(i64::MAX)
}

pub(super) fn version(connection: &Connection) -> Result<i64, StoreError> {
    connection
        .query_row("PRAGMA user_version", (), |row| row.get(0))
        .map_err(StoreError::of("tell its version"))
}

pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    loop {
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(StoreError::of("begin its migration"))?;
        // Read inside the transaction: another process may have migrated meanwhile.
        let version = version(&transaction)?;
        let known = known();
        if version > known {
            return Err(StoreError::TooNew {
                found: version,
                known,
            });
        }
        let step = usize::try_from(version).ok().and_then(|at| STEPS.get(at));
        let Some(step) = step else { return Ok(()) };
        transaction
            .execute_batch(step)
            .and_then(|()| transaction.pragma_update(None, "user_version", version + 1))
            .and_then(|()| transaction.commit())
            .map_err(StoreError::of("be migrated"))?;
        tracing::info!(version = version + 1, "database migrated");
    }
}
