//! What the API reads: jobs, their nodes, their events. All text that goes into a statement's text
//! comes from the constants here; what a caller gives is always a parameter.

use std::collections::BTreeMap;

use orchestrator_api::{
    EventType, JobOptions, JobOrder, JobState, JobType, JobsQuery, NodeOrder, NodeState,
    NodesQuery, Order, StateTime, Time,
};
use pxp::Usage;
use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Late, Store, StoreError, row};
use crate::job::JobId;
use crate::outcome::ReportRef;

/// A job as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct StoredJob {
    pub(crate) id: JobId,
    pub(crate) job_type: JobType,
    pub(crate) state: JobState,
    pub(crate) owner: String,
    pub(crate) options: JobOptions,
    pub(crate) userdata: Map<String, Value>,
    pub(crate) node_count: u64,
    pub(crate) node_states: BTreeMap<NodeState, u64>,
    pub(crate) created: Time,
    pub(crate) changed: Time,
    pub(crate) started: Option<Time>,
    pub(crate) finished: Option<Time>,
}

/// A node of a job as it is stored.
#[derive(Clone)]
pub(crate) struct StoredNode {
    pub(crate) certname: String,
    pub(crate) state: NodeState,
    pub(crate) changed: Time,
    pub(crate) started: Option<Time>,
    pub(crate) finished: Option<Time>,
    pub(crate) message: Option<String>,
    pub(crate) result: Option<Value>,
    pub(crate) usage: Option<Usage>,
    pub(crate) report: Option<ReportRef>,
    pub(crate) unknown: Option<Time>,
    pub(crate) late: Option<Late>,
}

/// Results may hold secrets and are never printed.
impl std::fmt::Debug for StoredNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredNode")
            .field("certname", &self.certname)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// The nodes of a job, and where the events after them begin.
#[derive(Debug)]
pub(crate) struct StoredNodes {
    pub(crate) next_event: i64,
    pub(crate) items: Vec<StoredNode>,
    /// The last of them, when it has ended.
    pub(crate) last: Option<EndMark>,
}

/// The place of a node among those of its job that have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndMark {
    /// When it ended, in milliseconds since 1970.
    pub(crate) finished: i64,
    /// Its number in the job.
    pub(crate) node: u32,
}

/// An event as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct StoredEvent {
    pub(crate) id: i64,
    pub(crate) event_type: EventType,
    pub(crate) time: Time,
    pub(crate) node: Option<String>,
    pub(crate) message: String,
    pub(crate) detail: Map<String, Value>,
}

/// The events of a job.
#[derive(Debug)]
pub(crate) enum StoredEvents {
    /// There is no such job.
    UnknownJob,
    /// The event to start from belongs to another job.
    Mismatched,
    /// The events, and the number to ask for next.
    Events {
        items: Vec<StoredEvent>,
        next: i64,
        /// Whether the job has ended, so that no more will come than there are now.
        is_over: bool,
    },
}

const JOB_COLUMNS: &str = "id, type, state, owner, options, userdata, node_count, node_states, \
                           created, changed, started, finished";

pub(super) const NODE_COUNTS: &str =
    "SELECT state, count(*) FROM node_runs WHERE job = ?1 GROUP BY state";

