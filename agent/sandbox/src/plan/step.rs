//! The steps of a plan: what each is about, which process does it, and its place in the order.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::PlanError;
use crate::policy::Profile;
use crate::user::UserIds;

/// One thing that is done on the way to the task, in this order. Each is done at most once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Make a cgroup for the task and have the task born in it.
    Cgroup {
        /// The leaf's directory. It is the identity of the run: no other process is ever in it.
        directory: PathBuf,
        /// What all of it together may take.
        limits: CgroupLimits,
    },
    /// Make a PID namespace and a mount namespace, with a helper as process 1 in it.
    Namespaces {
        /// An ordinary user needs a user namespace for that, with only these ids in it.
        user: Option<UserIds>,
        /// Whether the task is to have an empty network, and no shared memory or host name in common
        /// with the host.
        isolated: bool,
    },
    /// Mount a `/proc` that shows the PID namespace, in the mount namespace only.
    Proc,
    /// Arrange the mount namespace as the profile has it, `/proc` included.
    Jail(Jail),
    /// Limit each process of the task.
    Limits {
        /// Open descriptors.
        open_files: u64,
    },
    /// Give up what the profile takes from the task, and become its user.
    Privileges {
        /// Whose rules.
        profile: Profile,
        /// Which user; `None` for the same.
        user: Option<User>,
    },
    /// Change to the working directory.
    WorkingDirectory {
        /// An absolute path.
        path: PathBuf,
    },
    /// Become the task.
    Execute {
        /// An absolute path.
        program: PathBuf,
        /// The arguments after the program's name.
        arguments: Vec<String>,
    },
}

/// What a cgroup's processes may take together; what is `None` is not limited here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupLimits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u32>,
    /// Processor time in percent of one processor.
    pub cpu_percent: Option<u32>,
}

/// How the mount namespace of a task is arranged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jail {
    /// Whose rules: `standard` or `confined`.
    pub profile: Profile,
    /// What is not there for the task.
    pub hidden: Vec<PathBuf>,
    /// What it cannot change.
    pub read_only: Vec<PathBuf>,
    /// What it shares below `/tmp`.
    pub shared: Vec<PathBuf>,
    /// What it sees, read-only, below what is hidden.
    pub visible: Vec<PathBuf>,
    /// The socket of the host's message bus, before which it finds a filter; in `standard` alone.
    pub bus: Option<PathBuf>,
}

/// The ids that a task runs with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// In which process a step is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// In the wrapper, before or while the next process is made.
    Wrapper,
    /// In process 1 of the PID namespace.
    Init,
    /// In the process that becomes the task.
    Task,
}

// The places of the steps in the order.
pub(super) const CGROUP: u8 = 0;
pub(super) const NAMESPACES: u8 = 1;
pub(super) const PROC: u8 = 2;
pub(super) const JAIL: u8 = 3;
pub(super) const LIMITS: u8 = 4;
pub(super) const PRIVILEGES: u8 = 5;
pub(super) const WORKING_DIRECTORY: u8 = 6;
pub(super) const EXECUTE: u8 = 7;

impl Step {
    /// What a report calls this step when it failed.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cgroup { .. } => "cgroup",
            Self::Namespaces { .. } => "namespaces",
            Self::Proc => "proc",
            Self::Jail(_) => "jail",
            Self::Limits { .. } => "limits",
            Self::Privileges { .. } => "privileges",
            Self::WorkingDirectory { .. } => "working-directory",
            Self::Execute { .. } => "execute",
        }
    }

    /// The file or directory that it is about.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Cgroup {
                directory: path, ..
            }
            | Self::WorkingDirectory { path }
            | Self::Execute { program: path, .. } => Some(path),
            Self::Namespaces { .. }
            | Self::Proc
            | Self::Jail(_)
            | Self::Limits { .. }
            | Self::Privileges { .. } => None,
        }
    }

    /// Which process does it.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self {
            Self::Cgroup { .. } | Self::Namespaces { .. } => Stage::Wrapper,
            Self::Proc | Self::Jail(_) => Stage::Init,
            Self::Limits { .. }
            | Self::Privileges { .. }
            | Self::WorkingDirectory { .. }
            | Self::Execute { .. } => Stage::Task,
        }
    }

    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Cgroup { .. } => CGROUP,
            Self::Namespaces { .. } => NAMESPACES,
            Self::Proc => PROC,
            Self::Jail(_) => JAIL,
            Self::Limits { .. } => LIMITS,
            Self::Privileges { .. } => PRIVILEGES,
            Self::WorkingDirectory { .. } => WORKING_DIRECTORY,
            Self::Execute { .. } => EXECUTE,
        }
    }

    pub(super) fn check(&self, name: &str) -> Result<(), PlanError> {
        match self {
            Self::Cgroup { directory, .. } => {
                check_path("the cgroup", directory)?;
                // Whoever altered the file must not have another cgroup killed in its place.
                let own = directory.file_name().is_some_and(|leaf| leaf == name);
                if own && directory.is_absolute() {
                    Ok(())
                } else {
                    Err(PlanError::Name)
                }
            }
            Self::Namespaces { .. }
            | Self::Proc
            | Self::Limits { .. }
            | Self::Privileges { .. } => Ok(()),
            Self::Jail(jail) => jail.check(),
            Self::WorkingDirectory { path } => {
                check_path("the working directory", path)?;
                if path.is_absolute() {
                    Ok(())
                } else {
                    Err(PlanError::WorkingDirectory(path.clone()))
                }
            }
            Self::Execute { program, arguments } => {
                check_path("the program", program)?;
                if !program.is_absolute() {
                    return Err(PlanError::Program(program.clone()));
                }
                arguments
                    .iter()
                    .try_for_each(|argument| check_text("an argument", argument))
            }
        }
    }
}

impl Jail {
    /// The written form of a view, for who arranges it in advance; empty when it is longer than `limit`.
    #[must_use]
    pub(crate) fn encode(&self, limit: usize) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        if bytes.len() > limit {
            bytes.clear();
        }
        bytes
    }

    /// Reads a view and checks it; `None` when the bytes are none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let jail: Self = serde_json::from_slice(bytes).ok()?;
        (jail.check().is_ok() && jail.visible.is_empty()).then_some(jail)
    }

    fn check(&self) -> Result<(), PlanError> {
        let all = [&self.hidden, &self.read_only, &self.shared, &self.visible];
        for path in all.into_iter().flatten().chain(&self.bus) {
            check_path("a protected path", path)?;
            // The root cannot be kept from a task: there would be nothing left to run.
            let plain = !path.components().any(|part| part == Component::ParentDir);
            if !path.is_absolute() || path.parent().is_none() || !plain {
                return Err(PlanError::ProtectedPath(path.clone()));
            }
        }
        Ok(())
    }
}

fn check_path(what: &'static str, path: &Path) -> Result<(), PlanError> {
    check_text(what, path.to_str().ok_or(PlanError::Text(what))?)
}

pub(super) fn check_text(what: &'static str, text: &str) -> Result<(), PlanError> {
    if text.contains('\0') {
        Err(PlanError::Text(what))
    } else {
        Ok(())
    }
}
