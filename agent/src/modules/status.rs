//! `status query`: what has become of a transaction, from the spool.

use pxp::{Status, StatusResult, TransactionId};

use crate::results::{self, About, NoResult};
use crate::spool::{Spool, SpoolError};
use crate::transaction::{Outcome, Request};

/// The original's words for an id that it does not know.
const NO_DIRECTORY: &str = "found no results directory";

/// Answers for a transaction that is not in progress. Blocks.
#[must_use]
pub fn query(spool: &Spool, id: TransactionId, max_result: u64) -> StatusResult {
    let unknown = |id, message: &str| StatusResult::without_result(id, Status::Unknown, message);
    let stored = match spool.read(&id) {
        Ok(Some(stored)) => stored,
        Ok(None) => return unknown(id, NO_DIRECTORY),
        Err(error) => return unknown(id, &unreadable(&error)),
    };
    let Some((outcome, _)) = stored.outcome() else {
        // It was in progress a moment ago, and its end is being written.
        return StatusResult::running(id);
    };
    ended(spool, stored.request(), outcome, max_result)
}

/// Answers for a transaction that has ended so. Blocks.
#[must_use]
pub fn ended(spool: &Spool, request: &Request, outcome: &Outcome, max_result: u64) -> StatusResult {
    let id = request.id.clone();
    match results::of(
        &spool.directory(&id),
        outcome,
        &About::request(request),
        max_result,
    ) {
        Ok(result) => StatusResult::finished(id, result),
        Err(NoResult(message)) => StatusResult::without_result(id, Status::Failure, &message),
    }
}

/// What the requester is told of a transaction whose files cannot be read.
#[must_use]
pub fn unreadable(error: &SpoolError) -> String {
    format!(
        "the agent cannot read its files of this transaction, and leaves them alone: {}",
        daemon::error_chain(error)
    )
}
