//! `status query`: what has become of a transaction.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::TransactionId;
use crate::response::ActionResult;
use crate::usage::Usage;

/// The kind of the error that stands in for results when an action could not be run.
pub const EXECUTION_ERROR: &str = "puppetlabs.pxp-agent/execution-error";

/// The parameters of `status query`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusQuery {
    /// The transaction asked about.
    pub transaction_id: TransactionId,
}

/// How far a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The agent knows nothing of it, or cannot tell any more.
    Unknown,
    /// It has no outcome yet.
    Running,
    /// It ended with exit code 0.
    Success,
    /// It ended with another exit code, or could not be run.
    Failure,
}

/// The results of `status query`. While the transaction runs, only id and status are there.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusResult {
    /// The transaction asked about.
    pub transaction_id: TransactionId,
    /// How far it is.
    pub status: Status,
    /// The exit code, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exitcode: Option<i32>,
    /// Standard output, or an execution error as JSON text: see [`StatusResult::execution_error`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// Standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// What it took; only for requesters that acknowledge outcomes, which know this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

#[derive(Serialize, Deserialize)]
struct ErrorOutput {
    #[serde(rename = "_error")]
    error: ErrorBody,
}

#[derive(Serialize, Deserialize)]
struct ErrorBody {
    kind: String,
    #[serde(default)]
    details: serde_json::Map<String, serde_json::Value>,
    msg: String,
}

impl StatusResult {
    /// The transaction has no outcome yet.
    #[must_use]
    pub fn running(transaction_id: TransactionId) -> Self {
        Self {
            transaction_id,
            status: Status::Running,
            exitcode: None,
            stdout: None,
            stderr: None,
            usage: None,
        }
    }

    /// The action ran; its exit code decides between success and failure.
    #[must_use]
    pub fn finished(transaction_id: TransactionId, result: ActionResult) -> Self {
        let status = if result.exitcode == 0 {
            Status::Success
        } else {
            Status::Failure
        };
        Self {
            transaction_id,
            status,
            exitcode: Some(result.exitcode),
            stdout: result.stdout,
            stderr: result.stderr,
            usage: result.usage,
        }
    }

    /// The action could not be run to a result (`Failure`), or nothing is known (`Unknown`).
    #[must_use]
    pub fn without_result(transaction_id: TransactionId, status: Status, message: &str) -> Self {
        let output = ErrorOutput {
            error: ErrorBody {
                kind: EXECUTION_ERROR.to_owned(),
                details: serde_json::Map::new(),
                msg: message.to_owned(),
            },
        };
        Self {
            transaction_id,
            status,
            exitcode: None,
            // Texts and an empty map are always JSON.
            stdout: serde_json::to_string(&output).ok(),
            stderr: None,
            usage: None,
        }
    }

    /// The message of the execution error that stands in `stdout` for the results; nothing when
    /// the action ran (a task may well print an `_error` of its own, with an exit code).
    #[must_use]
    pub fn execution_error(&self) -> Option<String> {
        if self.exitcode.is_some() {
            return None;
        }
        let output: ErrorOutput = serde_json::from_str(self.stdout.as_deref()?).ok()?;
        (output.error.kind == EXECUTION_ERROR).then_some(output.error.msg)
    }
}

/// Output may hold secrets and is never printed.
impl fmt::Debug for StatusResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusResult")
            .field("transaction_id", &self.transaction_id)
            .field("status", &self.status)
            .field("exitcode", &self.exitcode)
            .field("stdout_bytes", &self.stdout.as_ref().map(String::len))
            .field("stderr_bytes", &self.stderr.as_ref().map(String::len))
            .finish()
    }
}
