//! Values of a row as the types they stand for. What does not fit is a damaged database, and said so.

use orchestrator_api::{EventType, JobState, NodeState, Time};
use pcp::uri::Certname;
use pxp::TransactionId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;

/// States, types and the like: the words that the API uses for them.
pub(super) fn word<T: DeserializeOwned>(text: String, what: &'static str) -> Result<T, StoreError> {
    serde_json::from_value(serde_json::Value::String(text))
        .map_err(|_| StoreError::Damaged { what })
}

pub(super) fn job_state(text: String) -> Result<JobState, StoreError> {
    word(text, "a job's state")
}

pub(super) fn node_state(text: String) -> Result<NodeState, StoreError> {
    word(text, "a node's state")
}

pub(super) fn event_type(text: String) -> Result<EventType, StoreError> {
    word(text, "an event's type")
}

pub(super) fn json<T: DeserializeOwned>(text: &str, what: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Damaged { what })
}

/// JSON text of what is to be stored.
pub(super) fn to_json<T: Serialize>(value: &T, what: &'static str) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Damaged { what })
}

/// The word that the API uses for it, without quotes.
pub(super) fn to_word<T: Serialize>(value: &T, what: &'static str) -> Result<String, StoreError> {
    to_json(value, what).map(|text| text.trim_matches('"').to_owned())
}

pub(super) fn certname(text: &str) -> Result<Certname, StoreError> {
    Certname::parse(text).map_err(|_| StoreError::Damaged { what: "a certname" })
}

pub(super) fn transaction(text: &str) -> Result<TransactionId, StoreError> {
    TransactionId::parse(text).map_err(|_| StoreError::Damaged {
        what: "a transaction id",
    })
}

pub(super) fn time(millis: Option<i64>) -> Option<Time> {
    millis.map(Time::from_millis)
}

/// Counts are never negative.
pub(super) fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// SQLite's word for no limit is -1.
pub(super) fn limit(limit: Option<u64>) -> i64 {
    limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX))
}

pub(super) fn offset(offset: Option<u64>) -> i64 {
    i64::try_from(offset.unwrap_or_default()).unwrap_or(i64::MAX)
}
