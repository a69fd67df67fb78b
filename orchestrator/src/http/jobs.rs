//! `jobs`: what has been asked for, and what has become of it.

use axum::extract::State;
use orchestrator_api::{
    ApiError, EnvironmentName, ErrorKind, Event, EventDetails, Events, EventsQuery, Job,
    JobCommand, JobType, Jobs, JobsQuery, Link, NextEvents, Node, NodeState, Nodes, NodesQuery,
    Owner, Pagination, Report, ReportItem, Time, path,
};
use serde_json::Map;

use super::Api;
use super::answer::{Answer, Fallible};
use super::request::{Base, Params, Parts};
use crate::dispatch::wall;
use crate::job::JobId;
use crate::store::{StoredEvent, StoredEvents, StoredJob, StoredNode};

/// `GET jobs`.
pub(super) async fn list(
    State(api): State<Api>,
    base: Base,
    Params(query): Params<JobsQuery>,
) -> Fallible<Jobs> {
    if query.task.is_some() && query.job_type == Some(JobType::Deploy) {
        let msg = "jobs of type deploy have no task";
        return Err(ApiError::new(ErrorKind::ValidationError, msg).into());
    }
    let (jobs, total) = api.store.jobs(query.clone()).await?;
    Ok(Answer::ok(Jobs {
        items: jobs.into_iter().map(|stored| job(&base, stored)).collect(),
        pagination: Pagination {
            limit: query.limit,
            offset: query.offset.unwrap_or_default(),
            order: query.order.unwrap_or_default(),
            order_by: query.order_by.unwrap_or_default(),
            total,
            job_type: query.job_type,
        },
    }))
}

/// `GET jobs/:id`.
pub(super) async fn one(
    State(api): State<Api>,
    base: Base,
    Parts(name): Parts<String>,
) -> Fallible<Job> {
    let found = api.store.job(job_id(&name)?).await?;
    let (stored, states) = found.ok_or_else(|| unknown_job(&name))?;
    let mut job = job(&base, stored);
    job.status = Some(states);
    Ok(Answer::ok(job))
}

/// `GET jobs/:id/nodes`.
pub(super) async fn nodes(
    State(api): State<Api>,
    base: Base,
    Parts(name): Parts<String>,
    Params(query): Params<NodesQuery>,
) -> Fallible<Nodes> {
    let stored = api.store.nodes(job_id(&name)?, query).await?;
    let stored = stored.ok_or_else(|| unknown_job(&name))?;
    let now = wall();
    Ok(Answer::ok(Nodes {
        next_events: next_events(&base, &name, stored.next_event),
        items: stored
            .items
            .into_iter()
            .map(|item| node(now, item))
            .collect(),
    }))
}

/// `GET jobs/:id/report`.
pub(super) async fn report(State(api): State<Api>, Parts(name): Parts<String>) -> Fallible<Report> {
    let stored = api
        .store
        .nodes(job_id(&name)?, NodesQuery::default())
        .await?;
    let stored = stored.ok_or_else(|| unknown_job(&name))?;
    let items = stored
        .items
        .into_iter()
        .map(|node| ReportItem {
            node: node.certname,
            state: node.state,
            timestamp: Some(node.changed),
            start_timestamp: node.started,
            finish_timestamp: node.finished,
            events: vec![],
        })
        .collect();
    Ok(Answer::ok(Report { items }))
}

/// `GET jobs/:id/events`.
pub(super) async fn events(
    State(api): State<Api>,
    base: Base,
    Parts(name): Parts<String>,
    Params(query): Params<EventsQuery>,
) -> Fallible<Events> {
    let id = job_id(&name)?;
    let start = match &query.start {
        None => 0,
        Some(start) => event_id(start)?,
    };
    match api.store.events(id, start).await? {
        StoredEvents::UnknownJob => Err(unknown_job(&name).into()),
        StoredEvents::Mismatched => {
            let msg = format!("Event {start} does not belong to job {name}");
            let error = ApiError::new(ErrorKind::MismatchedJobEventId, msg);
            Err(error.with("event", start).with("job", name.as_str()).into())
        }
        StoredEvents::Events { items, next } => Ok(Answer::ok(Events {
            next_events: next_events(&base, &name, next),
            items: items.into_iter().map(event).collect(),
        })),
    }
}

