//! What the controller decides, written down. Each change writes its event with it, so that states
//! and events always tell the same story.

use std::sync::Arc;

use orchestrator_api::{EventType, JobState, NodeState};
use pcp::uri::Certname;
use pxp::{TransactionId, Usage};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Store, StoreError, row};
use crate::job::JobId;
use crate::outcome::{Outcome, ReportRef};

/// One decision of the controller. Times are milliseconds since 1970.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// The request is about to be sent to a node.
    NodeStarted {
        job: JobId,
        node: u32,
        certname: Certname,
        at: i64,
    },
    /// The agent has it in its spool: it must never be sent again.
    NodeAccepted { job: JobId, node: u32 },
    /// The agent is asked to kill what runs.
    NodeStopping { job: JobId, node: u32, at: i64 },
    /// The agent has been silent for too long, or has spoken again.
    NodeUnknown {
        job: JobId,
        node: u32,
        since: Option<i64>,
    },
    /// A node has ended.
    NodeEnded {
        job: JobId,
        node: u32,
        certname: Certname,
        at: i64,
        end: Box<NodeEnd>,
    },
    /// What the agent of a node that had been given up has reported since.
    NodeLate {
        transaction: TransactionId,
        late: Box<Late>,
    },
    /// A job has entered a state.
    JobEntered {
        job: JobId,
        state: JobState,
        at: i64,
    },
    /// Nodes have come or gone.
    NodesSeen { certnames: Vec<Certname>, at: i64 },
}

/// How a node has ended.
#[derive(Debug, Clone)]
pub(crate) struct NodeEnd {
    pub(crate) state: NodeState,
    pub(crate) result: Secret<Option<Value>>,
    pub(crate) message: Option<String>,
    /// What was written, where the result alone does not say it.
    pub(crate) stdout: Secret<Option<String>>,
    pub(crate) stderr: Secret<Option<String>>,
    pub(crate) usage: Option<Usage>,
    /// Of a Puppet run.
    pub(crate) report: Option<ReportRef>,
    /// Whether it ended without its agent: what the agent reports later is kept as well.
    pub(crate) given_up: bool,
}

impl NodeEnd {
    /// A state, and how it came to that.
    pub(crate) fn of(state: NodeState, outcome: Outcome) -> Self {
        Self {
            state,
            result: Secret(Some(outcome.result).filter(|result| !result.is_null())),
            message: outcome.message,
            stdout: Secret(outcome.stdout),
            stderr: Secret(outcome.stderr),
            usage: outcome.usage,
            report: outcome.report,
            given_up: outcome.given_up,
        }
    }
}

/// What an agent has reported about a node that had been given up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Late {
    pub(crate) state: NodeState,
    /// Milliseconds since 1970.
    pub(crate) at: i64,
    pub(crate) result: Secret<Value>,
}

/// What may hold secrets: stored, but never printed.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret<T>(pub(crate) T);

impl<T> std::fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Store {
    /// Writes decisions down, all or none.
    ///
    /// # Errors
    /// [`StoreError`]: none of them has been stored.
    pub(crate) async fn apply(&self, changes: Arc<Vec<Change>>) -> Result<(), StoreError> {
        self.write(move |connection| {
            changes
                .iter()
                .try_for_each(|change| apply(connection, change))
        })
        .await?;
        self.changed.send_replace(());
        Ok(())
    }
}

fn apply(connection: &Connection, change: &Change) -> Result<(), StoreError> {
    match change {
        Change::NodeStarted {
            job,
            node,
            certname,
            at,
        } => {
            connection
                .prepare_cached(
                    "UPDATE node_runs SET state = 'running', started = ?3, changed = ?3 \
                     WHERE job = ?1 AND node = ?2 AND finished IS NULL",
                )
                .and_then(|mut update| update.execute(params![job.0, node, at]))
                .map_err(StoreError::of("store the start of a node"))?;
            let message = format!("Started on {certname}");
            let event = (EventType::NodeRunning, Some(certname), message, Map::new());
            insert_event(connection, *job, *at, event)
        }
        Change::NodeAccepted { job, node } => connection
            .prepare_cached("UPDATE node_runs SET accepted = 1 WHERE job = ?1 AND node = ?2")
            .and_then(|mut update| update.execute(params![job.0, node]))
            .map(drop)
            .map_err(StoreError::of("store that a node has accepted")),
        Change::NodeStopping { job, node, at } => connection
            .prepare_cached(
                "UPDATE node_runs SET state = 'stopping', changed = ?3 \
                 WHERE job = ?1 AND node = ?2 AND finished IS NULL",
            )
            .and_then(|mut update| update.execute(params![job.0, node, at]))
            .map(drop)
            .map_err(StoreError::of("store that a node is being stopped")),
        Change::NodeUnknown { job, node, since } => connection
            .prepare_cached("UPDATE node_runs SET unknown = ?3 WHERE job = ?1 AND node = ?2")
            .and_then(|mut update| update.execute(params![job.0, node, since]))
            .map(drop)
            .map_err(StoreError::of("store whether an agent is silent")),
        Change::NodeEnded {
            job,
            node,
            certname,
            at,
            end,
        } => {
            node_ended(connection, *job, *node, *at, end)?;
            let event = node_event(end.state, certname, end.message.as_deref());
            insert_event(connection, *job, *at, event)
        }
        Change::NodeLate { transaction, late } => {
            let late = row::to_json(late, "a late result")?;
            connection
                .prepare_cached(
                    "UPDATE node_runs SET late = ?2 \
                     WHERE transaction_id = ?1 AND given_up = 1 AND late IS NULL",
                )
                .and_then(|mut update| update.execute(params![transaction.as_str(), late]))
                .map(drop)
                .map_err(StoreError::of("store a late result"))
        }
        Change::JobEntered { job, state, at } => job_entered(connection, *job, *state, *at),
        Change::NodesSeen { certnames, at } => certnames.iter().try_for_each(|certname| {
            connection
                .prepare_cached(
                    "INSERT INTO nodes (certname, changed, first_seen) VALUES (?1, ?2, ?2) \
                     ON CONFLICT (certname) DO UPDATE SET changed = excluded.changed",
                )
                .and_then(|mut insert| insert.execute(params![certname.as_str(), at]))
                .map(drop)
                .map_err(StoreError::of("store a node"))
        }),
    }
}

