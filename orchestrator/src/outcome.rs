//! What an agent reports, as the result of a node: the task specification's rules, in one place.

use orchestrator_api::ErrorKind;
use pxp::{
    ActionResult, JsonObject, KilledBy, PuppetRunError, PuppetRunResult, Status, StatusResult,
    Usage,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::job::{Action, End};

/// How a node ended, with what the API shows of it.
#[derive(Clone, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    /// The task's result, or why there is none. Never null.
    pub(crate) result: Value,
    /// One sentence for people: `details.message`. None for tasks that ran.
    pub(crate) message: Option<String>,
    /// What was written, where the result alone does not say it.
    pub(crate) stdout: Option<String>,
    pub(crate) stderr: Option<String>,
    /// What it took and how it was contained.
    pub(crate) usage: Option<Usage>,
    /// Of a Puppet run.
    pub(crate) report: Option<ReportRef>,
    /// Whether it ended without its agent, who may still report.
    pub(crate) given_up: bool,
}

/// The report of a Puppet run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReportRef {
    /// What the agent called the run.
    pub(crate) transaction_uuid: String,
    /// Where the report is, once it has been found.
    pub(crate) url: Option<String>,
}

/// A report as it was found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FoundReport {
    pub(crate) hash: String,
    pub(crate) url: Option<String>,
    pub(crate) configuration_version: Option<String>,
    pub(crate) environment: Option<String>,
    pub(crate) status: Option<String>,
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
        let (mut result, is_said) = match serde_json::from_str(stdout) {
            Ok(Value::Object(result)) => (result, false),
            _ => (
                Map::from_iter([("_output".to_owned(), Value::from(stdout))]),
                true,
            ),
        };
        // What a task marks as a secret is kept once, in its result, where it can be taken out.
        let is_said = is_said || result.contains_key(SENSITIVE);
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
            message: run.usage.as_ref().and_then(|usage| killed(&result, usage)),
            result: Value::Object(result),
            stdout: run.stdout.clone().filter(|_| !is_said),
            stderr: run.stderr.clone(),
            usage: run.usage.clone(),
            report: None,
            given_up: false,
        }
    }

    /// What an agent gave as results of an action.
    pub(crate) fn of_results(certname: &str, results: &JsonObject) -> Self {
        if let Ok(run) = results.parse::<ActionResult>() {
            return Self::of_run(&run);
        }
        match results.parse::<PuppetRunResult>() {
            Ok(run) => Self::of_puppet_run(certname, run),
            Err(_) => Self::errored(certname, Reason::Unreadable, UNREADABLE),
        }
    }

    /// Puppet was run on the node, or could not be.
    pub(crate) fn of_puppet_run(certname: &str, run: PuppetRunResult) -> Self {
        use PuppetRunError as E;
        let message = run.error.clone();
        let usage = run.usage.clone();
        match run.error_type {
            Some(
                E::InvalidJson
                | E::NoPuppetBin
                | E::AgentDisabled
                | E::AgentLocked
                | E::AgentFailedToStart,
            ) => {
                let message = message.unwrap_or_else(|| "Puppet could not be run".to_owned());
                let outcome = Self::errored(certname, Reason::PuppetNotRun, message);
                return Self { usage, ..outcome };
            }
            Some(E::NoLastRunReport | E::InvalidLastRunReport | E::AgentExitNonZero) | None => {}
        }
        let is_failed = run.error_type.is_some() || run.status == "failed" || run.exitcode != 0;
        let is_known = run.transaction_uuid != UNKNOWN;
        let mut result = Map::from_iter([
            ("hash".to_owned(), Value::Null),
            ("status".to_owned(), run.status.into()),
            ("metrics".to_owned(), Value::Object(run.metrics)),
            ("environment".to_owned(), run.environment.into()),
            ("configuration_version".to_owned(), Value::Null),
        ]);
        if let Some(text) = &message {
            let error = json!({"kind": ErrorKind::ExecutionFailure.text(), "msg": text,
                "details": {"node": certname, "exitcode": run.exitcode}});
            result.insert("_error".to_owned(), error);
        }
        Self {
            end: if is_failed {
                End::Failed
            } else {
                End::Finished
            },
            result: Value::Object(result),
            message,
            stdout: None,
            stderr: None,
            usage,
            report: is_known.then_some(ReportRef {
                transaction_uuid: run.transaction_uuid,
                url: None,
            }),
            given_up: false,
        }
    }

    /// Adds what the report of a Puppet run says.
    pub(crate) fn add_report(&mut self, found: FoundReport) {
        if let Some(report) = &mut self.report {
            report.url = found.url;
        }
        if let Value::Object(result) = &mut self.result {
            result.insert("hash".to_owned(), found.hash.into());
            let texts = [
                ("configuration_version", found.configuration_version),
                ("environment", found.environment),
                ("status", found.status),
            ];
            for (key, text) in texts {
                if let Some(text) = text {
                    result.insert(key.to_owned(), text.into());
                }
            }
        }
    }

    /// Adds what was asked of Puppet: the original shows it in each node's result.
    pub(crate) fn add_noop(&mut self, noop: bool, no_noop: bool) {
        if self.report.is_some()
            && let Value::Object(result) = &mut self.result
        {
            let asked = json!({"noop": noop, "no_noop": no_noop});
            result.insert("noop".to_owned(), asked);
        }
    }

    /// It was killed, or given up, because the job is stopped by force.
    pub(crate) fn stopped(message: &str, given_up: bool) -> Self {
        Self {
            end: End::Stopped,
            message: Some(message.to_owned()),
            given_up,
            ..Self::empty()
        }
    }

    /// The agent has killed it because it was told to.
    pub(crate) fn is_killed_by_stop(&self) -> bool {
        let killed_by = self.usage.as_ref().and_then(|usage| usage.killed_by);
        killed_by == Some(KilledBy::Stop)
    }

    fn empty() -> Self {
        Self {
            end: End::Errored,
            result: Value::Null,
            message: None,
            stdout: None,
            stderr: None,
            usage: None,
            report: None,
            given_up: false,
        }
    }

    /// The task could not be run on the node, or was refused before it was sent.
    pub(crate) fn errored(certname: &str, reason: Reason, message: impl Into<String>) -> Self {
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
                "details": {"node": certname, "reason": reason.text()},
            }),
            message: Some(message),
            ..Self::empty()
        }
    }

    /// The task was started, and nobody will ever know how it ended.
    pub(crate) fn lost(certname: &str, reason: Reason, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            end: End::Failed,
            result: json!({"_error": {
                "kind": ErrorKind::ExecutionFailure.text(),
                "msg": message,
                "details": {"node": certname, "reason": reason.text()},
            }}),
            message: Some(message),
            given_up: true,
            ..Self::empty()
        }
    }

    /// What a status query answered; nothing while the task runs, or when the agent knows nothing.
    pub(crate) fn of_status(certname: &str, action: Action, status: &StatusResult) -> Option<Self> {
        match status.status {
            Status::Running | Status::Unknown => None,
            Status::Success | Status::Failure => {
                Some(match (status.exitcode, status.execution_error()) {
                    (Some(_), _) if action == Action::PuppetRun => {
                        let stdout = status.stdout.as_deref().unwrap_or_default();
                        match serde_json::from_str::<PuppetRunResult>(stdout) {
                            Ok(run) => {
                                let usage = status.usage.clone();
                                Self::of_puppet_run(certname, PuppetRunResult { usage, ..run })
                            }
                            Err(_) => Self::errored(certname, Reason::Unreadable, UNREADABLE),
                        }
                    }
                    (Some(exitcode), _) => Self::of_run(&ActionResult {
                        exitcode,
                        stdout: status.stdout.clone(),
                        stderr: status.stderr.clone(),
                        usage: status.usage.clone(),
                    }),
                    (None, Some(message)) => Self::errored(certname, Reason::Refused, message),
                    (None, None) => {
                        let problem = "the agent gave no exit code";
                        Self::errored(certname, Reason::Unreadable, problem)
                    }
                })
            }
        }
    }
}

