//! What an agent reports, as the result of a node: the task specification's rules, in one place.

use orchestrator_api::ErrorKind;
use pxp::{ActionResult, Status, StatusResult};
use serde_json::{Map, Value, json};

use crate::job::End;

/// How a node ended, with what the API shows of it.
#[derive(Clone, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    /// The task's result, or why there is none. Never null.
    pub(crate) result: Value,
    /// One sentence for people: `details.message`. None for tasks that ran.
    pub(crate) message: Option<String>,
}

/// The kind of the error that is put in for a task that failed without naming one.
const TASK_ERROR: &str = "puppetlabs.tasks/task-error";

/// How much of standard error stands in the message of a failed task, in bytes. Enough for a stack
/// trace; what is cut off is at the beginning, because the cause comes last.
const MAX_STDERR: usize = 16 * 1024;

/// How many characters of an agent's reason for not running a task are kept. It stands in the result,
/// in the node's details and in an event, and every follower of the job reads all events.
const MAX_MESSAGE: usize = 4096;

impl Outcome {
    /// The task ran to its end on the node.
    pub(crate) fn of_run(run: &ActionResult) -> Self {
        let stdout = run.stdout.as_deref().unwrap_or_default();
        let mut result = match serde_json::from_str(stdout) {
            Ok(Value::Object(result)) => result,
            _ => Map::from_iter([("_output".to_owned(), Value::from(stdout))]),
        };
        if run.exitcode != 0 && !result.contains_key("_error") {
            result.insert("_error".to_owned(), exit_error(run));
        }
        let end = if result.contains_key("_error") {
            End::Failed
        } else {
            End::Finished
        };
        Self {
            end,
            result: Value::Object(result),
            message: None,
        }
    }

    /// The task could not be run on the node, or was refused before it was sent.
    pub(crate) fn errored(certname: &str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
            message.truncate(end);
            message.push('…');
        }
        Self {
            end: End::Errored,
            result: json!({
                "kind": ErrorKind::ExecutionFailure.text(),
                "msg": message,
                "details": {"node": certname},
            }),
            message: Some(message),
        }
    }

    /// The task was started, and nobody will ever know how it ended.
    pub(crate) fn lost(certname: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            end: End::Failed,
            result: json!({"_error": {
                "kind": ErrorKind::ExecutionFailure.text(),
                "msg": message,
                "details": {"node": certname, "reason": "lost"},
            }}),
            message: Some(message),
        }
    }

    /// What a status query answered; nothing while the task runs, or when the agent knows nothing.
    pub(crate) fn of_status(certname: &str, status: &StatusResult) -> Option<Self> {
        match status.status {
            Status::Running | Status::Unknown => None,
            Status::Success | Status::Failure => {
                Some(match (status.exitcode, status.execution_error()) {
                    (Some(exitcode), _) => Self::of_run(&ActionResult {
                        exitcode,
                        stdout: status.stdout.clone(),
                        stderr: status.stderr.clone(),
                        usage: status.usage.clone(),
                    }),
                    (None, Some(message)) => Self::errored(certname, message),
                    (None, None) => Self::errored(certname, "the agent gave no exit code"),
                })
            }
        }
    }
}

/// Results may hold secrets and are never printed.
impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outcome")
            .field("end", &self.end)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

/// The error of a task that exited with a code and named no error itself.
fn exit_error(run: &ActionResult) -> Value {
    let code = run.exitcode;
    let stderr = tail(run.stderr.as_deref().unwrap_or_default().trim_end());
    let message = if stderr.is_empty() {
        format!("Task exited {code}")
    } else {
        format!("Task exited {code}:\n{stderr}")
    };
    json!({"kind": TASK_ERROR, "msg": message, "details": {"exitcode": code}})
}

/// The last [`MAX_STDERR`] bytes, cut at a character.
fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(MAX_STDERR);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(exitcode: i32, stdout: &str, stderr: &str) -> Outcome {
        Outcome::of_run(&ActionResult {
            exitcode,
            stdout: (!stdout.is_empty()).then(|| stdout.to_owned()),
            stderr: (!stderr.is_empty()).then(|| stderr.to_owned()),
            usage: None,
        })
    }

    #[test]
    fn results_follow_the_task_specification() {
        let task_error = |code: i32, msg: &str| {
            json!({"kind": "puppetlabs.tasks/task-error", "msg": msg,
                "details": {"exitcode": code}})
        };
        let table = [
            (
                run(0, r#"{"status":"up"}"#, ""),
                End::Finished,
                json!({"status": "up"}),
            ),
            (
                run(0, "hello\n", "noise"),
                End::Finished,
                json!({"_output": "hello\n"}),
            ),
            (run(0, "", ""), End::Finished, json!({"_output": ""})),
            (run(0, "[1]", ""), End::Finished, json!({"_output": "[1]"})),
            (
                run(0, "\"text\"", ""),
                End::Finished,
                json!({"_output": "\"text\""}),
            ),
            (
                run(0, r#"{"_error":{"msg":"no"}}"#, ""),
                End::Failed,
                json!({"_error": {"msg": "no"}}),
            ),
            (
                run(0, r#"{"_error":"no"}"#, ""),
                End::Failed,
                json!({"_error": "no"}),
            ),
            (
                run(2, r#"{"_error":{"msg":"no"},"a":1}"#, "x"),
                End::Failed,
                json!({"_error": {"msg": "no"}, "a": 1}),
            ),
            (
                run(3, r#"{"a":1}"#, "broken pipe\n"),
                End::Failed,
                json!({"a": 1, "_error": task_error(3, "Task exited 3:\nbroken pipe")}),
            ),
            (
                run(1, "", ""),
                End::Failed,
                json!({"_output": "", "_error": task_error(1, "Task exited 1")}),
            ),
        ];
        for (outcome, end, result) in table {
            assert_eq!((outcome.end, &outcome.result), (end, &result));
        }
    }

    #[test]
    fn a_long_standard_error_keeps_its_end() {
        let outcome = run(1, "", &format!("{}é cause", "ü".repeat(MAX_STDERR)));
        let msg = outcome.result["_error"]["msg"].as_str().unwrap();
        assert!(msg.len() < MAX_STDERR + 64 && msg.ends_with("é cause"));
    }

    #[test]
    fn an_agent_cannot_fill_the_events_of_a_job_with_its_reason() {
        let outcome = Outcome::errored("a", "ü".repeat(10_000_000));
        let message = outcome.message.unwrap();
        assert_eq!(message.chars().count(), MAX_MESSAGE + 1);
        assert_eq!(outcome.result["msg"], message);
    }

    #[test]
    fn status_answers_become_the_same_outcomes() {
        let id: pxp::TransactionId = "t1".parse().unwrap();
        let ran = ActionResult {
            exitcode: 1,
            stdout: Some("x".into()),
            stderr: None,
            usage: None,
        };
        let status = StatusResult::finished(id.clone(), ran.clone());
        assert_eq!(
            Outcome::of_status("a", &status),
            Some(Outcome::of_run(&ran))
        );
        assert_eq!(
            Outcome::of_status("a", &StatusResult::running(id.clone())),
            None
        );
        let failed = StatusResult::without_result(id, Status::Failure, "no such file");
        assert_eq!(
            Outcome::of_status("a", &failed),
            Some(Outcome::errored("a", "no such file"))
        );
    }

    #[test]
    fn debug_does_not_show_results() {
        assert!(!format!("{:?}", run(0, r#"{"password":"hunter2"}"#, "")).contains("hunter2"));
    }
}
