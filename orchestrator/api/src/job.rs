//! Jobs as the API shows them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Link;
use crate::command::Scope;
use crate::deploy::DeployOptions;
use crate::node::NodeState;
use crate::order::Order;
use crate::time::Time;

/// Where a job stands.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Stored, nothing done yet.
    New,
    /// Its nodes are known and wait for their turn.
    Ready,
    /// At least one node has been started.
    Running,
    /// Asked to stop; nodes that run are waited for.
    Stopping,
    /// Ended after it was asked to stop.
    Stopped,
    /// Ended; every node succeeded.
    Finished,
    /// Ended; at least one node did not succeed.
    Failed,
}

impl JobState {
    /// Whether the job has ended.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Stopped | Self::Finished | Self::Failed)
    }

    /// The state as it stands in answers.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Finished => "finished",
            Self::Failed => "failed",
        }
    }
}

/// By which command a job was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobCommand {
    /// A Puppet run.
    Deploy,
    /// A task.
    Task,
    /// A task of a plan.
    PlanTask,
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobType {
    /// A Puppet run.
    Deploy,
    /// A task.
    Task,
    /// A task of a plan.
    PlanTask,
    /// A script of a plan.
    PlanScript,
    /// An upload of a plan.
    PlanUpload,
    /// A command of a plan.
    PlanCommand,
    /// A wait of a plan.
    PlanWait,
    /// An apply block of a plan.
    PlanApply,
    /// The preparation of an apply block.
    PlanApplyPrep,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    /// The job's URL.
    pub id: String,
    /// The job's number, as text.
    pub name: String,
    /// Where it stands.
    pub state: JobState,
    /// By which command it was started.
    pub command: JobCommand,
    /// What it does.
    #[serde(rename = "type")]
    pub job_type: JobType,
    /// The request as it was understood; sensitive parameters are redacted.
    pub options: JobOptions,
    /// Who started it.
    pub owner: Owner,
    /// What the caller said it is for.
    pub description: String,
    /// When its state last changed.
    pub timestamp: Time,
    /// When it was accepted.
    pub created_timestamp: Time,
    /// When the first node was started.
    pub started_timestamp: Option<Time>,
    /// When it ended.
    pub finished_timestamp: Option<Time>,
    /// Seconds from start to end, as text (`"256.0"`); none until it has ended.
    pub duration: Option<String>,
    /// How many nodes it has.
    pub node_count: u64,
    /// How many nodes are in which state; states without nodes are left out.
    pub node_states: Option<BTreeMap<NodeState, u64>>,
    /// Where its nodes are.
    pub nodes: Link,
    /// Where its report is.
    pub report: Link,
    /// Where its events are.
    pub events: Link,
    /// The environment that its code comes from.
    pub environment: EnvironmentName,
    /// What the caller wanted to find again.
    pub userdata: Map<String, Value>,
    /// The states it has been in. Only when one job is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Vec<StateTime>>,
}

/// From when to when a job was in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StateTime {
    /// The state.
    pub state: JobState,
    /// When it was entered.
    pub enter_time: Time,
    /// When it was left; none for the present one.
    pub exit_time: Option<Time>,
}

/// An environment by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnvironmentName {
    /// The name.
    pub name: String,
}

/// The options of a job, by what it does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum JobOptions {
    /// It runs a task.
    Task(TaskOptions),
    /// It runs Puppet.
    Deploy(DeployOptions),
}

impl JobOptions {
    /// What the caller said it is for.
    #[must_use]
    pub fn description(&self) -> &str {
        match self {
            Self::Task(task) => &task.description,
            Self::Deploy(deploy) => &deploy.description,
        }
    }

    /// Whether it only looks.
    #[must_use]
    pub fn noop(&self) -> bool {
        match self {
            Self::Task(task) => task.noop,
            Self::Deploy(deploy) => deploy.flags.noop == Some(true),
        }
    }

