//! What the operator of a node grants to a task.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::profile::paths::SYSTEM_BUS;

/// What one task may do, take and see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How far the task is kept from the host.
    pub profile: Profile,
    /// What it may take.
    pub limits: Limits,
    /// The user it runs as; `None` for the agent's own, and for a `confined` task of an agent that is
    /// root: nobody's.
    pub run_as: Option<RunAs>,
    /// What is kept from it, and what is not.
    pub paths: Paths,
}

/// How far a task is kept from the host. A later one is stricter: `Host < Standard < Confined`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// For what must be able to change anything: contained, not restricted.
    Host,
    /// The default: for tasks that manage the host.
    Standard,
    /// For tasks that only look.
    Confined,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Standard => "standard",
            Self::Confined => "confined",
        })
    }
}

/// What one task may take. A limit that is set and that this host cannot enforce is a reason not to
/// run the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How long the task may run; then it is ended. There is always a limit.
    pub time: Duration,
    /// How long the task's tree has between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// How many bytes of each of stdout and stderr are kept: all up to this limit, and beyond it the
    /// head and the tail. What is between them is counted and dropped.
    pub output: u64,
    /// Bytes of memory of the whole tree, page cache and its private `/tmp` included. Needs the
    /// cgroup controller `memory`.
    pub memory: Option<u64>,
    /// Processes and threads of the whole tree at once. Needs the cgroup controller `pids`.
    pub processes: Option<u32>,
    /// Processor time of the whole tree, in percent of one processor. Needs the cgroup controller
    /// `cpu`.
    pub cpu_percent: Option<u32>,
    /// Open descriptors of each process (`RLIMIT_NOFILE`); `None` keeps the agent's.
    pub open_files: Option<u64>,
}

/// The user that a task runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunAs {
    /// The user id.
    pub uid: u32,
    /// The primary group id.
    pub gid: u32,
    /// All supplementary group ids.
    pub groups: Vec<u32>,
    /// The login name: `USER` and `LOGNAME`.
    pub name: String,
    /// The home directory: `HOME`.
    pub home: PathBuf,
    /// The login shell: `SHELL`.
    pub shell: PathBuf,
}

/// Absolute paths of the host as tasks of the profiles `standard` and `confined` find them. What does
/// not exist when the task starts is passed over: name the directory of what may come to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Files and directories that are not there for the task: the node's keys, spool, cache.
    pub hidden: Vec<PathBuf>,
    /// Files and directories that it can read and not change: the agent's configuration, policy,
    /// binaries, units.
    pub read_only: Vec<PathBuf>,
    /// Directories below `/tmp` that it shares with the host, though it has a `/tmp` of its own;
    /// `/tmp` itself for all of it. What is hidden stays hidden.
    pub shared: Vec<PathBuf>,
    /// The socket of the system's message bus. A `standard` task finds it alone in its directory, with a
    /// filter before it.
    pub bus: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            hidden: Vec::new(),
            read_only: Vec::new(),
            shared: Vec::new(),
            bus: SYSTEM_BUS.into(),
        }
    }
}