fn node_ended(
    connection: &Connection,
    job: JobId,
    node: u32,
    at: i64,
    end: &NodeEnd,
) -> Result<(), StoreError> {
    let result = optional_json(end.result.0.as_ref(), "a result")?;
    let usage = optional_json(end.usage.as_ref(), "a usage")?;
    let report = optional_json(end.report.as_ref(), "a report")?;
    // The condition holds always; it is what makes a second record impossible.
    connection
        .prepare_cached(
            "UPDATE node_runs SET state = ?3, finished = ?4, changed = ?4, result = ?5, \
             message = ?6, stdout = ?7, stderr = ?8, usage = ?9, report = ?10, given_up = ?11, \
             unknown = NULL WHERE job = ?1 AND node = ?2 AND finished IS NULL",
        )
        .and_then(|mut update| {
            update.execute(params![
                job.0,
                node,
                end.state.text(),
                at,
                result,
                end.message,
                end.stdout.0,
                end.stderr.0,
                usage,
                report,
                end.given_up
            ])
        })
        .map(drop)
        .map_err(StoreError::of("store the end of a node"))
}

fn optional_json<T: Serialize>(
    value: Option<&T>,
    what: &'static str,
) -> Result<Option<String>, StoreError> {
    value.map(|value| row::to_json(value, what)).transpose()
}

fn job_entered(
    connection: &Connection,
    job: JobId,
    state: JobState,
    at: i64,
) -> Result<(), StoreError> {
    let error = || StoreError::of("store a job's state");
    insert_state(connection, job, state, at)?;
    connection
        .prepare_cached("UPDATE jobs SET state = ?2, changed = ?3 WHERE id = ?1")
        .and_then(|mut update| update.execute(params![job.0, state.text(), at]))
        .map_err(error())?;
    if state == JobState::Running {
        connection
            .prepare_cached("UPDATE jobs SET started = ?2 WHERE id = ?1")
            .and_then(|mut update| update.execute(params![job.0, at]))
            .map_err(error())?;
    }
    let (event, message) = match state {
        JobState::New | JobState::Ready | JobState::Running => return Ok(()),
        JobState::Stopping => (EventType::JobStopping, "Job is stopping"),
        JobState::Stopped => (EventType::JobAborted, "Job was stopped"),
        JobState::Finished => (EventType::JobFinished, "Job finished"),
        JobState::Failed => (EventType::JobFinished, "Job failed"),
    };
    if state.is_final() {
        // From here on the counts do not change, and no list needs to count the nodes again.
        connection
            .prepare_cached(
                "UPDATE jobs SET finished = ?2, node_states = (SELECT json_group_object(state, n) \
                 FROM (SELECT state, count(*) AS n FROM node_runs WHERE job = ?1 GROUP BY state)) \
                 WHERE id = ?1",
            )
            .and_then(|mut update| update.execute(params![job.0, at]))
            .map_err(error())?;
    }
    let event = (event, None, message.to_owned(), Map::new());
    insert_event(connection, job, at, event)
}

pub(super) fn insert_state(
    connection: &Connection,
    job: JobId,
    state: JobState,
    at: i64,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO job_states (job, step, state, entered) \
             VALUES (?1, (SELECT count(*) FROM job_states WHERE job = ?1), ?2, ?3)",
        )
        .and_then(|mut insert| insert.execute(params![job.0, state.text(), at]))
        .map(drop)
        .map_err(StoreError::of("store a job's state"))
}

type NewEvent<'a> = (EventType, Option<&'a Certname>, String, Map<String, Value>);

fn node_event<'a>(state: NodeState, certname: &'a Certname, message: Option<&str>) -> NewEvent<'a> {
    let (event_type, phrase) = match state {
        NodeState::Finished => (EventType::NodeFinished, "Finished on"),
        NodeState::Failed => (EventType::NodeFailed, "Failed on"),
        NodeState::Skipped => (EventType::NodeSkipped, "Skipped"),
        // A node that was given up while the task ran has no event type of its own.
        NodeState::Errored
        | NodeState::Stopped
        | NodeState::New
        | NodeState::Ready
        | NodeState::Running
        | NodeState::Stopping => (EventType::NodeErrored, "Error on"),
    };
    let mut detail = Map::new();
    let text = match message {
        Some(message) => {
            detail.insert("message".to_owned(), message.into());
            format!("{phrase} {certname}: {message}")
        }
        None => format!("{phrase} {certname}"),
    };
    (event_type, Some(certname), text, detail)
}

fn insert_event(
    connection: &Connection,
    job: JobId,
    at: i64,
    (event_type, node, message, detail): NewEvent<'_>,
) -> Result<(), StoreError> {
    let event_type = row::to_json(&event_type, "an event's type")?;
    let detail = row::to_json(&detail, "an event's detail")?;
    connection
        .prepare_cached(
            "INSERT INTO events (job, type, time, node, message, detail) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .and_then(|mut insert| {
            let event_type = event_type.trim_matches('"');
            let node = node.map(Certname::as_str);
            insert.execute(params![job.0, event_type, at, node, message, detail])
        })
        .map(drop)
        .map_err(StoreError::of("store an event"))
}
