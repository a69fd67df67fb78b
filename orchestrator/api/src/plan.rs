//! Plan jobs: plans that a client, such as Bolt, runs itself. It tells when it begins and when it
//! ends, and starts the plan's tasks as jobs in between.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Link;
use crate::command::null_is_default;
use crate::job::Owner;
use crate::time::Time;

/// `POST command/plan_start`.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanStartRequest {
    /// The plan's full name.
    pub plan_name: String,
    /// What the caller says it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The plan's parameters. Nothing here knows which of them are secrets, so that only their names
    /// are kept, and `Debug` shows none.
    #[serde(default, deserialize_with = "null_is_default")]
    pub params: Map<String, Value>,
    /// The environment that the plan comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
}

/// Parameters may be secrets.
impl std::fmt::Debug for PlanStartRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlanStartRequest")
            .field("plan_name", &self.plan_name)
            .field("params", &"[redacted]")
            .finish_non_exhaustive()
    }
}

/// The plan job has begun, or has been found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanStarted {
    /// The plan job's number, as text.
    pub name: String,
}

/// `POST command/plan_finish`.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanFinishRequest {
    /// The plan job's number, as text.
    pub plan_job: String,
    /// What the plan gave back.
    #[serde(default)]
    pub result: Value,
    /// Whether it ended well: `success` or `failure`.
    pub status: PlanState,
}

/// Results may be secrets.
impl std::fmt::Debug for PlanFinishRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlanFinishRequest")
            .field("plan_job", &self.plan_job)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// Where a plan job stands.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum PlanState {
    /// The client runs it.
    Running,
    /// It ended well.
    Success,
    /// It did not.
    Failure,
}

impl PlanState {
    /// The state as it stands in answers.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// One plan job.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanJob {
    /// The plan job's URL.
    pub id: String,
    /// The plan job's number, as text.
    pub name: String,
    /// Where it stands.
    pub state: PlanState,
    /// The request as it was understood.
    pub options: PlanOptions,
    /// What the plan gave back; none until it has ended, or when results are left out.
    pub result: Option<Value>,
    /// Who started it.
    pub owner: Owner,
    /// When it began.
    pub created_timestamp: Time,
    /// When it ended.
    pub finished_timestamp: Option<Time>,
    /// Seconds, as a number: from start to end, or so far.
    pub duration: f64,
    /// Where its events are.
    pub events: Link,
    /// The states of its task jobs, by the number of the job.
    pub status: BTreeMap<String, Vec<Value>>,
    /// What the caller wanted to find again.
    pub userdata: Map<String, Value>,
}

/// Results may be secrets.
impl std::fmt::Debug for PlanJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlanJob")
            .field("name", &self.name)
            .field("state", &self.state)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The options of a plan job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanOptions {
    /// What the caller said it is for.
    pub description: String,
    /// The plan's full name.
    pub plan_name: String,
    /// Values of parameters: always empty, since nothing here knows which of them are secrets.
    pub parameters: Map<String, Value>,
    /// Names of the parameters whose values are not kept.
    pub sensitive: Vec<String>,
    /// The schedule that it was started by.
    pub scheduled_job_id: Option<String>,
    /// The environment that the plan comes from.
    pub environment: Option<String>,
    /// The project that the plan comes from.
    pub project: Option<Value>,
}

/// `GET plan_jobs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanJobs {
    /// The plan jobs of this page, the latest first.
    pub items: Vec<PlanJob>,
    /// Which page it is.
    pub pagination: PlanPagination,
}

/// Which page of how many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanPagination {
    /// The most items of a page; none: all.
    pub limit: Option<u64>,
    /// How many items were passed over.
    pub offset: u64,
    /// How many items there are on all pages together.
    pub total: u64,
}

/// The query of `GET plan_jobs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanJobsQuery {
    /// The most plan jobs of the answer; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// How many plan jobs to pass over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Whether results are shown; yes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<PlanResults>,
}

/// Whether results are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PlanResults {
    /// They are.
    #[default]
    Include,
    /// They are not.
    Exclude,
}

/// What happened in a plan job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlanEventType {
    /// The plan began.
    PlanStart,
    /// One of its tasks was started.
    TaskStart,
    /// Last: it ended well.
    PlanFinished,
    /// Last: it did not.
    PlanFailed,
}

/// One event of a plan job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanEvent {
    /// The event's number, as text.
    pub id: String,
    /// What happened.
    #[serde(rename = "type")]
    pub event_type: PlanEventType,
    /// When.
    pub timestamp: Time,
    /// More.
    pub details: PlanEventDetails,
    /// A sentence for people.
    pub message: String,
}

/// What an event of a plan job is about.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanEventDetails {
    /// The number of the task job.
    #[serde(rename = "job-id", default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
}

/// `GET plan_jobs/:id/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanEvents {
    /// Where the events after these are.
    #[serde(rename = "next-events")]
    pub next_events: crate::event::NextEvents,
    /// The events, oldest first.
    pub items: Vec<PlanEvent>,
}
