//! What the operator of a node grants to a task.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The limits of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long the task may run; then it is ended. There is always a limit.
    pub time_limit: Duration,
    /// How long the task's tree has between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// How many bytes of each of stdout and stderr are kept, from the beginning. What is beyond is
    /// counted and dropped.
    pub output_limit: u64,
    /// How far the task is kept from the host.
    pub profile: Profile,
}

/// How far a task is kept from the host. All three have the same containment today; what they add
/// to it comes with their rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// For what must be able to change anything.
    Host,
    /// The default: for tasks that manage the host.
    Standard,
    /// For tasks that only look.
    Confined,
}
