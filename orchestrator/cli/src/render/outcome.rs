//! How a node ended, as a headline and lines below it.

use orchestrator_api::{Job, JobOptions, Node, NodeState};
use serde_json::{Map, Value};

use super::puppet;
use crate::printable::{lines, printable};
use crate::screen::Mood;

/// From how many nodes on outcomes are grouped at the end instead of told one by one.
const MANY_NODES: u64 = 20;

/// A node's end in words.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Outcome {
    /// What happened, to be completed by the node's name: `Finished on node`.
    pub(crate) verb: &'static str,
    /// What the node gave back: indented lines, each with its end.
    pub(crate) body: String,
    state: NodeState,
}

impl Outcome {
    pub(crate) fn mood(&self) -> Mood {
        match self.state {
            NodeState::Finished => Mood::Good,
            NodeState::Failed | NodeState::Errored => Mood::Bad,
            _ => Mood::Odd,
        }
    }
}

/// What of a node's end is told.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    /// Puppet was run, and no task.
    pub(crate) is_puppet_run: bool,
    /// Equal ends are told once, so that what is a node's own is left out.
    pub(crate) is_grouped: bool,
    /// What the node wrote has been shown while it wrote it.
    pub(crate) is_followed: bool,
}

impl Manner {
    /// As it suits this job.
    pub(crate) fn of(job: &Job) -> Self {
        Self {
            is_puppet_run: matches!(job.options, JobOptions::Deploy(_)),
            is_grouped: job.node_count > MANY_NODES,
            is_followed: false,
        }
    }
}

/// Puts a node's end into words.
pub(crate) fn outcome(node: &Node, manner: Manner) -> Outcome {
    let verb = match node.state {
        NodeState::Finished => "Finished on node",
        NodeState::Failed => "Failed on node",
        NodeState::Errored => "Error on node",
        NodeState::Skipped => "Skipped node",
        NodeState::Stopped => "Stopped on node",
        NodeState::New | NodeState::Ready | NodeState::Running | NodeState::Stopping => {
            "Not ended on node"
        }
    };
    let mut body = String::new();
    match &node.result {
        Some(error) if node.state != NodeState::Finished && is_bare_error(error) => {
            write_error(&mut body, error);
        }
        Some(Value::Object(result)) if manner.is_puppet_run => {
            write_run(&mut body, node, result, manner);
        }
        Some(Value::Object(result)) if manner.is_followed => {
            if let Some(error) = result.get("_error") {
                write_error(&mut body, error);
            }
        }
        Some(Value::Object(result)) => write_result(&mut body, result),
        Some(Value::Null) | None => {}
        Some(other) => block(&mut body, 2, &other.to_string()),
    }
    let message = node.details.get("message").and_then(Value::as_str);
    if let Some(message) = message
        && !body.contains(printable(message.lines().next().unwrap_or_default()).as_str())
    {
        block(&mut body, 2, message);
    }
    Outcome {
        verb,
        body,
        state: node.state,
    }
}

/// What could not be run has an error in the place of a result, as the API gives it.
fn is_bare_error(result: &Value) -> bool {
    result.get("_error").is_none() && result.get("kind").is_some() && result.get("msg").is_some()
}

/// What a Puppet run came to. Puppet's own words are in its report.
fn write_run(body: &mut String, node: &Node, result: &Map<String, Value>, manner: Manner) {
    if let Some(error) = result.get("_error") {
        write_error(body, error);
    }
    puppet::write_status(body, result);
    if !manner.is_grouped {
        puppet::write_references(body, node, result);
    }
}

/// The error first, then `key : value`, the task's plain output last.
fn write_result(body: &mut String, result: &Map<String, Value>) {
    if let Some(error) = result.get("_error") {
        write_error(body, error);
    }
    for (key, value) in result {
        if key == "_error" || key == "_output" {
            continue;
        }
        if key == "_sensitive" {
            body.push_str("  _sensitive : Sensitive [value redacted]\n");
            continue;
        }
        match value {
            Value::String(text) if text.trim_end_matches('\n').contains('\n') => {
                body.push_str(&format!("  {} :\n", printable(key)));
                block(body, 4, text);
            }
            Value::String(text) => {
                let text = printable(text.trim_end_matches('\n'));
                body.push_str(&format!("  {} : {text}\n", printable(key)));
            }
            other => {
                let text = printable(&other.to_string());
                body.push_str(&format!("  {} : {text}\n", printable(key)));
            }
        }
    }
    match result.get("_output") {
        Some(Value::String(output)) if output.trim().is_empty() => {}
        Some(output) => {
            body.push_str("  STDOUT:\n");
            block(body, 4, &as_text(output));
        }
        None => {}
    }
}

fn write_error(body: &mut String, error: &Value) {
    let message = error.get("msg").map_or_else(|| as_text(error), as_text);
    let mut message = message.lines();
    let first = printable(message.next().unwrap_or_default());
    body.push_str(&format!("  Error: {first}\n"));
    for line in message {
        body.push_str(&format!("    {}\n", printable(line)));
    }
    if let Some(kind) = error.get("kind").and_then(Value::as_str) {
        body.push_str(&format!("  Kind: {}\n", printable(kind)));
    }
}

fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn block(body: &mut String, indent: usize, text: &str) {
    for line in lines(text) {
        body.push_str(&" ".repeat(indent));
        body.push_str(&line);
        body.push('\n');
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn node(
        name: &str,
        state: NodeState,
        result: &Value,
        message: Option<&str>,
    ) -> Node {
        serde_json::from_value(json!({
            "name": name, "state": state, "timestamp": null, "start_timestamp": null,
            "finish_timestamp": null, "duration": 1.0, "transaction_uuid": null,
            "details": message.map_or(json!({}), |m| json!({"message": m})), "result": result,
        }))
        .unwrap()
    }

    fn text(state: NodeState, result: &Value, message: Option<&str>) -> String {
        let outcome = outcome(&node("web1", state, result, message), Manner::default());
        format!("{} web1\n{}", outcome.verb, outcome.body)
    }

    #[test]
    fn structured_output_is_key_and_value() {
        let result =
            json!({"status": "up to date", "version": 3, "list": [1, "a"], "log": "a\nb\n"});
        assert_eq!(
            text(NodeState::Finished, &result, None),
            "Finished on node web1\n  list : [1,\"a\"]\n  log :\n    a\n    b\n  status : up to date\n  version : 3\n"
        );
    }

    #[test]
    fn plain_output_is_a_block() {
        let result = json!({"_output": "one\n  two\n"});
        assert_eq!(
            text(NodeState::Finished, &result, None),
            "Finished on node web1\n  STDOUT:\n    one\n      two\n"
        );
        assert_eq!(
            text(NodeState::Finished, &json!({"_output": ""}), None),
            "Finished on node web1\n"
        );
    }

    #[test]
    fn a_failure_says_its_message_first() {
        let result = json!({"_error": {"kind": "puppetlabs.tasks/task-error",
            "msg": "Task exited 3:\nno such file", "details": {"exitcode": 3}}, "_output": "begun\n"});
        assert_eq!(
            text(NodeState::Failed, &result, None),
            "Failed on node web1\n  Error: Task exited 3:\n    no such file\n  \
             Kind: puppetlabs.tasks/task-error\n  STDOUT:\n    begun\n"
        );
        assert_eq!(
            text(NodeState::Failed, &json!({"_error": "plain"}), None),
            "Failed on node web1\n  Error: plain\n"
        );
    }

    #[test]
    fn a_node_that_could_not_be_asked_says_why_once() {
        let result = json!({"kind": "puppetlabs.orchestrator/execution-failure",
            "msg": "web1 is not connected", "details": {"node": "web1"}});
        assert_eq!(
            text(NodeState::Errored, &result, Some("web1 is not connected")),
            "Error on node web1\n  Error: web1 is not connected\n  \
             Kind: puppetlabs.orchestrator/execution-failure\n"
        );
        assert_eq!(
            text(
                NodeState::Skipped,
                &Value::Null,
                Some("The job was stopped")
            ),
            "Skipped node web1\n  The job was stopped\n"
        );
    }

    #[test]
    fn a_puppet_run_tells_what_it_changed_and_where_its_report_is() {
        let mut it = node(
            "web1",
            NodeState::Failed,
            &json!({"status": "failed", "environment": "dev", "configuration_version": "17",
                "hash": "d7ec", "metrics": {"total": 3, "failed": 1}}),
            Some("1 resource failed"),
        );
        it.transaction_uuid = Some("u-1".to_owned());
        it.details
            .insert("report-url".to_owned(), json!("https://db/d7ec"));
        let mut manner = Manner {
            is_puppet_run: true,
            ..Manner::default()
        };
        assert_eq!(
            outcome(&it, manner).body,
            "  Status: failed\n  Resources: 1 failed, 2 unchanged\n  Environment: dev\n  \
             Configuration version: 17\n  Transaction: u-1\n  Report: https://db/d7ec\n  \
             1 resource failed\n"
        );
        manner.is_grouped = true;
        let grouped = outcome(&it, manner).body;
        assert_eq!(
            grouped,
            "  Status: failed\n  Resources: 1 failed, 2 unchanged\n  1 resource failed\n"
        );
    }

    #[test]
    fn what_was_shown_while_it_was_written_is_not_told_again() {
        let result = json!({"_error": {"msg": "no"}, "_output": "begun\n", "a": 1});
        let manner = Manner {
            is_followed: true,
            ..Manner::default()
        };
        let told = outcome(&node("a", NodeState::Failed, &result, None), manner);
        assert_eq!(told.body, "  Error: no\n");
    }

    #[test]
    fn output_cannot_steer_the_terminal() {
        let result = json!({"a\u{1b}[2J": "\u{1b}]0;title\u{7}", "_output": "\u{1b}[1A\u{9b}K\n",
            "_sensitive": "secret", "_error": {"msg": "\u{202e}x", "kind": "\u{8}"}});
        let text = text(NodeState::Failed, &result, Some("\u{1b}c"));
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{text:?}"
        );
        assert!(!text.contains("secret") && !text.contains('\u{202e}'));
    }
}