/// Why a node has no result of its task, in a word that programs can decide by: `details.reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It is not connected, and has been.
    NotConnected,
    /// It has never been connected.
    NeverConnected,
    /// The orchestrator has no broker.
    NoBroker,
    /// The request was sent and nothing was ever heard of it.
    NoAnswer,
    /// The agent had the task, and has not been heard of since.
    Lost,
    /// The agent is there and does not know the task any more.
    Forgotten,
    /// The agent said nothing within the task's time limit.
    TimeLimit,
    /// A broker or the agent refused.
    Refused,
    /// What the agent reported cannot be read.
    Unreadable,
    /// Puppet did not run: another run, a disabled agent.
    PuppetNotRun,
    /// The orchestrator had been restarted and no longer had what was to be sent.
    Restarted,
    /// The request is larger than what may be sent.
    TooLarge,
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Self::NotConnected => "not-connected",
            Self::NeverConnected => "never-connected",
            Self::NoBroker => "no-broker",
            Self::NoAnswer => "no-answer",
            Self::Lost => "lost",
            Self::Forgotten => "forgotten",
            Self::TimeLimit => "time-limit",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
            Self::PuppetNotRun => "puppet-not-run",
            Self::Restarted => "restarted",
            Self::TooLarge => "too-large",
        }
    }
}

