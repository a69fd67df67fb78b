//! What a controller sends to an agent.

use serde::{Deserialize, Serialize};

use crate::id::TransactionId;
use crate::object::JsonObject;

/// `rpc_blocking_request`: run the action, answer with its results, store nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockingRequest {
    /// Correlates the answer.
    pub transaction_id: TransactionId,
    /// The module that has the action.
    pub module: String,
    /// The action to run.
    pub action: String,
    /// What the action is to run with; absent counts as empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<JsonObject>,
}

/// `rpc_non_blocking_request`: take the action on, say so, and tell the outcome when it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NonBlockingRequest {
    /// Names the transaction; never run twice.
    pub transaction_id: TransactionId,
    /// Whether the outcome is to be sent; otherwise it can be had by `status query`.
    pub notify_outcome: bool,
    /// The module that has the action.
    pub module: String,
    /// The action to run.
    pub action: String,
    /// What the action is to run with; absent counts as empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<JsonObject>,
}

/// `rpc_outcome_acknowledgement`: the outcome of this transaction is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutcomeAcknowledgement {
    /// The transaction whose outcome need not be sent again.
    pub transaction_id: TransactionId,
}
