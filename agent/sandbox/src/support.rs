//! What this host offers, found once at the start of the agent by trying, never by guessing from
//! versions. What is missing keeps its reason.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::plan::UserIds;

/// The wrapper's only argument when it is to try what the host offers instead of running a task.
pub const PROBE_ARGUMENT: &str = "--probe";

/// What can hold a task's tree of processes together on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Support {
    /// A cgroup v2 directory in which a leaf a task can be made, entered, killed and removed.
    pub cgroup: Facility<PathBuf>,
    /// PID and mount namespaces with a `/proc` of their own; for an ordinary user, in a user
    /// namespace with these ids.
    pub pid_namespace: Facility<Option<UserIds>>,
}

/// Something that the host has, or has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Facility<T> {
    /// It was tried and works.
    Available(T),
    /// It does not, for this reason.
    Missing(String),
}

impl Support {
    /// Has the wrapper try everything for real, in a process that does nothing else. Blocks for a
    /// few milliseconds. A wrapper that cannot be run offers nothing, with that as the reason.
    #[must_use]
    pub fn probe(wrapper: &Path) -> Self {
        let answer = Command::new(wrapper)
            .arg(PROBE_ARGUMENT)
            .env_clear()
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        let reason = match answer {
            Ok(output) => match serde_json::from_slice(&output.stdout) {
                Ok(support) => return support,
                Err(_) => format!(
                    "{} does not answer as an execution wrapper ({})",
                    wrapper.display(),
                    output.status
                ),
            },
            Err(error) => format!("cannot run {}: {error}", wrapper.display()),
        };
        Self {
            cgroup: Facility::Missing(reason.clone()),
            pid_namespace: Facility::Missing(reason),
        }
    }

    /// One line for each facility, for the log at start-up.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let cgroup = match &self.cgroup {
            Facility::Available(base) => format!("cgroup v2: available below {}", base.display()),
            Facility::Missing(reason) => format!("cgroup v2: missing: {reason}"),
        };
        let pid_namespace = match &self.pid_namespace {
            Facility::Available(None) => "PID namespace: available".to_owned(),
            Facility::Available(Some(_)) => {
                "PID namespace: available inside a user namespace".to_owned()
            }
            Facility::Missing(reason) => format!("PID namespace: missing: {reason}"),
        };
        vec![cgroup, pid_namespace]
    }
}
