//! Plan jobs: what clients that run plans tell about them, and what they start for them.

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::State;
use orchestrator_api::{
    ApiError, ErrorKind, EventsQuery, JobAccepted, Link, NextEvents, PlanEvent, PlanEventDetails,
    PlanEvents, PlanFinishRequest, PlanJob, PlanJobs, PlanJobsQuery, PlanOptions, PlanPagination,
    PlanResults, PlanStartRequest, PlanStarted, PlanState, StateTime, TaskRequest, Time, path,
};
use serde_json::Map;

use super::Api;
use super::answer::{Answer, Fallible};
use super::command::run_task;
use super::events::event_id;
use super::jobs::{owner, seconds};
use super::request::{Base, Body, Params, Parts};
use crate::auth::Caller;
use crate::clock::wall;
use crate::job::{JobId, PlanId};
use crate::store::{NewPlan, PlanEnd, Secret, StoredPlan, StoredPlanEvent};
use crate::submission::{self, Origin};

/// The longest name of a plan, in bytes.
const MAX_NAME: usize = 255;

/// `POST command/plan_start`.
pub(super) async fn start(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<PlanStartRequest>,
) -> Fallible<PlanStarted> {
    if request.plan_name.is_empty() || request.plan_name.len() > MAX_NAME {
        let msg = format!("plan_name has 1 to {MAX_NAME} bytes");
        return Err(ApiError::new(ErrorKind::ValidationError, msg).into());
    }
    let plan = NewPlan {
        owner: caller.login,
        plan_name: request.plan_name,
        description: submission::description(request.description)?,
        environment: request.environment,
        parameters: request.params.into_iter().map(|(name, _)| name).collect(),
        at: wall(),
    };
    let plan_name = plan.plan_name.clone();
    let id = api.store.add_plan(plan).await?;
    tracing::info!(plan_job = %id, plan_name, "plan job begun");
    Ok(Answer::accepted(PlanStarted {
        name: id.to_string(),
    }))
}

/// `POST command/plan_task`.
pub(super) async fn task(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    base: Base,
    Body(request): Body<TaskRequest>,
) -> Fallible<JobAccepted> {
    let Some(name) = request.plan_job.clone() else {
        let msg = "plan_job is missing: the number that command/plan_start has given";
        return Err(ApiError::new(ErrorKind::ValidationError, msg).into());
    };
    let id = plan_id(&name)?;
    let plan = api.store.plan(id).await?;
    let (plan, _) = plan.ok_or_else(|| unknown(&name))?;
    if plan.state != PlanState::Running {
        return Err(already(&name).into());
    }
    let origin = Origin {
        plan_job: Some(id),
        ..Origin::by(caller.login.as_str())
    };
    run_task(&api, &caller, &base, request, origin).await
}

/// `POST command/plan_finish`.
pub(super) async fn finish(
    State(api): State<Api>,
    Body(request): Body<PlanFinishRequest>,
) -> Fallible<PlanStarted> {
    let name = request.plan_job;
    let id = plan_id(&name)?;
    if request.status == PlanState::Running {
        let msg = "status is success or failure";
        return Err(ApiError::new(ErrorKind::ValidationError, msg).into());
    }
    let result = Secret(request.result);
    match api
        .store
        .end_plan(id, request.status, result, wall())
        .await?
    {
        PlanEnd::Stored => Ok(Answer::accepted(PlanStarted { name })),
        PlanEnd::Already => Err(already(&name).into()),
        PlanEnd::Unknown => Err(unknown(&name).into()),
    }
}

/// `GET plan_jobs`.
pub(super) async fn list(
    State(api): State<Api>,
    base: Base,
    Params(query): Params<PlanJobsQuery>,
) -> Fallible<PlanJobs> {
    let (plans, total) = api.store.plans(query.clone()).await?;
    let results = query.results.unwrap_or_default();
    let items = plans
        .into_iter()
        .map(|plan| plan_job(&base, plan, vec![], results));
    Ok(Answer::ok(PlanJobs {
        items: items.collect(),
        pagination: PlanPagination {
            limit: query.limit,
            offset: query.offset.unwrap_or_default(),
            total,
        },
    }))
}