/// A job's number as it stands in a path or a body.
pub(super) fn job_id(name: &str) -> Result<JobId, ApiError> {
    name.parse().map_err(|error| {
        let msg = format!("Invalid job id {name:?}: {error}");
        ApiError::new(ErrorKind::ValidationError, msg).with("job", name)
    })
}

pub(super) fn unknown_job(name: &str) -> ApiError {
    ApiError::new(ErrorKind::UnknownJob, format!("Unknown job {name}")).with("job", name)
}

fn event_id(text: &str) -> Result<i64, ApiError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| {
        let msg = format!("Invalid event id {text:?}: it is a whole number");
        ApiError::new(ErrorKind::ValidationError, msg).with("start", text)
    })
}

fn next_events(base: &Base, name: &str, next: i64) -> NextEvents {
    NextEvents {
        id: base.url(&format!("{}?start={next}", path::job_events(name))),
        event: next.to_string(),
    }
}

fn job(base: &Base, stored: StoredJob) -> Job {
    let name = stored.id.to_string();
    let link = |path: String| Link {
        id: base.url(&path),
    };
    let duration = stored
        .started
        .zip(stored.finished)
        .map(|(started, finished)| format!("{:.1}", seconds(started, finished)));
    let node_states = (!stored.node_states.is_empty()).then_some(stored.node_states);
    Job {
        id: base.url(&path::job(&name)),
        state: stored.state,
        command: command(stored.job_type),
        job_type: stored.job_type,
        owner: owner(stored.owner),
        description: stored.options.description.clone(),
        timestamp: stored.changed,
        created_timestamp: stored.created,
        started_timestamp: stored.started,
        finished_timestamp: stored.finished,
        duration,
        node_count: stored.node_count,
        node_states,
        nodes: link(path::job_nodes(&name)),
        report: link(path::job_report(&name)),
        events: link(path::job_events(&name)),
        environment: EnvironmentName {
            name: stored.options.environment.clone(),
        },
        options: stored.options,
        userdata: stored.userdata,
        status: None,
        name,
    }
}

fn command(job_type: JobType) -> JobCommand {
    match job_type {
        JobType::Deploy => JobCommand::Deploy,
        JobType::Task => JobCommand::Task,
        JobType::PlanTask
        | JobType::PlanScript
        | JobType::PlanUpload
        | JobType::PlanCommand
        | JobType::PlanWait
        | JobType::PlanApply
        | JobType::PlanApplyPrep => JobCommand::PlanTask,
    }
}

/// A user by login: as long as tokens are all that is known of users, the rest is empty.
fn owner(login: String) -> Owner {
    Owner {
        id: login.clone(),
        display_name: login.clone(),
        login,
        email: String::new(),
        is_revoked: false,
        last_login: None,
        is_remote: false,
        is_superuser: false,
        is_group: false,
        role_ids: vec![],
        inherited_role_ids: vec![],
        group_ids: vec![],
    }
}

fn node(now: i64, stored: StoredNode) -> Node {
    let until = match stored.state {
        NodeState::Running | NodeState::Stopping => Some(Time::from_millis(now)),
        NodeState::New
        | NodeState::Ready
        | NodeState::Stopped
        | NodeState::Finished
        | NodeState::Failed
        | NodeState::Errored
        | NodeState::Skipped => stored.finished,
    };
    let duration = stored
        .started
        .zip(until)
        .map(|(started, until)| seconds(started, until));
    let mut details = Map::new();
    if let Some(message) = stored.message {
        details.insert("message".to_owned(), message.into());
    }
    if stored.state == NodeState::Running
        && let Some(duration) = duration
    {
        details.insert("run-time".to_owned(), duration.into());
    }
    Node {
        name: stored.certname,
        state: stored.state,
        timestamp: Some(stored.changed),
        start_timestamp: stored.started,
        finish_timestamp: stored.finished,
        duration,
        transaction_uuid: None,
        details,
        result: stored.result,
    }
}

fn event(stored: StoredEvent) -> Event {
    Event {
        id: stored.id.to_string(),
        event_type: stored.event_type,
        timestamp: stored.time,
        details: EventDetails {
            node: stored.node,
            detail: stored.detail,
        },
        message: stored.message,
    }
}

/// Seconds from one time to another, with milliseconds.
fn seconds(from: Time, until: Time) -> f64 {
    let millis = until.as_millis().saturating_sub(from.as_millis()).max(0);
    // Below 2^53 milliseconds, which is 285,000 years, nothing is lost.
    std::time::Duration::from_millis(u64::try_from(millis).unwrap_or_default()).as_secs_f64()
}
