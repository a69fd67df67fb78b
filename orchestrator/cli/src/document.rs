//! `--format json`: one document, with the keys that programs around the original read
//! (`job_id`, `state`, `options`, `items` of `name`, `state`, `results`, `detail`) and more.

use orchestrator_api::{Job, Node, NodeState};
use serde_json::{Value, json};

use crate::error::Failure;

/// A job and its nodes.
pub(crate) fn job(job: &Job, nodes: &[Node]) -> Value {
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
        "items": nodes.iter().map(node).collect::<Vec<_>>(),
    })
}

fn node(node: &Node) -> Value {
    let mut item = json!({
        "name": node.name,
        "state": node.state,
        "duration": node.duration,
        "start_timestamp": node.start_timestamp,
        "finish_timestamp": node.finish_timestamp,
        "results": node.result,
    });
    if node.state != NodeState::Finished
        && let Value::Object(item) = &mut item
    {
        item.insert("detail".to_owned(), Value::Object(node.details.clone()));
    }
    item
}

/// A failure, in the form of the API's errors.
pub(crate) fn error(failure: &Failure) -> Value {
    failure.document()
}