const UNREADABLE: &str = "the agent reported an end that cannot be read";

/// What tasks call a result that is a secret.
pub(crate) const SENSITIVE: &str = "_sensitive";

/// What the agent calls the parts of a report that it could not read.
const UNKNOWN: &str = "unknown";

/// Why the agent has ended a task, for people; nothing when the task says itself how it failed, or
/// was not killed.
fn killed(result: &Map<String, Value>, usage: &Usage) -> Option<String> {
    let text = match usage.killed_by? {
        KilledBy::TimeLimit => "killed on the node: the time limit was reached",
        KilledBy::Memory => "killed on the node: it used more memory than it may",
        KilledBy::Pids => "stopped on the node: it had more processes than it may",
        KilledBy::Stop => "killed on the node: the job was stopped by force",
        KilledBy::Other => "killed on the node",
    };
    result.contains_key("_error").then(|| text.to_owned())
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
        let outcome = Outcome::errored("a", Reason::Refused, "ü".repeat(10_000_000));
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
            Outcome::of_status("a", Action::TaskRun, &status),
            Some(Outcome::of_run(&ran))
        );
        assert_eq!(
            Outcome::of_status("a", Action::TaskRun, &StatusResult::running(id.clone())),
            None
        );
        let failed = StatusResult::without_result(id, Status::Failure, "no such file");
        assert_eq!(
            Outcome::of_status("a", Action::TaskRun, &failed),
            Some(Outcome::errored("a", Reason::Refused, "no such file"))
        );
    }

    fn puppet(fields: &Value) -> PuppetRunResult {
        let mut run = json!({"time": "t", "transaction_uuid": "u-1", "environment": "production",
            "status": "changed", "metrics": {"changed": 2, "total": 9}, "exitcode": 0,
            "version": 1});
        for (key, value) in fields.as_object().unwrap() {
            run[key] = value.clone();
        }
        serde_json::from_value(run).unwrap()
    }

    #[test]
    fn a_puppet_run_has_the_documented_result() {
        let mut outcome = Outcome::of_puppet_run("a", puppet(&json!({})));
        outcome.add_noop(true, false);
        outcome.add_report(FoundReport {
            hash: "d7ec".into(),
            url: Some("https://db/reports/d7ec".into()),
            configuration_version: Some("1450898".into()),
            environment: None,
            status: None,
        });
        assert_eq!(outcome.end, End::Finished);
        let expected = json!({"hash": "d7ec", "noop": {"noop": true, "no_noop": false},
            "status": "changed", "metrics": {"changed": 2, "total": 9},
            "environment": "production", "configuration_version": "1450898"});
        assert_eq!(outcome.result, expected);
        let report = outcome.report.unwrap();
        assert_eq!(report.url.as_deref(), Some("https://db/reports/d7ec"));
    }

    #[test]
    fn a_puppet_run_that_failed_is_told_apart_from_one_that_never_was() {
        let table = [
            (
                json!({"status": "failed", "exitcode": 0}),
                End::Failed,
                true,
            ),
            (json!({"status": "unchanged"}), End::Finished, true),
            (
                json!({"error_type": "agent_exit_non_zero", "error": "x", "exitcode": 1}),
                End::Failed,
                true,
            ),
            (
                json!({"error_type": "no_last_run_report", "error": "x", "exitcode": 1,
                    "transaction_uuid": "unknown", "status": "unknown", "metrics": {}}),
                End::Failed,
                false,
            ),
            (
                json!({"error_type": "agent_disabled", "error": "disabled", "exitcode": -1,
                    "transaction_uuid": "unknown"}),
                End::Errored,
                false,
            ),
        ];
        for (fields, end, has_report) in table {
            let outcome = Outcome::of_puppet_run("a", puppet(&fields));
            assert_eq!(
                (outcome.end, outcome.report.is_some()),
                (end, has_report),
                "{fields}"
            );
            assert!(!outcome.result.is_null());
        }
    }

    #[test]
    fn what_a_task_marks_as_a_secret_is_kept_in_its_result_alone() {
        let outcome = run(0, r#"{"_sensitive":{"password":"hunter2"},"a":1}"#, "");
        assert_eq!(outcome.stdout, None);
        let plain = run(0, r#"{ "a" : 1 }"#, "noise");
        assert_eq!(plain.stdout.as_deref(), Some(r#"{ "a" : 1 }"#));
        assert_eq!(plain.stderr.as_deref(), Some("noise"));
        assert_eq!(run(0, "hello", "").stdout, None, "the result says it");
    }

    #[test]
    fn debug_does_not_show_results() {
        assert!(!format!("{:?}", run(0, r#"{"password":"hunter2"}"#, "")).contains("hunter2"));
    }
}
