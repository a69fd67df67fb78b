//! What can be wrong with a task on disk. The texts of the `puppet.tasks/…` kinds are Puppet's own,
//! since callers of Puppet Server know them by sight; the others follow the rules of this house.

use std::io;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::name::TaskName;

/// Why a task cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// No directory of the module path has this module.
    #[error("Could not find module '{module}'")]
    ModuleNotFound {
        /// The module that was asked for.
        module: String,
    },
    /// The module has no such task.
    #[error("Could not find task '{}'", name.task())]
    NotFound {
        /// The task that was asked for.
        name: TaskName,
    },
    /// A file that the task names is missing, leads out of its module, or cannot be read.
    #[error("{message}")]
    InvalidFile {
        /// What is wrong, with the path.
        message: String,
        /// The system's answer, where it has one.
        #[source]
        source: Option<io::Error>,
    },
    /// The metadata are JSON but do not say what metadata must.
    #[error("{message}")]
    InvalidMetadata {
        /// What is wrong.
        message: String,
    },
    /// The metadata file cannot be read.
    #[error("Error reading metadata: {}", path.display())]
    UnreadableMetadata {
        /// The metadata file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The metadata file is not JSON.
    #[error("{} is not valid JSON", path.display())]
    UnparseableMetadata {
        /// The metadata file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// `implementations` names a file that is not there.
    #[error("Task metadata for task {name} specifies missing implementation {implementation}")]
    MissingImplementation {
        /// The task.
        name: TaskName,
        /// The missing file.
        implementation: String,
    },
    /// There are metadata but nothing to run.
    #[error(
        "No source besides task metadata was found in directory {} for task {name}",
        directory.display()
    )]
    NoImplementation {
        /// The task.
        name: TaskName,
        /// The module's `tasks` directory.
        directory: PathBuf,
    },
    /// Several files could be run and no metadata tell which.
    #[error(
        "Multiple executables were found in directory {} for task {name}; define 'implementations' in metadata to differentiate between them",
        first.display()
    )]
    MultipleImplementations {
        /// The task.
        name: TaskName,
        /// The first of them, where Puppet says "directory".
        first: PathBuf,
    },
    /// A directory of the module path cannot be read.
    #[error(transparent)]
    List(#[from] ListError),
}

/// Why the tasks of a module path cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// A directory is there but cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A directory has more entries than any module path or module has.
    #[error("{} has more than {limit} entries", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
        /// How many are read.
        limit: usize,
    },
}

impl TaskError {
    pub(crate) fn metadata(message: impl Into<String>) -> Self {
        Self::InvalidMetadata {
            message: message.into(),
        }
    }

    pub(crate) fn file(message: impl Into<String>) -> Self {
        Self::InvalidFile {
            message: message.into(),
            source: None,
        }
    }

    /// The kind as Puppet Server names it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ModuleNotFound { .. } => "puppet.tasks/module-not-found",
            Self::NotFound { .. } => "puppet.tasks/task-not-found",
            Self::InvalidFile { .. } => "puppet.tasks/invalid-file",
            Self::InvalidMetadata { .. } => "puppet.tasks/invalid-metadata",
            Self::UnreadableMetadata { .. } => "puppet.tasks/unreadable-metadata",
            Self::UnparseableMetadata { .. } => "puppet.tasks/unparseable-metadata",
            Self::MissingImplementation { .. } => "puppet.tasks/missing-implementation",
            Self::NoImplementation { .. } => "puppet.tasks/no-implementation",
            Self::MultipleImplementations { .. } => "puppet.tasks/multiple-implementations",
            Self::List(_) => "puppet.tasks/unreadable-module-path",
        }
    }

    /// Whether the task (or its module) simply is not there; everything else is a fault of its files.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::ModuleNotFound { .. } | Self::NotFound { .. })
    }

    /// What an answer carries as `details`.
    #[must_use]
    pub fn details(&self) -> Value {
        match self {
            Self::MissingImplementation { implementation, .. } => {
                json!({ "missing": [implementation] })
            }
            Self::NotFound { name } => json!({ "name": name.to_string() }),
            Self::ModuleNotFound { .. }
            | Self::InvalidFile { .. }
            | Self::InvalidMetadata { .. }
            | Self::UnreadableMetadata { .. }
            | Self::UnparseableMetadata { .. }
            | Self::NoImplementation { .. }
            | Self::MultipleImplementations { .. }
            | Self::List(_) => Value::Object(Map::new()),
        }
    }
}
