//! From a request to a job: everything that must be right before anything is stored or sent.

use orchestrator_api::{
    ApiError, DEFAULT_ENVIRONMENT, ErrorKind, JobOptions, JobType, TaskOptions, TaskRequest,
};
use pcp::uri::Certname;
use pxp::{
    Extensions, FileUri, Implementation, Input, JsonObject, TaskFile, TaskMetadata, TaskRun, Wishes,
};
use serde_json::{Map, Value};
use task_data::{InputMethod, ParameterFault, Task};
use uuid::Uuid;

use crate::grant::NodeFilter;
use crate::job::{JobId, PlanId};
use crate::store::{FileRef, NewJob, NewNode};

/// The longest description, in bytes: a sentence, not a document.
const MAX_DESCRIPTION: usize = 4096;

/// How many nodes that are left out are named.
const NAMED: usize = 20;

/// A job that may be stored, and what its agents are to be sent.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) job: NewJob,
    pub(crate) request: JsonObject,
}

/// Who asks, and as a part of what.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) owner: String,
    /// The plan job that it belongs to.
    pub(crate) plan_job: Option<PlanId>,
    /// The job that it runs once more.
    pub(crate) rerun_of: Option<JobId>,
}

impl Origin {
    /// A request of its own.
    pub(crate) fn by(owner: impl Into<String>) -> Self {
        Self {
            owner: owner.into(),
            plan_job: None,
            rerun_of: None,
        }
    }
}

/// Checks a request against the task; `nodes` are those of its scope. Those that `permitted` does not
/// allow are left out, which is noted in the job. `time_limit` is the one that holds when the request
/// has none,
/// in seconds; `at` the present in milliseconds since 1970.
///
/// # Errors
/// The answer to the caller.
pub(crate) fn prepare(
    request: TaskRequest,
    mut nodes: Vec<Certname>,
    task: &Task,
    origin: &Origin,
    permitted: &NodeFilter,
    time_limit: u64,
    at: i64,
) -> Result<Prepared, ApiError> {
    let invalid = |msg: &str| ApiError::new(ErrorKind::ValidationError, msg);
    if request.targets.is_some() {
        return Err(invalid(
            "targets without an agent are not supported; use a scope of nodes",
        ));
    }
    let description = description(request.description)?;
    let environment = request
        .environment
        .unwrap_or_else(|| DEFAULT_ENVIRONMENT.to_owned());
    if request.timeout == Some(0) {
        return Err(invalid("the timeout is zero"));
    }
    if request.concurrency == Some(0) {
        return Err(invalid("the concurrency is zero"));
    }
    let noop = request.noop.unwrap_or_default();
    let name = task.name.to_string();
    if noop && !task.supports_noop() {
        let msg = format!("Task {name} does not support noop");
        return Err(ApiError::new(ErrorKind::ValidationError, msg).with("task", name));
    }
    if let Some(reserved) = request.params.keys().find(|name| name.starts_with('_')) {
        let msg = format!(
            "parameter '{reserved}' is reserved: names that begin with '_' are not the caller's"
        );
        return Err(
            ApiError::new(ErrorKind::ValidationError, msg).with("parameter", reserved.as_str())
        );
    }
    let notes = leave_out(permitted, &mut nodes, &origin.owner, &name)?;
    let mut params = task
        .check_parameters(&request.params)
        .map_err(|faults| parameter_error(&name, &faults))?;
    let time_limit = request.timeout.unwrap_or(time_limit);
    let run = task_run(task, &params, noop, time_limit)
        .and_then(|run| JsonObject::of(&run).ok())
        .ok_or_else(|| invalid("the parameters cannot be written as JSON"))?;
    let sensitive = take_sensitive(task, &mut params);
    let stored = sensitive.is_empty().then(|| run.clone());
    let files = task
        .files
        .iter()
        .map(|file| FileRef {
            sha256: file.sha256.clone(),
            path: file.path.clone(),
        })
        .collect();
    let job_type = match origin.plan_job {
        Some(_) => JobType::PlanTask,
        None => JobType::Task,
    };
    let job = NewJob {
        job_type,
        owner: origin.owner.clone(),
        options: JobOptions::Task(TaskOptions {
            description,
            plan_job: origin.plan_job.map(|plan| plan.to_string()),
            noop,
            task: name,
            sensitive,
            scheduled_job_id: None,
            params,
            scope: request.scope,
            environment,
            concurrency: request.concurrency,
            timeout: request.timeout,
            notes,
            rerun_of: origin.rerun_of.map(|job| job.to_string()),
        }),
        userdata: request.userdata.unwrap_or_default(),
        request: stored,
        files,
        time_limit,
        nodes: transactions(nodes),
        concurrency: request.concurrency,
        plan_job: origin.plan_job,
        at,
    };
    Ok(Prepared { job, request: run })
}