impl Store {
    /// A page of jobs, and how many there are on all pages.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub(crate) async fn jobs(&self, query: JobsQuery) -> Result<(Vec<StoredJob>, u64), StoreError> {
        self.read(move |connection| jobs(connection, &query)).await
    }

    /// One job and the states that it went through; nothing when there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub(crate) async fn job(
        &self,
        id: JobId,
    ) -> Result<Option<(StoredJob, Vec<StateTime>)>, StoreError> {
        self.read(move |connection| {
            let Some(job) = job(connection, id)? else {
                return Ok(None);
            };
            Ok(Some((job, states(connection, id)?)))
        })
        .await
    }

    /// A page of a job's nodes, behind a mark if there is one; nothing when there is no such job.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub(crate) async fn nodes(
        &self,
        id: JobId,
        query: NodesQuery,
        after: Option<EndMark>,
    ) -> Result<Option<StoredNodes>, StoreError> {
        self.read(move |connection| {
            if !exists(connection, id)? {
                return Ok(None);
            }
            let next_event = last_event(connection, id)? + 1;
            let (items, last) = nodes(connection, id, &query, after)?;
            Ok(Some(StoredNodes {
                next_event,
                items,
                last,
            }))
        })
        .await
    }

    /// A job's events from a number on; all of them from 0. At most `most`, when given.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub(crate) async fn events(
        &self,
        id: JobId,
        start: i64,
        most: Option<u64>,
    ) -> Result<StoredEvents, StoreError> {
        self.read(move |connection| {
            let Some(is_over) = is_over(connection, id)? else {
                return Ok(StoredEvents::UnknownJob);
            };
            if mismatched(connection, id, start)? {
                return Ok(StoredEvents::Mismatched);
            }
            let items = events(connection, id, start, most)?;
            let next = match items.last() {
                Some(last) => last.id + 1,
                None => last_event(connection, id)? + 1,
            };
            Ok(StoredEvents::Events {
                items,
                next,
                is_over,
            })
        })
        .await
    }
}

fn jobs(connection: &Connection, query: &JobsQuery) -> Result<(Vec<StoredJob>, u64), StoreError> {
    let error = || StoreError::of("read the jobs");
    let mut filter = String::from("WHERE 1");
    let mut values: Vec<Box<dyn ToSql>> = vec![];
    let mut restrict = |condition: &str, value: Box<dyn ToSql>| {
        filter.push_str(" AND ");
        filter.push_str(condition);
        values.push(value);
    };
    if let Some(job_type) = &query.job_type {
        let word = row::to_word(job_type, "a job's type")?;
        restrict("type = ?", Box::new(word));
    }
    if let Some(task) = &query.task {
        restrict("instr(task, ?) > 0", Box::new(task.clone()));
    }
    if let Some(time) = query.min_finish_timestamp {
        restrict("finished >= ?", Box::new(time.as_millis()));
    }
    if let Some(time) = query.max_finish_timestamp {
        restrict("finished <= ?", Box::new(time.as_millis()));
    }
    let total: i64 = connection
        .prepare_cached(&format!("SELECT count(*) FROM jobs {filter}"))
        .and_then(|mut select| {
            select.query_row(rusqlite::params_from_iter(&values), |row| row.get(0))
        })
        .map_err(error())?;
    let column = match query.order_by.unwrap_or_default() {
        JobOrder::Owner => "owner",
        JobOrder::Timestamp => "created",
        JobOrder::Environment => "environment",
        JobOrder::Name => "id",
        JobOrder::State => "state",
    };
    let direction = direction(query.order);
    values.push(Box::new(row::limit(query.limit)));
    values.push(Box::new(row::offset(query.offset)));
    // Equal ones are ordered by number, so that pages do not overlap.
    let mut select = connection
        .prepare_cached(&format!(
            "SELECT {JOB_COLUMNS} FROM jobs {filter} \
             ORDER BY {column} {direction}, id {direction} LIMIT ? OFFSET ?"
        ))
        .map_err(error())?;
    let mut rows = select
        .query(rusqlite::params_from_iter(&values))
        .map_err(error())?;
    let mut jobs = vec![];
    while let Some(row) = rows.next().map_err(error())? {
        jobs.push(stored_job(connection, row)?);
    }
    Ok((jobs, row::count(total)))
}

fn job(connection: &Connection, id: JobId) -> Result<Option<StoredJob>, StoreError> {
    let error = || StoreError::of("read a job");
    let mut select = connection
        .prepare_cached(&format!("SELECT {JOB_COLUMNS} FROM jobs WHERE id = ?1"))
        .map_err(error())?;
    let mut rows = select.query(params![id.0]).map_err(error())?;
    match rows.next().map_err(error())? {
        Some(row) => stored_job(connection, row).map(Some),
        None => Ok(None),
    }
}

