//! What a task writes while it runs, by byte offset. Beyond the original's API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::node::NodeState;

/// The query of `GET jobs/:id/nodes/:name/output`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputQuery {
    /// The first byte of standard output that is wanted; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<u64>,
    /// The first byte of standard error that is wanted; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<u64>,
    /// How many seconds to wait for something new; answered at once when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<u64>,
}

/// `GET jobs/:id/nodes/:name/output`: a piece of what the task has written.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeOutput {
    /// The certname.
    pub node: String,
    /// Where the node stands.
    pub state: NodeState,
    /// Standard output.
    pub stdout: OutputStream,
    /// Standard error.
    pub stderr: OutputStream,
    /// Whether nothing more will come after this piece.
    pub end: bool,
}

/// A piece of one stream. What is asked for next begins at `next`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputStream {
    /// Where the piece begins, in bytes.
    pub offset: u64,
    /// Where it ends.
    pub next: u64,
    /// How many bytes the task has written so far.
    pub total: u64,
    /// The piece, when it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The piece in base64, when it is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
}

/// Output may hold secrets and is never printed.
impl std::fmt::Debug for NodeOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeOutput")
            .field("node", &self.node)
            .field("state", &self.state)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// Output may hold secrets and is never printed.
impl std::fmt::Debug for OutputStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutputStream")
            .field("offset", &self.offset)
            .field("next", &self.next)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}
