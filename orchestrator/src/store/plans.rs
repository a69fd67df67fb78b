//! Plan jobs: what clients that run plans have told about them.

use orchestrator_api::{PlanEventType, PlanJobsQuery, PlanState, StateTime, Time};
use rusqlite::{Connection, Row, params};
use serde_json::Value;

use super::query::states;
use super::{Secret, Store, StoreError, row};
use crate::job::{JobId, PlanId};

/// A plan job to be stored.
#[derive(Debug)]
pub(crate) struct NewPlan {
    pub(crate) owner: String,
    pub(crate) plan_name: String,
    pub(crate) description: String,
    pub(crate) environment: Option<String>,
    /// Names of its parameters. Their values may be secrets.
    pub(crate) parameters: Vec<String>,
    /// Milliseconds since 1970.
    pub(crate) at: i64,
}

/// A plan job as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct StoredPlan {
    pub(crate) id: PlanId,
    pub(crate) state: PlanState,
    pub(crate) owner: String,
    pub(crate) plan_name: String,
    pub(crate) description: String,
    pub(crate) environment: Option<String>,
    pub(crate) parameters: Vec<String>,
    pub(crate) result: Secret<Option<Value>>,
    pub(crate) created: Time,
    pub(crate) finished: Option<Time>,
}

/// An event of a plan job as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct StoredPlanEvent {
    pub(crate) id: i64,
    pub(crate) event_type: PlanEventType,
    pub(crate) time: Time,
    pub(crate) job: Option<JobId>,
    pub(crate) message: String,
}

/// How the end of a plan job was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlanEnd {
    /// It is stored.
    Stored,
    /// It had ended before.
    Already,
    /// There is no such plan job.
    Unknown,
}

const COLUMNS: &str = "id, state, owner, plan_name, description, environment, parameters, result, \
                       created, finished";

impl Store {
    /// A client begins to run a plan.
    ///
    /// # Errors
    /// [`StoreError`]: nothing has been stored.
    pub(crate) async fn add_plan(&self, plan: NewPlan) -> Result<PlanId, StoreError> {
        self.write(move |connection| {
            let parameters = row::to_json(&plan.parameters, "a plan's parameters")?;
            connection
                .prepare_cached(
                    "INSERT INTO plan_jobs (state, owner, plan_name, description, environment, \
                     parameters, created) VALUES ('running', ?1, ?2, ?3, ?4, ?5, ?6)",
                )
                .and_then(|mut insert| {
                    insert.execute(params![
                        plan.owner,
                        plan.plan_name,
                        plan.description,
                        plan.environment,
                        parameters,
                        plan.at
                    ])
                })
                .map_err(StoreError::of("store a plan job"))?;
            let id = PlanId(connection.last_insert_rowid());
            let message = format!("Started plan {}", plan.plan_name);
            let event = (PlanEventType::PlanStart, None, message);
            insert_event(connection, id, plan.at, event)?;
            Ok(id)
        })
        .await
    }

    /// A plan has ended. Only the first end is stored.
    ///
    /// # Errors
    /// [`StoreError`]: nothing has been stored.
    pub(crate) async fn end_plan(
        &self,
        id: PlanId,
        state: PlanState,
        result: Secret<Value>,
        at: i64,
    ) -> Result<PlanEnd, StoreError> {
        self.write(move |connection| {
            let Some(plan) = plan(connection, id)? else {
                return Ok(PlanEnd::Unknown);
            };
            if plan.state != PlanState::Running {
                return Ok(PlanEnd::Already);
            }
            let result = row::to_json(&result, "a plan's result")?;
            connection
                .prepare_cached(
                    "UPDATE plan_jobs SET state = ?2, result = ?3, finished = ?4 WHERE id = ?1",
                )
                .and_then(|mut update| update.execute(params![id.0, state.text(), result, at]))
                .map_err(StoreError::of("store the end of a plan job"))?;
            let (event_type, phrase) = match state {
                PlanState::Failure => (PlanEventType::PlanFailed, "failed"),
                PlanState::Running | PlanState::Success => {
                    (PlanEventType::PlanFinished, "finished")
                }
            };
            let message = format!("Plan {} {phrase}", plan.plan_name);
            insert_event(connection, id, at, (event_type, None, message))?;
            Ok(PlanEnd::Stored)
        })
        .await
    }