fn stored_job(connection: &Connection, job: &Row<'_>) -> Result<StoredJob, StoreError> {
    let error = || StoreError::of("read a job");
    let id = JobId(job.get(0).map_err(error())?);
    let options: String = job.get(4).map_err(error())?;
    let userdata: String = job.get(5).map_err(error())?;
    let node_states: Option<String> = job.get(7).map_err(error())?;
    Ok(StoredJob {
        id,
        job_type: row::word(job.get(1).map_err(error())?, "a job's type")?,
        state: row::job_state(job.get(2).map_err(error())?)?,
        owner: job.get(3).map_err(error())?,
        options: row::json(&options, "a job's options")?,
        userdata: row::json(&userdata, "a job's userdata")?,
        node_count: row::count(job.get(6).map_err(error())?),
        node_states: match node_states {
            Some(states) => row::json(&states, "a job's counts")?,
            None => node_counts(connection, id)?,
        },
        created: Time::from_millis(job.get(8).map_err(error())?),
        changed: Time::from_millis(job.get(9).map_err(error())?),
        started: row::time(job.get(10).map_err(error())?),
        finished: row::time(job.get(11).map_err(error())?),
    })
}

fn node_counts(connection: &Connection, id: JobId) -> Result<BTreeMap<NodeState, u64>, StoreError> {
    let error = || StoreError::of("count the nodes of a job");
    let mut select = connection.prepare_cached(NODE_COUNTS).map_err(error())?;
    let mut rows = select.query(params![id.0]).map_err(error())?;
    let mut counts = BTreeMap::new();
    while let Some(row) = rows.next().map_err(error())? {
        let state = row::node_state(row.get(0).map_err(error())?)?;
        counts.insert(state, row::count(row.get(1).map_err(error())?));
    }
    Ok(counts)
}

pub(super) fn states(connection: &Connection, id: JobId) -> Result<Vec<StateTime>, StoreError> {
    let error = || StoreError::of("read the states of a job");
    let mut select = connection
        .prepare_cached("SELECT state, entered FROM job_states WHERE job = ?1 ORDER BY step")
        .map_err(error())?;
    let mut rows = select.query(params![id.0]).map_err(error())?;
    let mut states: Vec<StateTime> = vec![];
    while let Some(row) = rows.next().map_err(error())? {
        let enter_time = Time::from_millis(row.get(1).map_err(error())?);
        if let Some(last) = states.last_mut() {
            last.exit_time = Some(enter_time);
        }
        states.push(StateTime {
            state: row::job_state(row.get(0).map_err(error())?)?,
            enter_time,
            exit_time: None,
        });
    }
    Ok(states)
}

fn nodes(
    connection: &Connection,
    id: JobId,
    query: &NodesQuery,
    after: Option<EndMark>,
) -> Result<(Vec<StoredNode>, Option<EndMark>), StoreError> {
    let error = || StoreError::of("read the nodes of a job");
    let mut select = connection
        .prepare_cached(&nodes_statement(query, after.is_some()))
        .map_err(error())?;
    let state = query.state.map(NodeState::text);
    let mut rows = select
        .query(params![
            id.0,
            state,
            row::limit(query.limit),
            row::offset(query.offset),
            after.map(|mark| mark.finished),
            after.map(|mark| mark.node),
        ])
        .map_err(error())?;
    let mut nodes = vec![];
    let mut last = None;
    while let Some(row) = rows.next().map_err(error())? {
        let result: Option<String> = row.get(6).map_err(error())?;
        let finished: Option<i64> = row.get(4).map_err(error())?;
        let node = row.get(11).map_err(error())?;
        last = finished.map(|finished| EndMark { finished, node });
        nodes.push(StoredNode {
            certname: row.get(0).map_err(error())?,
            state: row::node_state(row.get(1).map_err(error())?)?,
            changed: Time::from_millis(row.get(2).map_err(error())?),
            started: row::time(row.get(3).map_err(error())?),
            finished: row::time(finished),
            message: row.get(5).map_err(error())?,
            result: result
                .map(|text| row::json(&text, "a result"))
                .transpose()?,
            usage: optional(row.get(7).map_err(error())?, "a usage")?,
            report: optional(row.get(8).map_err(error())?, "a report")?,
            unknown: row::time(row.get(9).map_err(error())?),
            late: optional(row.get(10).map_err(error())?, "a late result")?,
        });
    }
    Ok((nodes, last))
}

fn optional<T: DeserializeOwned>(
    text: Option<String>,
    what: &'static str,
) -> Result<Option<T>, StoreError> {
    text.map(|text| row::json(&text, what)).transpose()
}

