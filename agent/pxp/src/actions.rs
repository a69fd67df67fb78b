//! The parameters of the original's other actions, as controllers send them, and the results of
//! `pxp-module-puppet run`. All but that one give an [`ActionResult`](crate::ActionResult).
//!
//! Unknown keys are ignored, as the original does. Paths, names and digests are texts here; whoever
//! uses them parses them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::object::JsonObject;
use crate::task::{FileUri, TaskFile};
use crate::usage::Usage;
use crate::wishes::Wishes;

/// The parameters of `command run`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRun {
    /// What the shell is to run. It may hold secrets and is never printed.
    pub command: String,
    /// What is asked of this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pxp_mesh: Option<Wishes>,
}

/// The parameters of `script run`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptRun {
    /// The file to run.
    pub script: TaskFile,
    /// Its arguments. They may hold secrets and are never printed.
    pub arguments: Vec<String>,
    /// What is asked of this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pxp_mesh: Option<Wishes>,
}

/// The parameters of `file download`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDownload {
    /// What is to be there afterwards, in this order.
    pub files: Vec<DownloadEntry>,
    /// What is asked of this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pxp_mesh: Option<Wishes>,
}

/// One file, directory or symbolic link. Every key is needed, whatever the kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadEntry {
    /// Where it is to be: an absolute path.
    pub destination: String,
    /// What a symbolic link points to.
    pub link_source: String,
    /// Where Puppet Server has the file.
    pub uri: FileUri,
    /// SHA-256 of the file's content, in 64 hexadecimal digits.
    pub sha256: String,
    /// `file`, `directory` or `symlink`.
    pub kind: String,
}

/// The parameters of `apply prep`: the node's facts, after its plugins have been fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyPrep {
    /// Whose plugins.
    pub environment: String,
    /// What is asked of this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pxp_mesh: Option<Wishes>,
}

/// The parameters of `apply apply`: a catalog that Puppet is to apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apply {
    /// The catalog, as Puppet reads it.
    pub catalog: JsonObject,
    /// How it is to be applied: `noop` and the like.
    pub apply_options: JsonObject,
    /// What is asked of this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pxp_mesh: Option<Wishes>,
}

/// The parameters of `pxp-module-puppet run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PuppetRun {
    /// Ignored, as in the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// Options of `puppet agent`; only a list of harmless ones is allowed.
    pub flags: Vec<String>,
    /// The id of the orchestrator's job, which the run's report then names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// What is asked of this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pxp_mesh: Option<Wishes>,
}

/// The results of `pxp-module-puppet run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PuppetRunResult {
    /// When the run began; `unknown` without a report.
    pub time: String,
    /// The run's id in its report; `unknown` without a report.
    pub transaction_uuid: String,
    /// The environment; `unknown` without a report.
    pub environment: String,
    /// `changed`, `unchanged` or `failed`; `unknown` without a report.
    pub status: String,
    /// How many resources were changed, failed and so on; empty without a report.
    pub metrics: Map<String, Value>,
    /// The exit code of `puppet agent`; -1 when it was not run.
    pub exitcode: i32,
    /// The version of this form: 1.
    pub version: u32,
    /// What went wrong, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<PuppetRunError>,
    /// What went wrong, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the run took; only for requesters that acknowledge outcomes, which know this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// Why a Puppet run did not go well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PuppetRunError {
    /// The parameters are not usable.
    InvalidJson,
    /// There is no Puppet where it should be.
    NoPuppetBin,
    /// The run left no report.
    NoLastRunReport,
    /// The run's report cannot be read.
    InvalidLastRunReport,
    /// An administrator has disabled Puppet on this node.
    AgentDisabled,
    /// Another run held the node for too long.
    AgentLocked,
    /// Puppet could not be started.
    AgentFailedToStart,
    /// Puppet ended with an error.
    AgentExitNonZero,
}

/// Commands may hold secrets and are never printed.
impl std::fmt::Debug for CommandRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandRun")
            .field("command_bytes", &self.command.len())
            .field("pxp_mesh", &self.pxp_mesh)
            .finish()
    }
}

/// Arguments may hold secrets and are never printed.
impl std::fmt::Debug for ScriptRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScriptRun")
            .field("script", &self.script)
            .field("arguments", &self.arguments.len())
            .field("pxp_mesh", &self.pxp_mesh)
            .finish()
    }
}
