//! Jobs as they are taken on, and what is left of them after a crash.

use std::path::PathBuf;

use orchestrator_api::{JobOptions, JobState, JobType, NodeState, PlanEventType};
use pcp::uri::Certname;
use pxp::{JsonObject, TransactionId};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::changes::insert_state;
use super::{Store, StoreError, row};
use crate::job::{JobId, PlanId};
use crate::outcome::Outcome;

/// A job to be taken on.
#[derive(Debug)]
pub(crate) struct NewJob {
    pub(crate) job_type: JobType,
    pub(crate) owner: String,
    pub(crate) options: JobOptions,
    pub(crate) userdata: Map<String, Value>,
    /// What agents are sent. `None` when it holds sensitive parameters, which are never stored.
    pub(crate) request: Option<JsonObject>,
    pub(crate) files: Vec<FileRef>,
    /// Seconds on each node.
    pub(crate) time_limit: u64,
    pub(crate) nodes: Vec<NewNode>,
    /// How many of the nodes may run at once; as many as there is room for when absent.
    pub(crate) concurrency: Option<u64>,
    /// The plan job that it belongs to.
    pub(crate) plan_job: Option<PlanId>,
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
    pub(crate) job_type: JobType,
    pub(crate) state: JobState,
    pub(crate) concurrency: Option<u64>,
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
    /// Since when its agent is silent.
    pub(crate) unknown: Option<i64>,
    /// It ended without its agent, who has not reported since.
    pub(crate) given_up: bool,
}

/// An outcome of a transaction that belongs to no active job.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) transaction: TransactionId,
    pub(crate) certname: Certname,
    pub(crate) outcome: Outcome,
}

/// What the database knows about a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It belongs to this node and has ended.
    Ended,
    /// It belongs to this node, which was given up; its agent had not reported yet.
    GivenUp,
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
        asked: Vec<Lookup>,
    ) -> Result<Vec<(Lookup, Known)>, StoreError> {
        self.read(move |connection| {
            asked
                .into_iter()
                .map(|lookup| {
                    let known = known(connection, &lookup.transaction, &lookup.certname)?;
                    Ok((lookup, known))
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
             userdata, request, files, time_limit, node_count, created, changed, concurrency, \
             plan_job) VALUES \
             (?12, 'ready', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11, ?13, ?14)",
        )
        .map_err(error())?
        .execute(params![
            options.environment(),
            options.task().unwrap_or_default(),
            job.owner,
            options.description(),
            row::to_json(options, "a job's options")?,
            row::to_json(&job.userdata, "a job's userdata")?,
            job.request.as_ref().map(JsonObject::text),
            row::to_json(&job.files, "a job's files")?,
            i64::try_from(job.time_limit).unwrap_or(i64::MAX),
            i64::try_from(job.nodes.len()).unwrap_or(i64::MAX),
            job.at,
            row::to_word(&job.job_type, "a job's type")?,
            job.concurrency
                .map(|most| i64::try_from(most).unwrap_or(i64::MAX)),
            job.plan_job.map(|plan| plan.0),
        ])
        .map_err(error())?;
    let id = JobId(connection.last_insert_rowid());
    insert_state(connection, id, JobState::New, job.at)?;
    insert_state(connection, id, JobState::Ready, job.at)?;
    if let Some(plan) = job.plan_job {
        let message = format!("Started task {}", options.task().unwrap_or_default());
        let event = (PlanEventType::TaskStart, Some(id), message);
        super::plans::insert_event(connection, plan, job.at, event)?;
    }
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
            "SELECT id, state, request, files, time_limit, type, concurrency FROM jobs \
             WHERE state IN ('new', 'ready', 'running', 'stopping') ORDER BY id",
        )
        .map_err(error())?;
    let mut rows = select.query(()).map_err(error())?;
    let mut jobs = vec![];
    while let Some(job) = rows.next().map_err(error())? {
        let id = JobId(job.get(0).map_err(error())?);
        let request: Option<String> = job.get(2).map_err(error())?;
        let files: String = job.get(3).map_err(error())?;
        let concurrency: Option<i64> = job.get(6).map_err(error())?;
        jobs.push(Unfinished {
            id,
            job_type: row::word(job.get(5).map_err(error())?, "a job's type")?,
            concurrency: concurrency.map(row::count),
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
            "SELECT certname, transaction_id, state, accepted, started, unknown, \
             given_up = 1 AND late IS NULL FROM node_runs WHERE job = ?1 ORDER BY node",
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
            unknown: node.get(5).map_err(error())?,
            given_up: node.get(6).map_err(error())?,
        });
    }
    Ok(nodes)
}

fn known(
    connection: &Connection,
    transaction: &TransactionId,
    certname: &Certname,
) -> Result<Known, StoreError> {
    let found: Option<(String, bool, bool)> = connection
        .prepare_cached(
            "SELECT certname, finished IS NOT NULL, given_up = 1 AND late IS NULL \
             FROM node_runs WHERE transaction_id = ?1",
        )
        .and_then(|mut select| {
            select
                .query_row(params![transaction.as_str()], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .optional()
        })
        .map_err(StoreError::of("look a transaction up"))?;
    Ok(match found {
        None => Known::Unknown,
        Some((name, ..)) if name != certname.as_str() => Known::OfAnother,
        Some((_, true, true)) => Known::GivenUp,
        Some((_, true, false)) => Known::Ended,
        Some((_, false, _)) => Known::Open,
    })
}