    /// One plan job, and the states of its task jobs; nothing when there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub(crate) async fn plan(
        &self,
        id: PlanId,
    ) -> Result<Option<(StoredPlan, Vec<(JobId, Vec<StateTime>)>)>, StoreError> {
        self.read(move |connection| {
            let Some(plan) = plan(connection, id)? else {
                return Ok(None);
            };
            let jobs = task_jobs(connection, id)?;
            let jobs = jobs
                .into_iter()
                .map(|job| Ok((job, states(connection, job)?)))
                .collect::<Result<_, StoreError>>()?;
            Ok(Some((plan, jobs)))
        })
        .await
    }

    /// A page of plan jobs, the latest first, and how many there are on all pages.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub(crate) async fn plans(
        &self,
        query: PlanJobsQuery,
    ) -> Result<(Vec<StoredPlan>, u64), StoreError> {
        let error = || StoreError::of("read the plan jobs");
        self.read(move |connection| {
            let total: i64 = connection
                .prepare_cached("SELECT count(*) FROM plan_jobs")
                .and_then(|mut select| select.query_row((), |row| row.get(0)))
                .map_err(error())?;
            let mut select = connection
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM plan_jobs ORDER BY id DESC LIMIT ?1 OFFSET ?2"
                ))
                .map_err(error())?;
            let limit = row::limit(query.limit);
            let offset = row::offset(query.offset);
            let mut rows = select.query(params![limit, offset]).map_err(error())?;
            let mut plans = vec![];
            while let Some(row) = rows.next().map_err(error())? {
                plans.push(stored_plan(row)?);
            }
            Ok((plans, row::count(total)))
        })
        .await
    }

    /// The events of a plan job from a number on; nothing when there is no such plan job.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub(crate) async fn plan_events(
        &self,
        id: PlanId,
        start: i64,
    ) -> Result<Option<Vec<StoredPlanEvent>>, StoreError> {
        let error = || StoreError::of("read the events of a plan job");
        self.read(move |connection| {
            if plan(connection, id)?.is_none() {
                return Ok(None);
            }
            let mut select = connection
                .prepare_cached(
                    "SELECT id, type, time, job, message FROM plan_events \
                     WHERE plan = ?1 AND id >= ?2 ORDER BY id",
                )
                .map_err(error())?;
            let mut rows = select.query(params![id.0, start]).map_err(error())?;
            let mut events = vec![];
            while let Some(row) = rows.next().map_err(error())? {
                events.push(StoredPlanEvent {
                    id: row.get(0).map_err(error())?,
                    event_type: row::word(row.get(1).map_err(error())?, "an event's type")?,
                    time: Time::from_millis(row.get(2).map_err(error())?),
                    job: row.get::<_, Option<i64>>(3).map_err(error())?.map(JobId),
                    message: row.get(4).map_err(error())?,
                });
            }
            Ok(Some(events))
        })
        .await
    }
}

type NewEvent = (PlanEventType, Option<JobId>, String);

pub(super) fn insert_event(
    connection: &Connection,
    plan: PlanId,
    at: i64,
    (event_type, job, message): NewEvent,
) -> Result<(), StoreError> {
    let event_type = row::to_word(&event_type, "an event's type")?;
    connection
        .prepare_cached(
            "INSERT INTO plan_events (plan, type, time, job, message) VALUES (?1, ?2, ?3, ?4, ?5)",
        )
        .and_then(|mut insert| {
            insert.execute(params![
                plan.0,
                event_type,
                at,
                job.map(|job| job.0),
                message
            ])
        })
        .map(drop)
        .map_err(StoreError::of("store an event of a plan job"))
}

fn task_jobs(connection: &Connection, plan: PlanId) -> Result<Vec<JobId>, StoreError> {
    let error = || StoreError::of("read the jobs of a plan job");
    connection
        .prepare_cached("SELECT id FROM jobs WHERE plan_job = ?1 ORDER BY id")
        .and_then(|mut select| {
            let rows = select.query_map(params![plan.0], |row| row.get(0).map(JobId))?;
            rows.collect()
        })
        .map_err(error())
}

fn plan(connection: &Connection, id: PlanId) -> Result<Option<StoredPlan>, StoreError> {
    let error = || StoreError::of("read a plan job");
    let mut select = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM plan_jobs WHERE id = ?1"))
        .map_err(error())?;
    let mut rows = select.query(params![id.0]).map_err(error())?;
    match rows.next().map_err(error())? {
        Some(row) => stored_plan(row).map(Some),
        None => Ok(None),
    }
}

fn stored_plan(row: &Row<'_>) -> Result<StoredPlan, StoreError> {
    let error = || StoreError::of("read a plan job");
    let parameters: String = row.get(6).map_err(error())?;
    let result: Option<String> = row.get(7).map_err(error())?;
    Ok(StoredPlan {
        id: PlanId(row.get(0).map_err(error())?),
        state: row::word(row.get(1).map_err(error())?, "a plan job's state")?,
        owner: row.get(2).map_err(error())?,
        plan_name: row.get(3).map_err(error())?,
        description: row.get(4).map_err(error())?,
        environment: row.get(5).map_err(error())?,
        parameters: row::json(&parameters, "a plan's parameters")?,
        result: Secret(
            result
                .map(|text| row::json(&text, "a plan's result"))
                .transpose()?,
        ),
        created: Time::from_millis(row.get(8).map_err(error())?),
        finished: row::time(row.get(9).map_err(error())?),
    })
}
