//! `--format json`: one document, with the keys that programs around the original read
//! (`job_id`, `state`, `options`, `items` of `name`, `state`, `results`, `detail`, `metrics`) and more.

use orchestrator_api::{Job, JobOptions, Node, NodeState};
use serde_json::{Value, json};

use crate::error::Failure;
use crate::render::Counts;

/// A job and its nodes.
pub(crate) fn job(job: &Job, nodes: &[Node]) -> Value {
    let is_puppet_run = matches!(job.options, JobOptions::Deploy(_));
    json!({
        "job_id": job.name,
        "state": job.state,
        "options": job.options,
        "environment": job.environment.name,
        "description": job.description,
        "noop": job.options.noop(),
        "task": job.options.task(),
        "node_count": job.node_count,
        "node_states": job.node_states.clone().unwrap_or_default(),
        "started_timestamp": job.started_timestamp,
        "finished_timestamp": job.finished_timestamp,
        "duration": job.duration.as_ref().and_then(|text| text.parse::<f64>().ok()),
        "items": nodes.iter().map(|it| node(it, is_puppet_run)).collect::<Vec<_>>(),
    })
}

fn node(node: &Node, is_puppet_run: bool) -> Value {
    let mut item = json!({
        "name": node.name,
        "state": node.state,
        "duration": node.duration,
        "start_timestamp": node.start_timestamp,
        "finish_timestamp": node.finish_timestamp,
        "results": node.result,
    });
    let Value::Object(members) = &mut item else {
        return item;
    };
    if node.state != NodeState::Finished || is_puppet_run {
        members.insert("detail".to_owned(), Value::Object(node.details.clone()));
    }
    if is_puppet_run {
        let counts = node.result.as_ref().and_then(Value::as_object);
        let counts = counts.and_then(Counts::of).unwrap_or_default();
        members.insert("metrics".to_owned(), counts.document());
        members.insert("transaction_uuid".to_owned(), json!(node.transaction_uuid));
    }
    item
}

/// A failure, in the form of the API's errors.
pub(crate) fn error(failure: &Failure) -> Value {
    failure.document()
}
