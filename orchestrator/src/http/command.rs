//! `command/…`: the calls that do something.

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::State;
use orchestrator_api::{
    ApiError, DEFAULT_ENVIRONMENT, ErrorKind, JobAccepted, JobReference, NodeCounts, NodeState,
    StopAccepted, StopRequest, StoppedJob, TaskRequest, path,
};
use pcp::uri::Certname;
use task_data::TaskName;
use tokio::sync::oneshot;

use super::Api;
use super::answer::{Answer, Failure, Fallible};
use super::jobs::{job_id, unknown_job};
use super::request::{Base, Body};
use crate::auth::Caller;
use crate::auth::grant::Action;
use crate::controller::Submission;
use crate::dispatch::{DispatchHandle, NoAnswer};
use crate::job::{JobId, Stop};
use crate::library::Library;
use crate::scope;
use crate::store::Store;
use crate::submission::{self, Prepared};

/// `POST command/task`.
pub(super) async fn task(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    base: Base,
    Body(request): Body<TaskRequest>,
) -> Fallible<JobAccepted> {
    let environment = request
        .environment
        .clone()
        .unwrap_or_else(|| DEFAULT_ENVIRONMENT.to_owned());
    let name: TaskName = request.task.parse().map_err(|error| {
        let msg = format!("Invalid task name '{}': {error}", request.task);
        ApiError::new(ErrorKind::ValidationError, msg).with("task", request.task.as_str())
    })?;
    let permitted = api
        .access
        .nodes(&caller, Action::RunTask, Some(&name.to_string()))
        .await?;
    api.code.check_environment(&environment).await?;
    let nodes = scope::resolve(&request.scope, &api.estate, connected(&api)).await?;
    let task = api.code.task_to_run(&environment, name).await?;
    let timeout = api.settings.task_node_timeout;
    let prepared = submission::prepare(
        request,
        nodes,
        &task,
        environment,
        caller.login,
        &permitted,
        timeout,
        crate::dispatch::wall(),
    )?;
    let name = take_on(&api, prepared).await?.to_string();
    let id = base.url(&path::job(&name));
    Ok(Answer::accepted(JobAccepted {
        job: JobReference { id, name },
    }))
}

/// The nodes that are connected now, for scopes that are resolved without PuppetDB.
async fn connected(api: &Api) -> Result<Vec<Certname>, ApiError> {
    let answer = api
        .dispatch
        .inventory(None)
        .await
        .map_err(|error| ApiError::new(ErrorKind::Unavailable, error.to_string()))?;
    let connected = answer
        .nodes
        .into_iter()
        .filter(|(_, presence)| presence.as_ref().is_some_and(|presence| presence.connected));
    Ok(connected.map(|(certname, _)| certname).collect())
}

/// Stores a job and hands it to the dispatcher. A caller that goes away in the middle ends its
/// request but not this: a job that is stored and not handed on would wait until the next start.
async fn take_on(api: &Api, prepared: Prepared) -> Result<JobId, Failure> {
    let (reply, answer) = oneshot::channel();
    let (store, library, dispatch) = (api.store.clone(), api.library.clone(), api.dispatch.clone());
    api.tasks.spawn("job", async move {
        // A caller that has gone away needs no answer.
        drop(reply.send(start(&store, &library, &dispatch, prepared).await));
    });
    answer.await.unwrap_or_else(|_| Err(NoAnswer::Ended.into()))
}

async fn start(
    store: &Store,
    library: &Library,
    dispatch: &DispatchHandle,
    Prepared { job, request }: Prepared,
) -> Result<JobId, Failure> {
    let (nodes, files, time_limit) = (job.nodes.clone(), job.files.clone(), job.time_limit);
    let (task, owner) = (job.options.task.clone(), job.owner.clone());
    let id = store.add_job(job).await?;
    tracing::info!(job_id = %id, task, owner, nodes = nodes.len(), "job accepted");
    library.add(id, &files);
    dispatch
        .submit(Submission {
            id,
            nodes,
            request,
            time_limit: time_limit.saturating_mul(1000),
        })
        .await?;
    Ok(id)
}

/// `POST command/stop`.
pub(super) async fn stop(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    base: Base,
    Body(request): Body<StopRequest>,
) -> Fallible<StopAccepted> {
    let id = job_id(&request.job)?;
    let Some((job, _)) = api.store.job(id).await? else {
        return Err(unknown_job(&request.job).into());
    };
    if job.owner != caller.login {
        api.access.require(&caller, Action::StopJob).await?;
    }
    let mode = if request.force == Some(true) {
        Stop::Force
    } else {
        Stop::Gentle
    };
    tracing::info!(job_id = %id, login = caller.login, ?mode, "job to be stopped");
    api.dispatch.stop(id, mode).await?;
    let Some((job, _)) = api.store.job(id).await? else {
        return Err(unknown_job(&request.job).into());
    };
    let name = id.to_string();
    Ok(Answer::accepted(StopAccepted {
        job: StoppedJob {
            id: base.url(&path::job(&name)),
            name,
            nodes: counts(&job.node_states),
        },
    }))
}

fn counts(states: &BTreeMap<NodeState, u64>) -> NodeCounts {
    let mut counts = NodeCounts::default();
    for (state, number) in states {
        let place = match state {
            NodeState::New | NodeState::Ready => &mut counts.new,
            NodeState::Running | NodeState::Stopping => &mut counts.running,
            NodeState::Stopped => &mut counts.stopped,
            NodeState::Finished => &mut counts.finished,
            NodeState::Failed => &mut counts.failed,
            NodeState::Errored => &mut counts.errored,
            NodeState::Skipped => &mut counts.skipped,
        };
        *place += number;
    }
    counts
}
