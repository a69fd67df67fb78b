//! The steps of a plan: what each is about, which process does it, and its place in the order.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::PlanError;

/// One thing that is done on the way to the task, in this order. Each is done at most once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Make a cgroup for the task and have the task born in it.
    Cgroup {
        /// The leaf's directory. It is the identity of the run: no other process is ever in it.
        directory: PathBuf,
    },
    /// Make a PID namespace and a mount namespace, with a helper as process 1 in it.
    Namespaces {
        /// An ordinary user needs a user namespace for that, with only these ids in it.
        user: Option<UserIds>,
    },
    /// Mount a `/proc` that shows the PID namespace, in the mount namespace only.
    Proc,
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

/// The ids of an ordinary user, the same inside and outside of its user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserIds {
    /// The effective user id.
    pub uid: u32,
    /// The effective group id.
    pub gid: u32,
}

// The places of the steps in the order.
pub(super) const CGROUP: u8 = 0;
pub(super) const NAMESPACES: u8 = 1;
pub(super) const PROC: u8 = 2;
pub(super) const WORKING_DIRECTORY: u8 = 3;
pub(super) const EXECUTE: u8 = 4;

impl Step {
    /// What a report calls this step when it failed.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cgroup { .. } => "cgroup",
            Self::Namespaces { .. } => "namespaces",
            Self::Proc => "proc",
            Self::WorkingDirectory { .. } => "working-directory",
            Self::Execute { .. } => "execute",
        }
    }

    /// The file or directory that it is about.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Cgroup { directory: path }
            | Self::WorkingDirectory { path }
            | Self::Execute { program: path, .. } => Some(path),
            Self::Namespaces { .. } | Self::Proc => None,
        }
    }

    /// Which process does it.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self {
            Self::Cgroup { .. } | Self::Namespaces { .. } => Stage::Wrapper,
            Self::Proc => Stage::Init,
            Self::WorkingDirectory { .. } | Self::Execute { .. } => Stage::Task,
        }
    }

    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Cgroup { .. } => CGROUP,
            Self::Namespaces { .. } => NAMESPACES,
            Self::Proc => PROC,
            Self::WorkingDirectory { .. } => WORKING_DIRECTORY,
            Self::Execute { .. } => EXECUTE,
        }
    }

    pub(super) fn check(&self, name: &str) -> Result<(), PlanError> {
        match self {
            Self::Cgroup { directory } => {
                check_path("the cgroup", directory)?;
                // Whoever altered the file must not have another cgroup killed in its place.
                let own = directory.file_name().is_some_and(|leaf| leaf == name);
                if own && directory.is_absolute() {
                    Ok(())
                } else {
                    Err(PlanError::Name)
                }
            }
            Self::Namespaces { .. } | Self::Proc => Ok(()),
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
