//! The baseline of what the orchestrator writes: bare SQLite, as durable, with rows of the same shape.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use rusqlite::{Connection, params};

/// Rows in one transaction: about what the orchestrator puts into one under load.
const BATCH: usize = 500;

/// Seconds to insert so many events, each with an entry of an index, into a new file at `path`.
pub(crate) fn insert(path: &Path, rows: usize) -> Result<f64> {
    let mut connection = Connection::open(path).context("cannot open a database")?;
    connection
        .query_row("PRAGMA journal_mode = WAL", (), |_| Ok(()))
        .context("no write-ahead log")?;
    connection.execute_batch(
        "PRAGMA synchronous = FULL;
         CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, job INTEGER NOT NULL, \
         type TEXT NOT NULL, time INTEGER NOT NULL, node TEXT, message TEXT NOT NULL, \
         detail TEXT NOT NULL);
         CREATE INDEX events_job ON events (job, id);",
    )?;
    let start = Instant::now();
    let mut left = rows;
    while left > 0 {
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO events (job, type, time, node, message, detail) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            for row in left.saturating_sub(BATCH)..left {
                let node = format!("load-{row}");
                let message = format!("Finished on {node}");
                let time = 1_700_000_000_000_i64;
                insert.execute(params![1, "node_finished", time, node, message, "{}"])?;
            }
        }
        transaction.commit()?;
        left = left.saturating_sub(BATCH);
    }
    Ok(start.elapsed().as_secs_f64())
}
