//! The events of a job: what a client follows it by.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::time::Time;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// A node's request was sent.
    NodeRunning,
    /// The task succeeded on a node.
    NodeFinished,
    /// The task failed on a node.
    NodeFailed,
    /// The task could not be run on a node.
    NodeErrored,
    /// A node was left out, because the job was stopped.
    NodeSkipped,
    /// The job was asked to stop.
    JobStopping,
    /// Last: the job ended by itself.
    JobFinished,
    /// Last: the job ended because it was stopped.
    JobAborted,
}

impl EventType {
    /// Whether no event of the job comes after this one.
    #[must_use]
    pub fn is_last(self) -> bool {
        matches!(self, Self::JobFinished | Self::JobAborted)
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// The event's number, as text; grows over all jobs.
    pub id: String,
    /// What happened.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// When.
    pub timestamp: Time,
    /// Where, and more.
    pub details: EventDetails,
    /// A sentence for people.
    pub message: String,
}

/// What an event is about.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventDetails {
    /// The certname; none for events of the whole job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The same as the node's details.
    #[serde(default)]
    pub detail: Map<String, Value>,
}

/// `GET jobs/:id/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Events {
    /// Where the events after these are.
    #[serde(rename = "next-events")]
    pub next_events: NextEvents,
    /// The events, oldest first.
    pub items: Vec<Event>,
}

/// Where the next events are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NextEvents {
    /// The URL to ask.
    pub id: String,
    /// The value for `start`.
    pub event: String,
}

/// The query of `GET jobs/:id/events`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventsQuery {
    /// Only this event and those after it; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
}
