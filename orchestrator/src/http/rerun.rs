//! `command/rerun`: an ended job once more, on all of its nodes or on those that did not end well. It
//! becomes a new job, checked as if it were asked for anew: the task may have changed since.

use axum::Extension;
use axum::extract::State;
use orchestrator_api::{
    ApiError, DeployOptions, DeployRequest, ErrorKind, JobAccepted, JobOptions, RerunOnly,
    RerunRequest, Scope, TaskOptions, TaskRequest,
};
use serde_json::{Map, Value};

use super::Api;
use super::answer::Fallible;
use super::command::{run_puppet, run_task};
use super::request::{Base, Body};
use super::request::{job_id, unknown_job};
use crate::auth::Caller;
use crate::grant::Action;
use crate::submission::Origin;

/// `POST command/rerun`.
pub(super) async fn rerun(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    base: Base,
    Body(request): Body<RerunRequest>,
) -> Fallible<JobAccepted> {
    let name = request.job.as_str();
    let id = job_id(name)?;
    let job = api.store.job(id).await?;
    let (job, _) = job.ok_or_else(|| unknown_job(name))?;
    if job.owner != caller.login {
        api.access.require(&caller, Action::View).await?;
    }
    if !job.state.is_final() {
        let msg = format!("job {name} has not ended; stop it, or wait for its end");
        return Err(ApiError::new(ErrorKind::ValidationError, msg)
            .with("job", name)
            .into());
    }
    let only_failed = request.only == Some(RerunOnly::Failed);
    let nodes = api.store.node_names(id, only_failed).await?;
    if nodes.is_empty() {
        let msg = format!("every node of job {name} has ended well");
        return Err(ApiError::new(ErrorKind::EmptyTarget, msg)
            .with("job", name)
            .into());
    }
    let scope = Scope::Nodes(nodes);
    let origin = Origin {
        rerun_of: Some(id),
        ..Origin::by(caller.login.as_str())
    };
    let userdata = Some(job.userdata).filter(|userdata| !userdata.is_empty());
    match job.options {
        JobOptions::Task(options) => {
            let task = task(options, request, scope, userdata)?;
            run_task(&api, &caller, &base, task, origin).await
        }
        JobOptions::Deploy(options) => {
            let deploy = deploy(options, request, scope, userdata)?;
            run_puppet(&api, &caller, &base, deploy, origin).await
        }
    }
}

fn task(
    options: TaskOptions,
    request: RerunRequest,
    scope: Scope,
    userdata: Option<Map<String, Value>>,
) -> Result<TaskRequest, ApiError> {
    let missing: Vec<&str> = options
        .sensitive
        .iter()
        .filter(|name| !request.params.contains_key(*name))
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        let names = missing.join(", ");
        let msg =
            format!("sensitive parameters are not stored; give them again in params: {names}");
        return Err(ApiError::new(ErrorKind::ValidationError, msg).with("parameters", missing));
    }
    let mut params = options.params;
    params.extend(request.params);
    Ok(TaskRequest {
        task: options.task,
        params,
        scope,
        environment: Some(options.environment),
        description: Some(request.description.unwrap_or(options.description)),
        noop: Some(options.noop),
        concurrency: options.concurrency,
        timeout: options.timeout,
        userdata,
        targets: None,
        plan_job: None,
    })
}

fn deploy(
    options: DeployOptions,
    request: RerunRequest,
    scope: Scope,
    userdata: Option<Map<String, Value>>,
) -> Result<DeployRequest, ApiError> {
    if let Some(name) = request.params.keys().next() {
        let msg = "a Puppet run has no parameters";
        return Err(ApiError::new(ErrorKind::ValidationError, msg).with("parameter", name.as_str()));
    }
    Ok(DeployRequest {
        environment: Some(options.environment),
        scope: Some(scope),
        concurrency: options.concurrency,
        description: Some(request.description.unwrap_or(options.description)),
        enforce_environment: Some(options.enforce_environment),
        timeout: options.timeout,
        userdata,
        target: None,
        flags: options.flags,
    })
}
