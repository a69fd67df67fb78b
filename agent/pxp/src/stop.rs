//! `task stop`: ends what a transaction runs, whatever action it is. An addition of ours. The answer
//! comes when nothing of the process's tree is left, and not before.

use serde::{Deserialize, Serialize};

use crate::id::TransactionId;

/// The parameters of `task stop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// The transaction to be ended.
    pub transaction_id: TransactionId,
}

/// What became of the wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopState {
    /// It was running. The whole tree of its processes is gone now.
    Stopped,
    /// It had ended already, in whatever way.
    Finished,
    /// It had been taken on, and will never be started.
    NotStarted,
    /// The agent does not know the transaction.
    Unknown,
}

/// The results of `task stop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopResult {
    /// The transaction asked for.
    pub transaction_id: TransactionId,
    /// What became of it.
    pub state: StopState,
}
