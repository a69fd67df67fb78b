//! The nodes of a job, and the report over them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::event::NextEvents;
use crate::order::Order;
use crate::time::Time;

/// Where one node of a job stands.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Stored.
    New,
    /// Waits for its turn.
    Ready,
    /// The request has been sent.
    Running,
    /// Is being stopped.
    Stopping,
    /// Was stopped while it ran.
    Stopped,
    /// The task succeeded.
    Finished,
    /// The task ran and failed.
    Failed,
    /// The task could not be run.
    Errored,
    /// Never started, because the job was stopped.
    Skipped,
}

impl NodeState {
    /// Every state, in the order in which a node may pass through them.
    pub const ALL: [Self; 9] = [
        Self::New,
        Self::Ready,
        Self::Running,
        Self::Stopping,
        Self::Stopped,
        Self::Finished,
        Self::Failed,
        Self::Errored,
        Self::Skipped,
    ];

    /// Whether nothing more will happen on the node.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Stopped | Self::Finished | Self::Failed | Self::Errored | Self::Skipped
        )
    }

    /// The state as it stands in answers.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Errored => "errored",
            Self::Skipped => "skipped",
        }
    }
}

/// One node of a job.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Node {
    /// The certname.
    pub name: String,
    /// Where it stands.
    pub state: NodeState,
    /// When its state last changed.
    pub timestamp: Option<Time>,
    /// When the request was sent.
    pub start_timestamp: Option<Time>,
    /// When the outcome was recorded.
    pub finish_timestamp: Option<Time>,
    /// Seconds: from start to end, or so far.
    pub duration: Option<f64>,
    /// Of a Puppet run: the report's transaction.
    pub transaction_uuid: Option<String>,
    /// `message` of errored and skipped ones, `report-url` of ended ones, `run-time` of running ones.
    pub details: Map<String, Value>,
    /// What the task gave back; never null when the state is `finished`.
    pub result: Option<Value>,
}

/// Results may be secrets.
impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.name)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// `GET jobs/:id/nodes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Nodes {
    /// Where the events after this answer are.
    #[serde(rename = "next-events")]
    pub next_events: NextEvents,
    /// What to give as [`NodesQuery::after`] for the nodes behind these. Only for nodes that are
    /// ordered by when they ended, the first to end first. Beyond the original's API.
    #[serde(
        rename = "next-nodes",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub next_nodes: Option<String>,
    /// The nodes.
    pub items: Vec<Node>,
}

/// The query of `GET jobs/:id/nodes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodesQuery {
    /// The most nodes of the answer; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// How many nodes to pass over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Only nodes behind those of an earlier answer, as that has told. However many there are, it
    /// costs no more than the answer. Beyond the original's API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// By what to order; the name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_by: Option<NodeOrder>,
    /// In which direction; ascending when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// Only nodes in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<NodeState>,
    /// Whether results show what their tasks have marked as secrets (`_sensitive`); no when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitive: Option<SensitiveResults>,
}

/// Whether results show what their tasks have marked as secrets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SensitiveResults {
    /// A note stands in for them.
    #[default]
    Redact,
    /// They do, for whoever started the job.
    Include,
}

/// By what nodes are ordered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeOrder {
    /// The certname.
    #[default]
    Name,
    /// How long it took.
    Duration,
    /// The state's name.
    State,
    /// When the request was sent.
    StartTimestamp,
    /// When the outcome was recorded.
    FinishTimestamp,
}

/// `GET jobs/:id/report`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// One item a node.
    pub items: Vec<ReportItem>,
}

/// One node of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportItem {
    /// The certname.
    pub node: String,
    /// Where it stands.
    pub state: NodeState,
    /// When its state last changed.
    pub timestamp: Option<Time>,
    /// When the request was sent.
    pub start_timestamp: Option<Time>,
    /// When the outcome was recorded.
    pub finish_timestamp: Option<Time>,
    /// Resource events of a Puppet run; none for a task.
    pub events: Vec<Value>,
}