    /// The environment's name; empty for a Puppet run where each node has its own.
    #[must_use]
    pub fn environment(&self) -> &str {
        match self {
            Self::Task(task) => &task.environment,
            Self::Deploy(deploy) => &deploy.environment,
        }
    }

    /// The task's full name, when it runs one.
    #[must_use]
    pub fn task(&self) -> Option<&str> {
        match self {
            Self::Task(task) => Some(&task.task),
            Self::Deploy(_) => None,
        }
    }

    /// What was decided for the caller: nodes that were left out because they are not permitted.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        match self {
            Self::Task(task) => &task.notes,
            Self::Deploy(deploy) => &deploy.notes,
        }
    }

    /// Where it runs.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        match self {
            Self::Task(task) => &task.scope,
            Self::Deploy(deploy) => &deploy.scope,
        }
    }
}

/// The options of a job that runs a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskOptions {
    /// What the caller said it is for.
    pub description: String,
    /// The plan job that it belongs to.
    pub plan_job: Option<String>,
    /// Whether it only looks.
    pub noop: bool,
    /// The task's full name.
    pub task: String,
    /// Names of the sensitive parameters, whose values stand nowhere in the job.
    pub sensitive: Vec<String>,
    /// The schedule that it was started by.
    #[serde(rename = "scheduled-job-id")]
    pub scheduled_job_id: Option<String>,
    /// The other parameters.
    pub params: Map<String, Value>,
    /// Where it runs.
    pub scope: Scope,
    /// The environment that the task comes from.
    pub environment: String,
    /// How many of the nodes may run it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u64>,
    /// How many seconds the task may take on each node.
    pub timeout: Option<u64>,
    /// What was decided for the caller: nodes that were left out because they are not permitted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The number of the job that it runs once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun_of: Option<String>,
}

/// Who started a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Owner {
    /// The user's id.
    pub id: String,
    /// The name that the user logs in with.
    pub login: String,
    /// An address, when known.
    pub email: String,
    /// The name to show.
    pub display_name: String,
    /// Whether the user has been revoked.
    pub is_revoked: bool,
    /// When the user last logged in.
    pub last_login: Option<Time>,
    /// Whether the user comes from a directory service.
    pub is_remote: bool,
    /// Whether the user may do everything.
    pub is_superuser: bool,
    /// Whether it is a group.
    pub is_group: bool,
    /// The user's own roles.
    pub role_ids: Vec<u64>,
    /// Roles from groups.
    pub inherited_role_ids: Vec<u64>,
    /// The user's groups.
    pub group_ids: Vec<String>,
}

/// `GET jobs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Jobs {
    /// The jobs of this page.
    pub items: Vec<Job>,
    /// Which page it is.
    pub pagination: Pagination,
}

/// Which page of how many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pagination {
    /// The most items of a page; none: all.
    pub limit: Option<u64>,
    /// How many items were passed over.
    pub offset: u64,
    /// In which direction they are ordered.
    pub order: Order,
    /// By what they are ordered.
    pub order_by: JobOrder,
    /// How many items there are on all pages together.
    pub total: u64,
    /// The type that was asked for.
    #[serde(rename = "type")]
    pub job_type: Option<JobType>,
}

/// The query of `GET jobs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobsQuery {
    /// The most jobs of the answer; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// How many jobs to pass over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// By what to order; the time when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_by: Option<JobOrder>,
    /// In which direction; ascending when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// Only jobs of this type.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub job_type: Option<JobType>,
    /// Only jobs whose task has this in its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Only jobs that ended at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_finish_timestamp: Option<Time>,
    /// Only jobs that ended at this time or earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_finish_timestamp: Option<Time>,
}

/// By what jobs are ordered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobOrder {
    /// The login of who started it.
    Owner,
    /// When it was accepted.
    #[default]
    Timestamp,
    /// The environment's name.
    Environment,
    /// The job's number.
    Name,
    /// The state's name.
    State,
}
