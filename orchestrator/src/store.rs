//! The database. One thread writes, putting everything that waits into one transaction; two read.
//! This module and those below it are the only ones that name the database's library.

mod access;
mod changes;
mod examine;
mod jobs;
mod migrate;
mod nodes;
mod output;
mod plans;
mod prune;
mod query;
mod row;
mod task_targets;
mod tokens;
mod usage;
mod writer;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::watch;

pub(crate) use access::{AccessChange, Account, StoredRole, StoredUser};
pub(crate) use changes::{Change, Late, NodeEnd, Secret};
pub(crate) use examine::{Contents, examine};
#[cfg(test)]
pub(crate) use jobs::UnfinishedNode;
pub(crate) use jobs::{FileRef, Known, Lookup, NewJob, NewNode, Unfinished};
pub(crate) use nodes::SeenNode;
pub(crate) use output::StoredOutput;
pub(crate) use plans::{NewPlan, PlanEnd, StoredPlan, StoredPlanEvent};
pub(crate) use query::{EndMark, StoredEvent, StoredEvents, StoredJob, StoredNode};
pub(crate) use task_targets::MAX_TASK_TARGETS;
pub(crate) use tokens::{StoredToken, TokenHash};

use crate::worker::Worker;
use writer::Writer;

/// How long SQLite waits for a lock of another process, such as `create-token`.
const BUSY: Duration = Duration::from_secs(5);

/// How many threads read: one may be busy with a long list while the other answers the rest.
const READERS: usize = 2;

/// A handle to the database. The threads end when the last handle is gone.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    writer: Arc<Writer>,
    readers: Arc<[Worker<Connection>]>,
    next: Arc<AtomicUsize>,
    changed: Arc<watch::Sender<()>>,
}

/// Why the database did not do what it was asked to. Nothing of the request has been stored.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum StoreError {
    /// SQLite refused.
    #[error("the database could not {operation}")]
    Database {
        operation: &'static str,
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// The database was written by a newer version of this software.
    #[error("the database has version {found}, and this software knows versions up to {known}")]
    TooNew { found: i64, known: i64 },
    /// A stored value is not what this software writes.
    #[error("the database holds {what} that cannot be read")]
    Damaged { what: &'static str },
    /// The file is not there and cannot be made, or may not be written.
    #[error("the database file cannot be opened")]
    Create(#[source] Arc<io::Error>),
    /// A thread of the store is gone.
    #[error("the database thread has ended")]
    Ended,
    /// No thread could be started.
    #[error("the database thread could not be started")]
    Thread(#[source] Arc<io::Error>),
}

impl StoreError {
    /// For `map_err`: SQLite refused this operation.
    fn of(operation: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Database {
            operation,
            source: Arc::new(source),
        }
    }

    /// On one line with its causes, and what is behind it when that is known.
    pub(crate) fn with_hint(&self) -> String {
        let text = daemon::error_chain(self);
        match self.hint() {
            Some(hint) => format!("{text} ({hint})"),
            None => text,
        }
    }

    /// For an operator: what is behind it, when that is known.
    fn hint(&self) -> Option<&'static str> {
        let Self::Database { source, .. } = self else {
            return None;
        };
        match source.sqlite_error_code()? {
            rusqlite::ErrorCode::DiskFull => Some("the disk is full"),
            rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked => {
                Some("another process holds the database")
            }
            rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase => {
                Some("the database file is damaged; restore it from a backup")
            }
            rusqlite::ErrorCode::ReadOnly | rusqlite::ErrorCode::CannotOpen => {
                Some("the database file or its directory may not be written")
            }
            _ => None,
        }
    }
}

impl Store {
    /// Opens the database, creates it when it is not there, and brings it to this version.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be opened, is newer than this software or is damaged.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        create(path).map_err(|error| StoreError::Create(Arc::new(error)))?;
        let mut connection = open(path)?;
        migrate::migrate(&mut connection)?;
        let readers = (0..READERS)
            .map(|number| {
                let connection = open(path)?;
                Worker::start(&format!("db-read-{number}"), connection)
                    .map_err(|error| StoreError::Thread(Arc::new(error)))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            writer: Arc::new(Writer::start(connection)?),
            readers: readers.into(),
            next: Arc::default(),
            changed: Arc::new(watch::Sender::new(())),
        })
    }

    /// Tells when jobs, nodes or events have changed.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Writes, together with everything else that waits. When this answers, it is on the disk.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.run(work).await
    }

    /// Reads what has been committed.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % READERS;
        let reader = self.readers.get(turn).ok_or(StoreError::Ended)?;
        reader
            .run(move |connection| {
                // One transaction, so that all statements of a request see the same state.
                let transaction = connection
                    .unchecked_transaction()
                    .map_err(StoreError::of("begin to read"))?;
                work(&transaction)
            })
            .await
            .map_err(|_| StoreError::Ended)?
    }
}

/// Makes the file when it is not there, for nobody else to read: results may hold secrets. SQLite
/// gives its other files the same mode.
fn create(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    options.open(path).map(drop)
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(StoreError::of("open its file"))?;
    let prepare = || {
        connection.busy_timeout(BUSY)?;
        // The answer of this pragma is a row: the mode that now holds.
        connection.query_row("PRAGMA journal_mode = WAL", (), |_| Ok(()))?;
        connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(())
    };
    prepare().map_err(StoreError::of("be set up"))?;
    Ok(connection)
}

#[cfg(test)]
pub(crate) mod tests;