/// `GET plan_jobs/:id`.
pub(super) async fn one(
    State(api): State<Api>,
    base: Base,
    Parts(name): Parts<String>,
    Params(query): Params<PlanJobsQuery>,
) -> Fallible<PlanJob> {
    let plan = api.store.plan(plan_id(&name)?).await?;
    let (plan, jobs) = plan.ok_or_else(|| unknown(&name))?;
    let results = query.results.unwrap_or_default();
    Ok(Answer::ok(plan_job(&base, plan, jobs, results)))
}

/// `GET plan_jobs/:id/events`.
pub(super) async fn events(
    State(api): State<Api>,
    base: Base,
    Parts(name): Parts<String>,
    Params(query): Params<EventsQuery>,
) -> Fallible<PlanEvents> {
    let id = plan_id(&name)?;
    let start = query.start.as_deref().map_or(Ok(0), event_id)?;
    let events = api.store.plan_events(id, start).await?;
    let events = events.ok_or_else(|| unknown(&name))?;
    let next = events.last().map_or(start, |last| last.id + 1);
    let path = format!("{}?start={next}", path::plan_job_events(&name));
    Ok(Answer::ok(PlanEvents {
        next_events: NextEvents {
            id: base.url(&path),
            event: next.to_string(),
        },
        items: events.into_iter().map(plan_event).collect(),
    }))
}

/// `GET plan_jobs/:id/event/:event-id`.
pub(super) async fn event(
    State(api): State<Api>,
    Parts((name, event)): Parts<(String, String)>,
) -> Fallible<PlanEvent> {
    let id = plan_id(&name)?;
    let number = event_id(&event)?;
    let events = api.store.plan_events(id, number).await?;
    let first = events.ok_or_else(|| unknown(&name))?.into_iter().next();
    match first.filter(|found| found.id == number) {
        Some(found) => Ok(Answer::ok(plan_event(found))),
        None => {
            let msg = format!("plan job {name} has no event {event}");
            let error = ApiError::new(ErrorKind::NotFound, msg);
            Err(error.with("event", event).into())
        }
    }
}

fn plan_id(name: &str) -> Result<PlanId, ApiError> {
    name.parse().map_err(|_| {
        let msg = format!("Invalid plan job id {name:?}: it is a whole number");
        ApiError::new(ErrorKind::ValidationError, msg).with("plan_job", name)
    })
}

/// The original has no kind of its own for these.
fn unknown(name: &str) -> ApiError {
    ApiError::new(ErrorKind::UnknownJob, format!("Unknown plan job {name}")).with("plan_job", name)
}

fn already(name: &str) -> ApiError {
    let msg = format!("Plan job {name} has already finished");
    ApiError::new(ErrorKind::PlanAlreadyFinished, msg).with("plan_job", name)
}

fn plan_job(
    base: &Base,
    stored: StoredPlan,
    jobs: Vec<(JobId, Vec<StateTime>)>,
    results: PlanResults,
) -> PlanJob {
    let name = stored.id.to_string();
    let until = stored.finished.unwrap_or(Time::from_millis(wall()));
    let status: BTreeMap<_, _> = jobs
        .into_iter()
        .map(|(job, states)| {
            let states = states
                .into_iter()
                .filter_map(|state| serde_json::to_value(state).ok());
            (job.to_string(), states.collect())
        })
        .collect();
    PlanJob {
        id: base.url(&path::plan_job(&name)),
        state: stored.state,
        options: PlanOptions {
            description: stored.description,
            plan_name: stored.plan_name,
            parameters: Map::new(),
            sensitive: stored.parameters,
            scheduled_job_id: None,
            environment: stored.environment,
            project: None,
        },
        result: match results {
            PlanResults::Include => stored.result.0,
            PlanResults::Exclude => None,
        },
        owner: owner(stored.owner),
        created_timestamp: stored.created,
        finished_timestamp: stored.finished,
        duration: seconds(stored.created, until),
        events: Link {
            id: base.url(&path::plan_job_events(&name)),
        },
        status,
        userdata: Map::new(),
        name,
    }
}

fn plan_event(stored: StoredPlanEvent) -> PlanEvent {
    PlanEvent {
        id: stored.id.to_string(),
        event_type: stored.event_type,
        timestamp: stored.time,
        details: PlanEventDetails {
            job_id: stored.job.map(|job| job.to_string()),
        },
        message: stored.message,
    }
}
