//! Tasks of an environment.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The query of the task endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnvironmentQuery {
    /// The environment; [`crate::DEFAULT_ENVIRONMENT`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
}

/// An environment, and which state of its code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Environment {
    /// The name.
    pub name: String,
    /// The id of the deployed code, where there is one.
    pub code_id: Option<String>,
}

/// `GET tasks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskList {
    /// Where they come from.
    pub environment: Environment,
    /// The tasks, by name.
    pub items: Vec<TaskItem>,
}

/// One task of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskItem {
    /// The task's URL.
    pub id: String,
    /// The full name.
    pub name: String,
    /// Whether the caller may run it.
    pub permitted: bool,
    /// One line; empty when the task has none.
    #[serde(default)]
    pub description: String,
    /// Whether it is meant for other tasks and plans only, and hidden from lists for people.
    #[serde(default)]
    pub private: bool,
}

/// `GET tasks/:module/:task`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskDetail {
    /// The task's URL.
    pub id: String,
    /// The full name.
    pub name: String,
    /// Where it comes from.
    pub environment: Environment,
    /// The metadata as its author wrote it.
    pub metadata: Map<String, Value>,
    /// Executables and what they need.
    pub files: Vec<TaskFile>,
    /// Whether the caller may run it.
    pub permitted: bool,
}

/// One file of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskFile {
    /// Its name for the agent.
    pub filename: String,
    /// Where Puppet Server has it.
    pub uri: FileUri,
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
    /// Size of the content in bytes.
    pub size_bytes: u64,
}

/// Where Puppet Server has a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileUri {
    /// The path.
    pub path: String,
    /// The query.
    pub params: Map<String, Value>,
}
