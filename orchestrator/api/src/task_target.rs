//! Task targets: some tasks on some nodes, under a number that a role may be granted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `POST command/task_target`. The nodes are those of all three sources together. Whether tasks and
/// nodes exist is not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskTargetRequest {
    /// What it is for, for people.
    pub display_name: Option<String>,
    /// The tasks by name; needed unless all are meant.
    pub tasks: Option<Vec<String>>,
    /// All tasks, whatever is named besides.
    pub all_tasks: Option<bool>,
    /// Certnames.
    pub nodes: Vec<String>,
    /// Node groups by id; their nodes are those at the time of a run.
    pub node_groups: Vec<String>,
    /// A query of PuppetDB; its nodes are those at the time of a run.
    pub pql_query: Option<String>,
}

/// The answer to `POST command/task_target`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskTargetCreated {
    /// The new one.
    pub task_target: TaskTargetReference,
}

/// Which task target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskTargetReference {
    /// The URL.
    pub id: String,
    /// The number, as text: what a permission names.
    pub name: String,
}

/// `GET scopes/task_targets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskTargets {
    /// All there are, the oldest first.
    pub items: Vec<TaskTarget>,
}

/// `GET scopes/task_targets/:id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskTarget {
    /// The URL.
    pub id: String,
    /// The number, as text.
    pub name: String,
    /// What it is for.
    pub display_name: String,
    /// The tasks that are named.
    pub tasks: Vec<String>,
    /// Whether all are meant.
    pub all_tasks: bool,
    /// The certnames that are named.
    pub nodes: Vec<String>,
    /// Node groups by id.
    pub node_groups: Vec<String>,
    /// A query of PuppetDB.
    pub pql_query: Option<String>,
}
