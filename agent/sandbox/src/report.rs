//! How a task ended, as the wrapper writes it down once nothing of the task is left.

use serde::{Deserialize, Serialize};

use crate::plan::Containment;
use crate::policy::Profile;

/// The report of one run. Its existence says that the task's tree is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// How many bytes the task wrote to its stdout, kept or not.
    pub stdout_bytes: u64,
    /// How many bytes the task wrote to its stderr, kept or not.
    pub stderr_bytes: u64,
    /// Whether the file `stdout` holds less than was written.
    pub stdout_truncated: bool,
    /// Whether the file `stderr` holds less than was written.
    pub stderr_truncated: bool,
    /// Why output is missing, when it is not the limit: the error of the write that failed, such
    /// as a full disk.
    pub output_error: Option<String>,
    /// From the start of the task to the end of its tree, time in suspend included.
    pub duration_ms: u64,
    /// What held the tree together; `None` when it did not come to that.
    pub containment: Option<Containment>,
    /// What it took; absent in the report of an older wrapper.
    #[serde(default)]
    pub usage: Usage,
}

/// What a task took, and how it was held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The profile that it ran with; `None` when it did not come to that.
    pub profile: Option<Profile>,
    /// The processor time of its tree, where the kernel tells.
    pub cpu_ms: Option<u64>,
    /// The most memory that its tree had at once, where the kernel tells (the cgroup controller
    /// `memory`).
    pub peak_memory_bytes: Option<u64>,
    /// What ended it before its time; `None` when it ended itself.
    pub killed_by: Option<KilledBy>,
    /// How often its limit of processes refused it one more.
    #[serde(default)]
    pub processes_refused: u64,
}

/// What ended a task before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KilledBy {
    /// It reached its time limit.
    TimeLimit,
    /// It reached its memory limit.
    Memory,
    /// Somebody asked for its end.
    Stop,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Outcome {
    /// Its main process exited. 127 also stands for a program that could not be executed; the
    /// reason is then the last line of stderr.
    Exited {
        /// The exit code, 0 to 255.
        code: i32,
    },
    /// A signal ended its main process.
    Signaled {
        /// The signal's number.
        signal: i32,
    },
    /// It reached its time limit.
    TimedOut,
    /// It was asked to stop.
    Stopped,
    /// It never ran: a step before it failed.
    SetupFailed {
        /// The step's name.
        step: String,
        /// Why it failed.
        error: String,
    },
}
