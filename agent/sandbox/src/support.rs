//! What this host offers, found once at the start of the agent by trying, never by guessing from
//! versions. What is missing keeps its reason.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::user::UserIds;

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
    /// The limits that such a leaf can have.
    pub controllers: Controllers,
    /// All that the profile `standard` needs.
    pub standard: Facility<()>,
    /// All that the profile `confined` needs.
    pub confined: Facility<()>,
    /// The system's message bus, by which a `standard` task asks the service manager.
    pub message_bus: Facility<()>,
    /// The version of Landlock; 0 for none. `confined` needs the first. From the sixth on, a
    /// `standard` task cannot reach abstract sockets of the host either.
    pub landlock: u32,
}

/// The controllers that the leaves of tasks have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controllers {
    /// For [`crate::Limits::memory`].
    pub memory: Facility<()>,
    /// For [`crate::Limits::processes`].
    pub pids: Facility<()>,
    /// For [`crate::Limits::cpu_percent`].
    pub cpu: Facility<()>,
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

/// The wrapper's only argument when it is to say its version instead.
pub const VERSION_ARGUMENT: &str = "--version";

/// The version of a wrapper. Blocks for a millisecond.
///
/// # Errors
/// When it cannot be run, or is no wrapper that says its version.
pub fn version_of(wrapper: &Path) -> io::Result<String> {
    let output = Command::new(wrapper)
        .arg(VERSION_ARGUMENT)
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    match String::from_utf8(output.stdout) {
        Ok(version) if output.status.success() && !version.is_empty() => {
            Ok(version.trim_end().to_owned())
        }
        _ => Err(io::Error::other("it does not say its version")),
    }
}

impl<T> Facility<T> {
    /// Why it is not there; `None` when it is.
    #[must_use]
    pub fn missing(&self) -> Option<&String> {
        match self {
            Self::Available(_) => None,
            Self::Missing(reason) => Some(reason),
        }
    }
}

impl Controllers {
    /// None of them, for one reason.
    #[must_use]
    pub fn missing(reason: &str) -> Self {
        let missing = || Facility::Missing(reason.to_owned());
        Self {
            memory: missing(),
            pids: missing(),
            cpu: missing(),
        }
    }
}

impl Support {
    /// A host that offers nothing, for one reason.
    #[must_use]
    pub fn nothing(reason: &str) -> Self {
        Self {
            cgroup: Facility::Missing(reason.to_owned()),
            pid_namespace: Facility::Missing(reason.to_owned()),
            controllers: Controllers::missing(reason),
            standard: Facility::Missing(reason.to_owned()),
            confined: Facility::Missing(reason.to_owned()),
            message_bus: Facility::Missing(reason.to_owned()),
            landlock: 0,
        }
    }

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
            Ok(output) => match Self::told(&output.stdout) {
                Some(support) => return support,
                None => format!(
                    "{} does not answer as an execution wrapper ({})",
                    wrapper.display(),
                    output.status
                ),
            },
            Err(error) => format!("cannot run {}: {error}", wrapper.display()),
        };
        Self::nothing(&reason)
    }

    /// What a wrapper has answered, if that is an answer.
    fn told(answer: &[u8]) -> Option<Self> {
        serde_json::from_slice(answer).ok()
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
        let simple = |what: &str, facility: &Facility<()>| match facility.missing() {
            None => format!("{what}: available"),
            Some(reason) => format!("{what}: missing: {reason}"),
        };
        let landlock = match self.landlock {
            0 => "Landlock: missing: this kernel does not have it, or it is turned off".to_owned(),
            version @ 1..6 => format!(
                "Landlock: version {version}: a task of the profile standard can reach abstract \
                 sockets of the host (Linux 6.12 has version 6, with which it cannot)"
            ),
            version => format!("Landlock: version {version}"),
        };
        vec![
            cgroup,
            pid_namespace,
            simple("limit of memory", &self.controllers.memory),
            simple("limit of processes", &self.controllers.pids),
            simple("limit of processor time", &self.controllers.cpu),
            simple("profile standard", &self.standard),
            simple("profile confined", &self.confined),
            simple("message bus", &self.message_bus),
            landlock,
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_damaged_answer_of_a_wrapper_is_none_or_reads_the_same(
            at in any::<prop::sample::Index>(), cut in 0..20_usize,
            insert in prop::collection::vec(any::<u8>(), 0..6),
        ) {
            let whole = Support {
                cgroup: Facility::Available("/cg".into()),
                ..Support::nothing("not here")
            };
            let answer = serde_json::to_vec(&whole).unwrap();
            let told = Support::told(&answer);
            prop_assert_eq!(told.as_ref(), Some(&whole));
            let mut damaged = answer.clone();
            let at = at.index(damaged.len());
            damaged.splice(at..(at + cut).min(answer.len()), insert);
            if let Some(read) = Support::told(&damaged) {
                let again = serde_json::to_vec(&read).unwrap();
                prop_assert_eq!(Support::told(&again), Some(read));
            }
        }
    }
}
