//! A task as it stands on disk at one moment: its metadata and its files with their digests.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::metadata::Metadata;
use crate::name::TaskName;

/// A task, ready to be described or run.
#[derive(Debug, Clone)]
pub struct Task {
    /// The task's name.
    pub name: TaskName,
    /// What the task says of itself.
    pub metadata: Metadata,
    /// The executables first (in the order of `implementations`), then the support files. Without
    /// `implementations` an agent runs the first.
    pub files: Vec<TaskFile>,
}

/// A file of a task, in the shape that Puppet Server gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskFile {
    /// The name on the node: an executable's own name, or `module/mount/path` of a support file.
    pub filename: String,
    /// Where the content is on this machine. Not part of the answer.
    #[serde(skip)]
    pub path: PathBuf,
    /// The digest of the content, in lower case hexadecimal.
    pub sha256: String,
    /// The size of the content in bytes.
    pub size_bytes: u64,
    /// Where Puppet Server serves the content.
    pub uri: FileUri,
}

/// Where a file is fetched from a Puppet Server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileUri {
    /// The path on the server.
    pub path: String,
    /// The query: the environment.
    pub params: Map<String, Value>,
}

impl Task {
    /// The names of the parameters whose values must not be shown, stored or logged.
    #[must_use]
    pub fn sensitive(&self) -> Vec<&str> {
        self.metadata
            .parameters
            .iter()
            .flatten()
            .filter(|(_, parameter)| parameter.sensitive)
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// Whether the task may be run in noop mode.
    #[must_use]
    pub fn supports_noop(&self) -> bool {
        self.metadata.supports_noop
    }
}