/// A transaction for each node, which is bound to it for ever.
pub(crate) fn transactions(nodes: Vec<Certname>) -> Vec<NewNode> {
    nodes
        .into_iter()
        .filter_map(|certname| {
            // A UUID always is a transaction id.
            let transaction = Uuid::now_v7().to_string().parse().ok()?;
            Some(NewNode {
                certname,
                transaction,
            })
        })
        .collect()
}

/// A sentence, or none.
pub(crate) fn description(given: Option<String>) -> Result<String, ApiError> {
    let description = given.unwrap_or_default();
    if description.len() > MAX_DESCRIPTION {
        let msg = "the description is longer than 4096 bytes";
        return Err(ApiError::new(ErrorKind::ValidationError, msg));
    }
    Ok(description)
}

/// Leaves out the nodes on which the caller may not do `what`, and says so.
///
/// # Errors
/// When none are left.
pub(crate) fn leave_out(
    permitted: &NodeFilter,
    nodes: &mut Vec<Certname>,
    login: &str,
    what: &str,
) -> Result<Vec<String>, ApiError> {
    let left_out = permitted.take_out(nodes);
    if left_out.is_empty() {
        return Ok(Vec::new());
    }
    let count = left_out.len();
    let mut names: Vec<String> = left_out
        .iter()
        .take(NAMED)
        .map(ToString::to_string)
        .collect();
    if nodes.is_empty() {
        let msg = format!("{login} may not run {what} on any of these nodes");
        let error = ApiError::new(ErrorKind::NotPermitted, msg);
        return Err(error.with("login", login).with("nodes", names));
    }
    if count > NAMED {
        names.push(format!("and {} more", count - NAMED));
    }
    let nodes = if count == 1 { "node is" } else { "nodes are" };
    let names = names.join(", ");
    let note = format!("{count} {nodes} left out, where {login} may not run {what}: {names}");
    tracing::warn!(login, what, count, "nodes left out that are not permitted");
    Ok(vec![note])
}

/// Takes the values of sensitive parameters out; gives their names.
fn take_sensitive(task: &Task, params: &mut Map<String, Value>) -> Vec<String> {
    task.sensitive()
        .into_iter()
        .filter(|name| params.remove(*name).is_some())
        .map(str::to_owned)
        .collect()
}

fn parameter_error(task: &str, faults: &[ParameterFault]) -> ApiError {
    let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let msg = format!("Invalid parameters for task {task}: {}", texts.join("; "));
    let faults: Vec<Value> = faults
        .iter()
        .map(|fault| {
            serde_json::json!({"parameter": fault.parameter, "problem": fault.problem.to_string()})
        })
        .collect();
    ApiError::new(ErrorKind::ValidationError, msg)
        .with("task", task)
        .with("parameters", faults)
}

/// What agents are sent.
fn task_run(
    task: &Task,
    params: &Map<String, Value>,
    noop: bool,
    time_limit: u64,
) -> Option<TaskRun> {
    let mut input = Input::default();
    for (name, value) in params {
        input.set(name, value).ok()?;
    }
    if noop {
        input.set("_noop", &true).ok()?;
    }
    let metadata = &task.metadata;
    let files = task
        .files
        .iter()
        .map(|file| TaskFile {
            filename: file.filename.clone(),
            sha256: file.sha256.clone(),
            size_bytes: Some(file.size_bytes),
            uri: FileUri {
                path: file.uri.path.clone(),
                params: file.uri.params.clone(),
            },
        })
        .collect();
    let implementations = metadata.implementations.as_ref().map(|list| {
        list.iter()
            .map(|implementation| Implementation {
                name: implementation.name.clone(),
                requirements: Some(implementation.requirements.clone()),
                files: Some(implementation.files.clone()),
                input_method: method(implementation.input_method),
            })
            .collect()
    });
    Some(TaskRun {
        task: task.name.to_string(),
        files,
        input,
        input_method: None,
        metadata: Some(TaskMetadata {
            input_method: method(metadata.input_method),
            implementations,
            files: Some(metadata.files.clone()),
            features: None,
            supports_noop: Some(metadata.supports_noop),
            extensions: Some(Extensions {
                pxp_mesh: Some(Wishes {
                    time_limit: Some(time_limit),
                    ..Wishes::default()
                }),
            }),
        }),
        features: None,
        // Agents of the version before know this place only.
        timeout: Some(time_limit),
    })
}

fn method(method: Option<InputMethod>) -> Option<String> {
    method.map(|method| method.to_string())
}
