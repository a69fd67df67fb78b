//! Which nodes are connected.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Time;

/// `POST inventory`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InventoryQuery {
    /// The certnames asked about.
    pub nodes: Vec<String>,
}

/// `GET inventory`, and the answer to `POST inventory`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Inventory {
    /// One item a node.
    pub items: Vec<InventoryItem>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InventoryItem {
    /// The certname.
    pub name: String,
    /// Whether it is connected now.
    pub connected: bool,
    /// The broker that it is connected to, as the orchestrator's broker knows it; none when not
    /// connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<String>,
    /// When it came or went, as far as the orchestrator has seen it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Time>,
}
