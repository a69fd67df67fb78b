//! Jobs as they are taken on, and what is left of them after a crash.

use std::path::PathBuf;

use orchestrator_api::{JobState, NodeState, TaskOptions};
use pcp::uri::Certname;
use pxp::{JsonObject, TransactionId};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::changes::insert_state;
use super::{Store, StoreError, row};
use crate::job::JobId;

/// A job to be taken on.
#[derive(Debug)]
pub(crate) struct NewJob {
    pub(crate) owner: String,
    pub(crate) options: TaskOptions,
    pub(crate) userdata: Map<String, Value>,
    /// What agents are sent. `None` when it holds sensitive parameters, which are never stored.
    pub(crate) request: Option<JsonObject>,
    pub(crate) files: Vec<FileRef>,
    /// Seconds on each node.
    pub(crate) time_limit: u64,
    pub(crate) nodes: Vec<NewNode>,
    /// Milliseconds since 1970.
    pub(crate) at: i64,
}

/// A node of a job, and the transaction that is bound to it for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewNode {
    pub(crate) certname: Certname,
    pub(crate) transaction: TransactionId,
}

/// A file that agents will ask for by digest, and where it was when the job began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRef {
    pub(crate) sha256: String,
    pub(crate) path: PathBuf,
}

/// A job that had not ended when the orchestrator did.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub(crate) id: JobId,
    pub(crate) state: JobState,
    pub(crate) request: Option<JsonObject>,
    pub(crate) files: Vec<FileRef>,
    pub(crate) time_limit: u64,
    pub(crate) nodes: Vec<UnfinishedNode>,
}

/// A node of such a job.
#[derive(Debug)]
pub(crate) struct UnfinishedNode {
    pub(crate) certname: Certname,
    pub(crate) transaction: TransactionId,
    pub(crate) state: NodeState,
    /// The agent has said that the request is in its spool.
    pub(crate) accepted: bool,
    /// Milliseconds since 1970.
    pub(crate) started: Option<i64>,
}

/// What the database knows about a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It belongs to this node and has ended.
    Ended,
    /// It belongs to this node and has not ended.
    Open,
    /// It belongs to another node.
    OfAnother,
    /// There is none of that id.
    Unknown,
}

impl Store {
    /// Stores a job with all its nodes.
    ///
    /// # Errors
    /// [`StoreError`]: the job does not exist.
    pub(crate) async fn add_job(&self, job: NewJob) -> Result<JobId, StoreError> {
        self.write(move |connection| insert(connection, &job)).await
    }

    /// Every job that has not ended, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub(crate) async fn unfinished(&self) -> Result<Vec<Unfinished>, StoreError> {
        self.read(unfinished).await
    }

    /// Looks transactions up, each with the node that says it ran it.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub(crate) async fn known(
        &self,
        asked: Vec<(TransactionId, Certname)>,
    ) -> Result<Vec<(TransactionId, Certname, Known)>, StoreError> {
        self.read(move |connection| {
            asked
                .into_iter()
                .map(|(transaction, certname)| {
                    let known = known(connection, &transaction, &certname)?;
                    Ok((transaction, certname, known))
                })
                .collect()
        })
        .await
    }
}

fn insert(connection: &Connection, job: &NewJob) -> Result<JobId, StoreError> {
    let error = || StoreError::of("store a job");
    let options = &job.options;
    connection
        .prepare_cached(
            "INSERT INTO jobs (type, state, environment, task, owner, description, options, \
             userdata, request, files, time_limit, node_count, created, changed) \
             VALUES ('task', 'ready', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11)",
        )
        .map_err(error())?
        .execute(params![
            options.environment,
            options.task,
            job.owner,
            options.description,
            row::to_json(options, "a job's options")?,
            row::to_json(&job.userdata, "a job's userdata")?,
            job.request.as_ref().map(JsonObject::text),
            row::to_json(&job.files, "a job's files")?,
            i64::try_from(job.time_limit).unwrap_or(i64::MAX),
            i64::try_from(job.nodes.len()).unwrap_or(i64::MAX),
            job.at,
        ])
        .map_err(error())?;
    let id = JobId(connection.last_insert_rowid());
    insert_state(connection, id, JobState::New, job.at)?;
    insert_state(connection, id, JobState::Ready, job.at)?;
    let mut insert = connection
        .prepare_cached(
            "INSERT INTO node_runs (job, node, certname, transaction_id, state, changed) \
             VALUES (?1, ?2, ?3, ?4, 'ready', ?5)",
        )
        .map_err(error())?;
    for (index, node) in (0_i64..).zip(&job.nodes) {
        let certname = node.certname.as_str();
        insert
            .execute(params![
                id.0,
                index,
                certname,
                node.transaction.as_str(),
                job.at
            ])
            .map_err(error())?;
    }
    Ok(id)
}

fn unfinished(connection: &Connection) -> Result<Vec<Unfinished>, StoreError> {
    let error = || StoreError::of("read the unfinished jobs");
    let mut select = connection
        .prepare_cached(
            "SELECT id, state, request, files, time_limit FROM jobs \
             WHERE state IN ('new', 'ready', 'running', 'stopping') ORDER BY id",
        )
        .map_err(error())?;
    let mut rows = select.query(()).map_err(error())?;
    let mut jobs = vec![];
    while let Some(job) = rows.next().map_err(error())? {
        let id = JobId(job.get(0).map_err(error())?);
        let request: Option<String> = job.get(2).map_err(error())?;
        let files: String = job.get(3).map_err(error())?;
        jobs.push(Unfinished {
            id,
            state: row::job_state(job.get(1).map_err(error())?)?,
            request: request
                .map(|text| row::json(&text, "a request"))
                .transpose()?,
            files: row::json(&files, "a job's files")?,
            time_limit: row::count(job.get(4).map_err(error())?),
            nodes: unfinished_nodes(connection, id)?,
        });
    }
    Ok(jobs)
}

fn unfinished_nodes(
    connection: &Connection,
    job: JobId,
) -> Result<Vec<UnfinishedNode>, StoreError> {
    let error = || StoreError::of("read the nodes of an unfinished job");
    let mut select = connection
        .prepare_cached(
            "SELECT certname, transaction_id, state, accepted, started FROM node_runs \
             WHERE job = ?1 ORDER BY node",
        )
        .map_err(error())?;
    let mut rows = select.query(params![job.0]).map_err(error())?;
    let mut nodes = vec![];
    while let Some(node) = rows.next().map_err(error())? {
        let certname: String = node.get(0).map_err(error())?;
        let transaction: String = node.get(1).map_err(error())?;
        nodes.push(UnfinishedNode {
            certname: row::certname(&certname)?,
            transaction: row::transaction(&transaction)?,
            state: row::node_state(node.get(2).map_err(error())?)?,
            accepted: node.get(3).map_err(error())?,
            started: node.get(4).map_err(error())?,
        });
    }
    Ok(nodes)
}

fn known(
    connection: &Connection,
    transaction: &TransactionId,
    certname: &Certname,
) -> Result<Known, StoreError> {
    let found: Option<(String, bool)> = connection
        .prepare_cached(
            "SELECT certname, finished IS NOT NULL FROM node_runs WHERE transaction_id = ?1",
        )
        .and_then(|mut select| {
            select
                .query_row(params![transaction.as_str()], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()
        })
        .map_err(StoreError::of("look a transaction up"))?;
    Ok(match found {
        None => Known::Unknown,
        Some((name, _)) if name != certname.as_str() => Known::OfAnother,
        Some((_, true)) => Known::Ended,
        Some((_, false)) => Known::Open,
    })
}
