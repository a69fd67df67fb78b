//! The orchestrator API v1 as values: paths, request bodies, answers and error kinds, shared by the
//! server and its clients. Nothing here does IO or reads a clock.
//!
//! In request bodies a key with the value null means the same as no key. Certnames are plain text
//! here: the server parses them at its edge.

mod command;
mod deploy;
mod error;
mod event;
mod index;
mod inventory;
mod job;
mod node;
pub mod openapi;
mod order;
mod output;
pub mod path;
mod plan;
pub mod rbac;
mod status;
mod task;
mod task_target;
mod time;
mod usage;

pub use command::{
    JobAccepted, JobReference, NodeCounts, RerunOnly, RerunRequest, Scope, ScopeError,
    StopAccepted, StopRequest, StoppedJob, TaskRequest,
};
pub use deploy::{DeployOptions, DeployRequest, RunFlags, Setting, UnknownKey, Words};
pub use error::{ApiError, ErrorKind};
pub use event::{Event, EventDetails, EventType, Events, EventsQuery, NextEvents};
pub use index::{Collection, Command, Index};
pub use inventory::{Inventory, InventoryItem, InventoryQuery};
pub use job::{
    EnvironmentName, Job, JobCommand, JobOptions, JobOrder, JobState, JobType, Jobs, JobsQuery,
    Owner, Pagination, StateTime, TaskOptions,
};
pub use node::{
    Node, NodeOrder, NodeState, Nodes, NodesQuery, Report, ReportItem, SensitiveResults,
};
pub use order::Order;
pub use output::{NodeOutput, OutputQuery, OutputStream};
pub use plan::{
    PlanEvent, PlanEventDetails, PlanEventType, PlanEvents, PlanFinishRequest, PlanJob, PlanJobs,
    PlanJobsQuery, PlanOptions, PlanPagination, PlanResults, PlanStartRequest, PlanStarted,
    PlanState,
};
pub use status::{Detail, ServiceState, ServiceStatus, Services, StatusQuery};
pub use task::{Environment, EnvironmentQuery, FileUri, TaskDetail, TaskFile, TaskItem, TaskList};
pub use task_target::{
    TaskTarget, TaskTargetCreated, TaskTargetReference, TaskTargetRequest, TaskTargets,
};
pub use time::{Date, Time, TimeError};
pub use usage::{Usage, UsageDay, UsageEvents, UsagePagination, UsageQuery};

/// The environment that is meant when a request names none.
pub const DEFAULT_ENVIRONMENT: &str = "production";

/// The header that carries the token.
pub const TOKEN_HEADER: &str = "X-Authentication";

/// A reference to another resource by its URL.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Link {
    /// The resource's URL.
    pub id: String,
}
