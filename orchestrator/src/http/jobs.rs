//! `jobs`: what has been asked for, and what has become of it.

use std::collections::HashMap;

use axum::Extension;
use axum::extract::State;
use orchestrator_api::{
    ApiError, EnvironmentName, ErrorKind, Job, JobCommand, JobType, Jobs, JobsQuery, Link, Node,
    NodeOrder, NodeState, Nodes, NodesQuery, Order, Owner, Pagination, Report, ReportItem,
    SensitiveResults, Time, path,
};
use serde_json::{Map, Value, json};

use super::Api;
use super::answer::{Answer, Fallible};
use super::events::next_events;
use super::request::{Base, Params, Parts, job_id, unknown_job};
use crate::auth::Caller;
use crate::clock::wall;
use crate::outcome::SENSITIVE;
use crate::store::{EndMark, StoredJob, StoredNode};

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
    Extension(caller): Extension<Caller>,
    base: Base,
    Parts(name): Parts<String>,
    Params(query): Params<NodesQuery>,
) -> Fallible<Nodes> {
    let id = job_id(&name)?;
    let sensitive = query.sensitive.unwrap_or_default();
    if sensitive == SensitiveResults::Include {
        let job = api.store.job(id).await?;
        let (job, _) = job.ok_or_else(|| unknown_job(&name))?;
        if job.owner != caller.login {
            let msg = "sensitive results are shown to whoever started the job only";
            return Err(ApiError::new(ErrorKind::NotPermitted, msg).into());
        }
    }
    let is_by_end = query.order_by == Some(NodeOrder::FinishTimestamp)
        && query.order.unwrap_or_default() == Order::Asc;
    let after = match &query.after {
        Some(text) if is_by_end => Some(end_mark(text)?),
        Some(_) => {
            let msg = "after needs order_by=finish_timestamp, and order=asc if there is an order";
            return Err(ApiError::new(ErrorKind::ValidationError, msg).into());
        }
        None => None,
    };
    let stored = api.store.nodes(id, query, after).await?;
    let stored = stored.ok_or_else(|| unknown_job(&name))?;
    let now = wall();
    let last = stored.last.filter(|_| is_by_end);
    Ok(Answer::ok(Nodes {
        next_nodes: last.map(|mark| format!("{}.{}", mark.finished, mark.node)),
        next_events: next_events(&base, &name, stored.next_event),
        items: stored
            .items
            .into_iter()
            .map(|item| node(now, item, sensitive))
            .collect(),
    }))
}

/// Reads what an answer has given as `next-nodes`.
fn end_mark(text: &str) -> Result<EndMark, ApiError> {
    let read = || {
        let (finished, node) = text.split_once('.')?;
        Some(EndMark {
            finished: finished.parse().ok()?,
            node: node.parse().ok()?,
        })
    };
    read().ok_or_else(|| {
        let msg = "after is not what an answer has given as next-nodes";
        ApiError::new(ErrorKind::ValidationError, msg).with("after", text)
    })
}

/// `GET jobs/:id/report`: with what PuppetDB knows of the resources, when Puppet was run.
pub(super) async fn report(State(api): State<Api>, Parts(name): Parts<String>) -> Fallible<Report> {
    let stored = api
        .store
        .nodes(job_id(&name)?, NodesQuery::default(), None)
        .await?;
    let stored = stored.ok_or_else(|| unknown_job(&name))?;
    let hash = |node: &StoredNode| {
        node.report.as_ref()?;
        let hash = node.result.as_ref()?.get("hash")?.as_str()?;
        Some(hash.to_owned())
    };
    let hashes: Vec<_> = stored.items.iter().filter_map(hash).collect();
    let mut events = resource_events(&api, &name, &hashes).await;
    let items = stored
        .items
        .into_iter()
        .map(|node| ReportItem {
            events: hash(&node)
                .and_then(|hash| events.remove(&hash))
                .unwrap_or_default(),
            node: node.certname,
            state: node.state,
            timestamp: Some(node.changed),
            start_timestamp: node.started,
            finish_timestamp: node.finished,
        })
        .collect();
    Ok(Answer::ok(Report { items }))
}

/// The events of reports. Clients wait for jobs by their reports, so that a PuppetDB that is away
/// takes the events from them and nothing else.
async fn resource_events(api: &Api, job: &str, hashes: &[String]) -> HashMap<String, Vec<Value>> {
    let Some(puppetdb) = api.estate.puppetdb.as_ref().filter(|_| !hashes.is_empty()) else {
        return HashMap::new();
    };
    match puppetdb.events(hashes).await {
        Ok(events) => events,
        Err(error) => {
            let error = daemon::error_chain(&error);
            tracing::warn!(job_id = job, error, "events of reports not read");
            HashMap::new()
        }
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
        description: stored.options.description().to_owned(),
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
            name: stored.options.environment().to_owned(),
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
pub(super) fn owner(login: String) -> Owner {
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

fn node(now: i64, stored: StoredNode, sensitive: SensitiveResults) -> Node {
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
    if let Some(since) = stored.unknown {
        details.insert("unknown-since".to_owned(), since.to_string().into());
    }
    if let Some(usage) = stored
        .usage
        .and_then(|usage| serde_json::to_value(usage).ok())
    {
        details.insert("usage".to_owned(), usage);
    }
    let redact = |value: Value| match sensitive {
        SensitiveResults::Include => value,
        SensitiveResults::Redact => redacted(value),
    };
    if let Some(late) = stored.late {
        let time = Time::from_millis(late.at).to_string();
        let late = json!({"state": late.state, "timestamp": time, "result": redact(late.result.0)});
        details.insert("late".to_owned(), late);
    }
    let report = stored.report;
    if let Some(url) = report.as_ref().and_then(|report| report.url.as_deref()) {
        details.insert("report-url".to_owned(), url.into());
    }
    Node {
        name: stored.certname,
        state: stored.state,
        timestamp: Some(stored.changed),
        start_timestamp: stored.started,
        finish_timestamp: stored.finished,
        duration,
        transaction_uuid: report.map(|report| report.transaction_uuid),
        details,
        result: stored.result.map(redact),
    }
}

/// A result without what its task has marked as a secret.
pub(super) fn redacted(mut result: Value) -> Value {
    if let Some(secret) = result.get_mut(SENSITIVE) {
        *secret = "Sensitive [value redacted]".into();
    }
    result
}

/// Seconds from one time to another, with milliseconds.
pub(super) fn seconds(from: Time, until: Time) -> f64 {
    let millis = until.as_millis().saturating_sub(from.as_millis()).max(0);
    // Below 2^53 milliseconds, which is 285,000 years, nothing is lost.
    std::time::Duration::from_millis(u64::try_from(millis).unwrap_or_default()).as_secs_f64()
}
