//! One node of a job, with what its task has written.

use orchestrator_api::NodeState;
use pcp::uri::Certname;
use pxp::TransactionId;
use rusqlite::{OptionalExtension, params};
use serde_json::Value;

use super::{Secret, Store, StoreError, row};
use crate::job::JobId;

/// What is known of the output of a node.
#[derive(Debug)]
pub(crate) struct StoredOutput {
    pub(crate) certname: Certname,
    pub(crate) transaction: TransactionId,
    pub(crate) state: NodeState,
    pub(crate) result: Secret<Option<Value>>,
    pub(crate) stdout: Secret<Option<String>>,
    pub(crate) stderr: Secret<Option<String>>,
}

type Columns = (
    String,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
);

impl Store {
    /// A node of a job by its name; nothing when the job has no such node.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub(crate) async fn output(
        &self,
        job: JobId,
        certname: Certname,
    ) -> Result<Option<StoredOutput>, StoreError> {
        self.read(move |connection| {
            let found: Option<Columns> = connection
                .prepare_cached(
                    "SELECT transaction_id, state, result, stdout, stderr FROM node_runs \
                     WHERE certname = ?2 AND job = ?1",
                )
                .and_then(|mut select| {
                    select
                        .query_row(params![job.0, certname.as_str()], |row| {
                            Ok((
                                row.get(0)?,
                                row.get(1)?,
                                row.get(2)?,
                                row.get(3)?,
                                row.get(4)?,
                            ))
                        })
                        .optional()
                })
                .map_err(StoreError::of("read the output of a node"))?;
            let Some((transaction, state, result, stdout, stderr)) = found else {
                return Ok(None);
            };
            Ok(Some(StoredOutput {
                certname,
                transaction: row::transaction(&transaction)?,
                state: row::node_state(state)?,
                result: Secret(
                    result
                        .map(|text| row::json(&text, "a result"))
                        .transpose()?,
                ),
                stdout: Secret(stdout),
                stderr: Secret(stderr),
            }))
        })
        .await
    }

    /// The names of a job's nodes in their order: all, or those that did not end well.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub(crate) async fn node_names(
        &self,
        job: JobId,
        only_failed: bool,
    ) -> Result<Vec<String>, StoreError> {
        self.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT certname FROM node_runs \
                     WHERE job = ?1 AND (NOT ?2 OR state <> 'finished') ORDER BY node",
                )
                .and_then(|mut select| {
                    let rows = select.query_map(params![job.0, only_failed], |row| row.get(0))?;
                    rows.collect()
                })
                .map_err(StoreError::of("read the nodes of a job"))
        })
        .await
    }
}
