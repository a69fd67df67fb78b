//! `task run`: its parameters, as controllers send them.
//!
//! Unknown keys are ignored, as the original does: metadata may be of a newer version of the task
//! specification. File names, paths and digests are texts here; whoever uses them parses them.

use serde::{Deserialize, Serialize};

use crate::object::Input;
use crate::wishes::Wishes;

/// The parameters of `task run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRun {
    /// The task's name: `module` or `module::task`.
    pub task: String,
    /// Every file that any implementation needs; at least one.
    pub files: Vec<TaskFile>,
    /// The task's parameters, with `_noop` and the like among them.
    pub input: Input,
    /// How parameters reach the task: a legacy place, used when the metadata says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_method: Option<String>,
    /// What the task's metadata says about how to run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TaskMetadata>,
    /// Features of the node beyond what the agent knows itself; read when there is no metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<String>>,
    /// After how many seconds the agent ends the task, at most. The first place of the wish
    /// `time_limit`; the lowest limit holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

/// One file of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFile {
    /// Its name: plain for an implementation, `module/mount/path` for a support file.
    pub filename: String,
    /// SHA-256 of its content, in 64 hexadecimal digits.
    pub sha256: String,
    /// Its size in bytes. Controllers other than ours may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Where Puppet Server has it.
    pub uri: FileUri,
}

/// The place of a file on a Puppet Server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileUri {
    /// The path of the URL.
    pub path: String,
    /// The query of the URL.
    pub params: serde_json::Map<String, serde_json::Value>,
}

/// The part of a task's metadata that an agent acts on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskMetadata {
    /// How parameters reach the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_method: Option<String>,
    /// The executables to choose from, in order of preference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implementations: Option<Vec<Implementation>>,
    /// Support files of every implementation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<String>>,
    /// Features of the node beyond what the agent knows itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<String>>,
    /// Whether the task may be run without changing anything. Controllers may leave it out; they have
    /// looked at it themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supports_noop: Option<bool>,
    /// What is no part of the specification. Only our own part is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Extensions>,
}

/// Extensions of a task's metadata, each below a name of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extensions {
    /// What is asked of this agent: by the task's author, the orchestrator, or both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pxp_mesh: Option<Wishes>,
}

/// One executable of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Implementation {
    /// The `filename` of its entry in the request's files.
    pub name: String,
    /// Features that the node must have; none: it runs everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requirements: Option<Vec<String>>,
    /// Support files of this implementation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<String>>,
    /// How parameters reach this implementation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_method: Option<String>,
}

impl TaskRun {
    /// What is asked of this agent.
    #[must_use]
    pub fn wishes(&self) -> Wishes {
        let extensions = self.metadata.as_ref().and_then(|m| m.extensions.as_ref());
        let mut wishes = extensions
            .and_then(|extensions| extensions.pxp_mesh.clone())
            .unwrap_or_default();
        let limits = wishes.time_limit.into_iter().chain(self.timeout);
        // Zero has always meant that nothing is asked for.
        wishes.time_limit = limits.filter(|seconds| *seconds > 0).min();
        wishes
    }
}
