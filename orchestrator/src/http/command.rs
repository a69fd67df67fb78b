//! `command/…`: the calls that do something.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use orchestrator_api::{
    ApiError, DEFAULT_ENVIRONMENT, DeployRequest, ErrorKind, JobAccepted, JobOptions, JobReference,
    NodeCounts, NodeState, StopAccepted, StopRequest, StoppedJob, TaskRequest, path,
};
use pcp::uri::Certname;
use task_data::TaskName;
use tokio::sync::oneshot;

use super::Api;
use super::answer::{Answer, Failure, Fallible};
use super::request::{Base, Body};
use super::request::{job_id, unknown_job};
use crate::auth::Caller;
use crate::controller::Submission;
use crate::deploy;
use crate::dispatch::{DispatchHandle, NoAnswer};
use crate::grant::Action as Permission;
use crate::job::{Action, JobId, Stop};
use crate::library::Library;
use crate::scope;
use crate::store::Store;
use crate::submission::{self, Origin, Prepared};

/// `POST command/task`.
pub(super) async fn task(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    base: Base,
    Body(request): Body<TaskRequest>,
) -> Fallible<JobAccepted> {
    if request.plan_job.is_some() {
        let msg = "plan_job belongs to command/plan_task";
        return Err(ApiError::new(ErrorKind::ValidationError, msg).into());
    }
    let origin = Origin::by(caller.login.as_str());
    run_task(&api, &caller, &base, request, origin).await
}

/// Checks, stores and starts the run of a task, whichever command asks for it.
pub(super) async fn run_task(
    api: &Api,
    caller: &Caller,
    base: &Base,
    request: TaskRequest,
    origin: Origin,
) -> Fallible<JobAccepted> {
    let environment = request
        .environment
        .clone()
        .unwrap_or_else(|| DEFAULT_ENVIRONMENT.to_owned());
    let name: TaskName = request.task.parse().map_err(|error| {
        let msg = format!("Invalid task name '{}': {error}", request.task);
        ApiError::new(ErrorKind::ValidationError, msg).with("task", request.task.as_str())
    })?;
    let mut permitted = api
        .access
        .nodes(caller, Permission::RunTask, Some(&name.to_string()))
        .await?;
    api.code.check_environment(&environment).await?;
    let nodes = scope::resolve(&request.scope, &api.estate, connected(api)).await?;
    let nodes_now = || connected(api);
    scope::permit_targets(&mut permitted, &nodes, &api.estate, nodes_now).await?;
    let task = api.code.task_to_run(&environment, name).await?;
    let timeout = api.settings.task_node_timeout;
    let prepared = submission::prepare(
        request,
        nodes,
        &task,
        &origin,
        &permitted,
        timeout,
        crate::clock::wall(),
    )?;
    accepted(api, base, prepared).await
}

/// `POST command/deploy`.
pub(super) async fn deploy(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    base: Base,
    Body(request): Body<DeployRequest>,
) -> Fallible<JobAccepted> {
    let origin = Origin::by(caller.login.as_str());
    run_puppet(&api, &caller, &base, request, origin).await
}

/// Checks, stores and starts a Puppet run, whichever command asks for it.
pub(super) async fn run_puppet(
    api: &Api,
    caller: &Caller,
    base: &Base,
    request: DeployRequest,
    origin: Origin,
) -> Fallible<JobAccepted> {
    deploy::check(&request)?;
    let environment = deploy::environment(&request);
    if !environment.is_empty() {
        api.code.check_environment(&environment).await?;
    }
    let permitted = api
        .access
        .nodes(caller, Permission::RunPuppet, None)
        .await?;
    let nodes = match &request.scope {
        Some(scope) => scope::resolve(scope, &api.estate, connected(api)).await?,
        None => vec![],
    };
    let timeout = api.settings.deploy_node_timeout;
    let mut prepared = deploy::prepare(
        request,
        nodes,
        &origin,
        &permitted,
        timeout,
        crate::clock::wall(),
    )?;
    note_what_is_known(api, &mut prepared).await;
    accepted(api, base, prepared).await
}

/// Notes in a Puppet run's job what PuppetDB knows about its nodes. When it does not answer, that is
/// what is noted: the run needs it no more than each of its agents does.
async fn note_what_is_known(api: &Api, prepared: &mut Prepared) {
    let Some(puppetdb) = &api.estate.puppetdb else {
        return;
    };
    let JobOptions::Deploy(options) = &mut prepared.job.options else {
        return;
    };
    let nodes = prepared.job.nodes.iter().map(|node| node.certname.clone());
    let nodes: Vec<_> = nodes.collect();
    let notes = match puppetdb.known(&nodes).await {
        Ok(known) => {
            let enforced = options
                .enforce_environment
                .then_some(options.environment.as_str());
            deploy::notes(&nodes, &known, enforced)
        }
        Err(error) => {
            let error = daemon::error_chain(&error);
            tracing::warn!(error, "agent versions not looked up");
            vec![format!("agent versions are not known: {error}")]
        }
    };
    options.notes.extend(notes);
}

async fn accepted(api: &Api, base: &Base, prepared: Prepared) -> Fallible<JobAccepted> {
    let name = take_on(api, prepared).await?.to_string();
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
    let submitting = Arc::clone(&api.submissions).read_owned().await;
    api.tasks.spawn("job", async move {
        // A caller that has gone away needs no answer.
        drop(reply.send(start(&store, &library, &dispatch, prepared).await));
        drop(submitting);
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
    let (action, concurrency) = (Action::from(job.job_type), job.concurrency);
    let task = job.options.task().unwrap_or("puppet agent").to_owned();
    let owner = job.owner.clone();
    let id = store.add_job(job).await?;
    tracing::info!(job_id = %id, task, owner, nodes = nodes.len(), "job accepted");
    library.add(id, &files);
    dispatch
        .submit(Submission {
            id,
            action,
            nodes,
            concurrency,
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
        api.access.require(&caller, Permission::StopJob).await?;
    }
    let mode = if request.force == Some(true) {
        Stop::Force
    } else {
        Stop::Gentle
    };
    if !job.state.is_final() {
        tracing::info!(job_id = %id, login = caller.login, ?mode, "job to be stopped");
        // A job can be seen a moment before it is handed on; a stop may not overtake it.
        drop(api.submissions.write().await);
        api.dispatch.stop(id, mode).await?;
    }
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