/// The condition on the state is there only when a state is asked for, so that an index serves it: a
/// follower asks for the last that finished again and again, and may not cost a look at every node.
pub(super) fn nodes_statement(query: &NodesQuery, after_a_mark: bool) -> String {
    let column = match query.order_by.unwrap_or_default() {
        NodeOrder::Name => "certname",
        NodeOrder::Duration => "finished - started",
        NodeOrder::State => "state",
        NodeOrder::StartTimestamp => "started",
        NodeOrder::FinishTimestamp => "finished",
    };
    let direction = direction(query.order);
    let state = match query.state {
        Some(_) => "state = ?2",
        None => "?2 IS NULL",
    };
    let mark = if after_a_mark {
        "(finished, node) > (?5, ?6)"
    } else {
        "?5 IS NULL AND ?6 IS NULL"
    };
    format!(
        "SELECT certname, state, changed, started, finished, message, result, usage, report, \
         unknown, late, node FROM node_runs WHERE job = ?1 AND {state} AND {mark} \
         ORDER BY {column} {direction}, node {direction} LIMIT ?3 OFFSET ?4"
    )
}

fn events(
    connection: &Connection,
    id: JobId,
    start: i64,
    most: Option<u64>,
) -> Result<Vec<StoredEvent>, StoreError> {
    let error = || StoreError::of("read the events of a job");
    let mut select = connection
        .prepare_cached(
            "SELECT id, type, time, node, message, detail FROM events \
             WHERE job = ?1 AND id >= ?2 ORDER BY id LIMIT ?3",
        )
        .map_err(error())?;
    let mut rows = select
        .query(params![id.0, start, row::limit(most)])
        .map_err(error())?;
    let mut events = vec![];
    while let Some(row) = rows.next().map_err(error())? {
        let detail: String = row.get(5).map_err(error())?;
        events.push(StoredEvent {
            id: row.get(0).map_err(error())?,
            event_type: row::event_type(row.get(1).map_err(error())?)?,
            time: Time::from_millis(row.get(2).map_err(error())?),
            node: row.get(3).map_err(error())?,
            message: row.get(4).map_err(error())?,
            detail: row::json(&detail, "an event's detail")?,
        });
    }
    Ok(events)
}

/// Whether an event number belongs to another job. The number after one of this job's events is
/// always this job's too, whoever has it: it is what a follower of this job asks for next.
fn mismatched(connection: &Connection, id: JobId, start: i64) -> Result<bool, StoreError> {
    let owner = |event: i64| {
        connection
            .prepare_cached("SELECT job FROM events WHERE id = ?1")
            .and_then(|mut select| {
                select
                    .query_row(params![event], |row| row.get::<_, i64>(0))
                    .optional()
            })
            .map_err(StoreError::of("look an event up"))
    };
    Ok(match owner(start)? {
        Some(job) if job != id.0 => owner(start - 1)? != Some(id.0),
        _ => false,
    })
}

/// The number of a job's last event; -1 before the first, so that the next is 0, which means all.
fn last_event(connection: &Connection, id: JobId) -> Result<i64, StoreError> {
    connection
        .prepare_cached("SELECT coalesce(max(id), -1) FROM events WHERE job = ?1")
        .and_then(|mut select| select.query_row(params![id.0], |row| row.get(0)))
        .map_err(StoreError::of("find the last event of a job"))
}

/// Whether a job has ended; nothing when there is none.
fn is_over(connection: &Connection, id: JobId) -> Result<Option<bool>, StoreError> {
    connection
        .prepare_cached("SELECT finished IS NOT NULL FROM jobs WHERE id = ?1")
        .and_then(|mut select| select.query_row(params![id.0], |row| row.get(0)).optional())
        .map_err(StoreError::of("find a job"))
}

fn exists(connection: &Connection, id: JobId) -> Result<bool, StoreError> {
    connection
        .prepare_cached("SELECT 1 FROM jobs WHERE id = ?1")
        .and_then(|mut select| select.exists(params![id.0]))
        .map_err(StoreError::of("find a job"))
}

fn direction(order: Option<Order>) -> &'static str {
    match order.unwrap_or_default() {
        Order::Asc => "ASC",
        Order::Desc => "DESC",
    }
}
