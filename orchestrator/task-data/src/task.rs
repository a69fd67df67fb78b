//! A task as it stands on disk at one moment: its metadata and its files with their digests.

use crate::files::TaskFile;
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
