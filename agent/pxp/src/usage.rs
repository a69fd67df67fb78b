//! What a process took and how it was contained: part of the results for requesters that know this
//! agent. An addition of ours.

use serde::{Deserialize, Serialize};

use crate::wishes::Profile;

/// What one process, with all that it started, took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The profile that it ran with; absent when it did not come to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// The rule of the node's policy that allowed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// From its start to the end of its tree.
    pub duration_ms: u64,
    /// The processor time of its tree, where the system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// The most memory that its tree had at once, where the system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// What ended it before its time; absent when it ended itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killed_by: Option<KilledBy>,
    /// How many bytes it wrote to standard output, kept or not.
    pub stdout_bytes: u64,
    /// How many bytes it wrote to standard error, kept or not.
    pub stderr_bytes: u64,
    /// Whether less than that was kept.
    pub truncated: bool,
}

/// What ended a process before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KilledBy {
    /// It reached its time limit.
    TimeLimit,
    /// It reached its memory limit.
    Memory,
    /// It reached its limit of processes.
    Pids,
    /// Somebody asked for its end.
    Stop,
    /// Something that this version does not know.
    #[serde(other)]
    Other,
}
