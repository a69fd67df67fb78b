//! Where the endpoints are. Client and server build their URLs from these.

/// What every path of the API begins with.
pub const BASE: &str = "/orchestrator/v1";
/// `POST`: run a task.
pub const COMMAND_TASK: &str = "/orchestrator/v1/command/task";
/// `POST`: stop a job.
pub const COMMAND_STOP: &str = "/orchestrator/v1/command/stop";
/// `POST`: run Puppet.
pub const COMMAND_DEPLOY: &str = "/orchestrator/v1/command/deploy";
/// `POST`: run an ended job once more.
pub const COMMAND_RERUN: &str = "/orchestrator/v1/command/rerun";
/// `POST`: a client begins to run a plan.
pub const COMMAND_PLAN_START: &str = "/orchestrator/v1/command/plan_start";
/// `POST`: run a task as a part of a plan.
pub const COMMAND_PLAN_TASK: &str = "/orchestrator/v1/command/plan_task";
/// `POST`: the client's plan has ended.
pub const COMMAND_PLAN_FINISH: &str = "/orchestrator/v1/command/plan_finish";
/// `POST`: let some tasks on some nodes be granted under one number.
pub const COMMAND_TASK_TARGET: &str = "/orchestrator/v1/command/task_target";
/// `GET`: such grants.
pub const TASK_TARGETS: &str = "/orchestrator/v1/scopes/task_targets";
/// `GET`: plans that clients run or have run.
pub const PLAN_JOBS: &str = "/orchestrator/v1/plan_jobs";
/// `GET`: jobs.
pub const JOBS: &str = "/orchestrator/v1/jobs";
/// `GET`: how much is done, by day.
pub const USAGE: &str = "/orchestrator/v1/usage";
/// `GET`: tasks of an environment.
pub const TASKS: &str = "/orchestrator/v1/tasks";
/// `GET`, `POST`: which nodes are connected.
pub const INVENTORY: &str = "/orchestrator/v1/inventory";
/// Everything that the original's RBAC service has.
pub const RBAC: &str = "/rbac-api";
/// Where a password is exchanged for a token.
pub const AUTH_TOKEN: &str = "/rbac-api/v1/auth/token";
/// Where the token that is shown is revoked.
pub const REVOKE_TOKEN: &str = "/rbac-api/v1/auth/token/revoke";
/// Who the caller is.
pub const CURRENT_USER: &str = "/rbac-api/v1/users/current";
/// `GET`: the state of all services of this process. Needs no token.
pub const STATUS_SERVICES: &str = "/status/v1/services";
/// `GET`: the state as one word. Needs no token.
pub const STATUS_SIMPLE: &str = "/status/v1/simple";
/// The name of the orchestrator among the services.
pub const SERVICE: &str = "orchestrator-service";

/// One job, by its number.
#[must_use]
pub fn job(name: &str) -> String {
    format!("{JOBS}/{name}")
}

/// A job's nodes.
#[must_use]
pub fn job_nodes(name: &str) -> String {
    format!("{JOBS}/{name}/nodes")
}

/// A job's events.
#[must_use]
pub fn job_events(name: &str) -> String {
    format!("{JOBS}/{name}/events")
}

/// A job's report.
#[must_use]
pub fn job_report(name: &str) -> String {
    format!("{JOBS}/{name}/report")
}

/// What a task writes on one node of a job.
#[must_use]
pub fn job_output(name: &str, certname: &str) -> String {
    format!("{JOBS}/{name}/nodes/{certname}/output")
}

/// One task target, by its number.
#[must_use]
pub fn task_target(name: &str) -> String {
    format!("{TASK_TARGETS}/{name}")
}

/// One plan job, by its number.
#[must_use]
pub fn plan_job(name: &str) -> String {
    format!("{PLAN_JOBS}/{name}")
}

/// A plan job's events.
#[must_use]
pub fn plan_job_events(name: &str) -> String {
    format!("{PLAN_JOBS}/{name}/events")
}

/// One event of a plan job.
#[must_use]
pub fn plan_job_event(name: &str, event: &str) -> String {
    format!("{PLAN_JOBS}/{name}/event/{event}")
}

/// One task, by its full name: `module::task`, or `module` for the module's task `init`.
#[must_use]
pub fn task(name: &str) -> String {
    let (module, task) = name.split_once("::").unwrap_or((name, "init"));
    format!("{TASKS}/{module}/{task}")
}

/// One node of the inventory.
#[must_use]
pub fn inventory_node(certname: &str) -> String {
    format!("{INVENTORY}/{certname}")
}
