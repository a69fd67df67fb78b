//! What an agent sends to a controller.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::TransactionId;
use crate::object::JsonObject;
use crate::usage::Usage;

/// `rpc_provisional_response`: the request is durable on the agent and will have an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvisionalResponse {
    /// The transaction taken on.
    pub transaction_id: TransactionId,
}

/// `rpc_blocking_response`: the results of a blocking request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockingResponse {
    /// The transaction of the request.
    pub transaction_id: TransactionId,
    /// What the action gave, in the form that its module defines.
    pub results: JsonObject,
}

/// `rpc_non_blocking_response`: the outcome of a non-blocking request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NonBlockingResponse {
    /// The transaction of the request.
    pub transaction_id: TransactionId,
    /// What the action gave, in the form that its module defines.
    pub results: JsonObject,
}

/// `rpc_error_message`: the request was refused, or its action could not be run to a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RpcError {
    /// The transaction of the request.
    pub transaction_id: TransactionId,
    /// The PCP message id of the request.
    pub id: String,
    /// What went wrong, for a person.
    pub description: String,
}

/// The results of `task run` and of all other actions that run a process.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionResult {
    /// The exit code of the process; 128 and the signal's number when a signal ended it.
    pub exitcode: i32,
    /// What it wrote to standard output; absent when that is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// What it wrote to standard error; absent when that is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// What it took; only for requesters that acknowledge outcomes, which know this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// Output may hold secrets and is never printed.
impl fmt::Debug for ActionResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActionResult")
            .field("exitcode", &self.exitcode)
            .field("stdout_bytes", &self.stdout.as_ref().map(String::len))
            .field("stderr_bytes", &self.stderr.as_ref().map(String::len))
            .finish()
    }
}
