//! The Puppet Execution Protocol: requests, responses and status queries, without IO.
//!
//! A PXP message is the body of a PCP message, JSON text. Read [`kind`] (which messages there are),
//! [`request`] and [`response`] (their bodies), then [`task`] and [`status`] (what the two modules
//! that every agent has take and give), [`actions`] (the original's other modules), [`stop`], [`output`], [`wishes`] and [`usage`] (what is new
//! here). [`read`] turns the bytes of a body into one of these types,
//! with the original's answer for each way in which they may be wrong.
//!
//! Parameters and output of actions stay JSON text ([`object::JsonObject`]) until somebody needs a
//! value out of them, so that numbers arrive as they were sent; they are never printed.

pub mod actions;
pub mod id;
pub mod kind;
pub mod object;
pub mod output;
pub mod request;
pub mod response;
pub mod status;
pub mod stop;
pub mod task;
pub mod usage;
pub mod wishes;

use serde::Serialize;
use serde::de::{DeserializeOwned, Error, IgnoredAny};

pub use actions::{
    Apply, ApplyPrep, CommandRun, DownloadEntry, FileDownload, PuppetRun, PuppetRunError,
    PuppetRunResult, ScriptRun,
};
pub use id::{InvalidTransactionId, TransactionId};
pub use kind::MessageKind;
pub use object::{Input, JsonObject, NotAnObject};
pub use output::{MAX_CHUNK, OutputChunk, OutputRequest, StreamChunk};
pub use request::{BlockingRequest, NonBlockingRequest, OutcomeAcknowledgement};
pub use response::{
    ActionResult, BlockingResponse, NonBlockingResponse, ProvisionalResponse, RpcError,
};
pub use status::{Status, StatusQuery, StatusResult};
pub use stop::{StopRequest, StopResult, StopState};
pub use task::{Extensions, FileUri, Implementation, TaskFile, TaskMetadata, TaskRun};
pub use usage::{KilledBy, Usage};
pub use wishes::{InvalidUserName, Profile, UserName, Wishes};

/// Why a body is not the PXP message that its type announces. The texts are the original's, which
/// the agent sends back as a PCP `error_message`.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The body is empty.
    #[error("no data")]
    Empty,
    /// The body is not JSON.
    #[error("data is not in JSON format")]
    NotJson(#[source] serde_json::Error),
    /// The body is JSON, but not what the schema of the message asks for.
    #[error("invalid data")]
    Invalid(#[source] serde_json::Error),
}

/// Reads a body as a PXP message.
///
/// # Errors
/// [`ReadError`] says in which way the bytes are wrong.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ReadError> {
    if body.is_empty() {
        return Err(ReadError::Empty);
    }
    let fault = match serde_json::from_slice(body) {
        // An array with the values in order would do for serde; every PXP message is an object.
        Ok(message) if first_byte(body) == Some(b'{') => return Ok(message),
        Ok(_) => serde_json::Error::custom("not an object"),
        Err(fault) => fault,
    };
    // The first fault may be one of the schema in a text that is no JSON further on.
    match serde_json::from_slice::<IgnoredAny>(body) {
        Ok(_) => Err(ReadError::Invalid(fault)),
        Err(fault) => Err(ReadError::NotJson(fault)),
    }
}

fn first_byte(body: &[u8]) -> Option<u8> {
    body.iter().copied().find(|b| !b.is_ascii_whitespace())
}

/// Writes a PXP message as the body of a PCP message.
#[must_use]
pub fn write<T: Serialize>(message: &T) -> Vec<u8> {
    // The message types of this crate have string keys only, so serialisation cannot fail; were it
    // to, the peer would get an empty body and say so.
    serde_json::to_vec(message).unwrap_or_default()
}
