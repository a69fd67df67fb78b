//! `command/…`: what a client asks for, and the answers that say it was accepted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `POST command/task`.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskRequest {
    /// The task's full name.
    pub task: String,
    /// Values of its parameters. May hold secrets: not shown by `Debug`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub params: Map<String, Value>,
    /// Where it is to run.
    pub scope: Scope,
    /// The environment that the task comes from; [`crate::DEFAULT_ENVIRONMENT`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// What the caller says it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Only look, where the task supports that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noop: Option<bool>,
    /// How many of the nodes may run it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u64>,
    /// How many seconds the task may take on each node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// Anything that the caller wants to find again in the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub userdata: Option<Map<String, Value>>,
    /// Nodes without an agent. Read so that it can be refused by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<Value>>,
    /// The plan job that it belongs to: needed by `command/plan_task`, refused by `command/task`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_job: Option<String>,
}

/// Parameters may be secrets.
impl std::fmt::Debug for TaskRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskRequest")
            .field("task", &self.task)
            .field("params", &"[redacted]")
            .field("scope", &self.scope)
            .field("environment", &self.environment)
            .field("noop", &self.noop)
            .finish_non_exhaustive()
    }
}

/// The nodes of a job: exactly one of three ways to say which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "ScopeKeys", into = "ScopeKeys")]
pub enum Scope {
    /// A list of certnames.
    Nodes(Vec<String>),
    /// A PQL query to PuppetDB.
    Query(String),
    /// The id of a node group.
    NodeGroup(String),
}

/// The scope does not say which nodes, or says it twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("scope must have exactly one of nodes, query and node_group")]
pub struct ScopeError;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ScopeKeys {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node_group: Option<String>,
}

impl TryFrom<ScopeKeys> for Scope {
    type Error = ScopeError;

    fn try_from(keys: ScopeKeys) -> Result<Self, ScopeError> {
        match (keys.nodes, keys.query, keys.node_group) {
            (Some(nodes), None, None) => Ok(Self::Nodes(nodes)),
            (None, Some(query), None) => Ok(Self::Query(query)),
            (None, None, Some(group)) => Ok(Self::NodeGroup(group)),
            _ => Err(ScopeError),
        }
    }
}

impl From<Scope> for ScopeKeys {
    fn from(scope: Scope) -> Self {
        let mut keys = Self {
            nodes: None,
            query: None,
            node_group: None,
        };
        match scope {
            Scope::Nodes(nodes) => keys.nodes = Some(nodes),
            Scope::Query(query) => keys.query = Some(query),
            Scope::NodeGroup(group) => keys.node_group = Some(group),
        }
        keys
    }
}

/// 202: the job is stored and will run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobAccepted {
    /// Which job it is.
    pub job: JobReference,
}

/// A job by URL and number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobReference {
    /// The job's URL.
    pub id: String,
    /// The job's number, as text.
    pub name: String,
}

/// `POST command/stop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// The job's number, as text.
    pub job: String,
    /// Kill what runs on nodes, instead of waiting for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

/// 202: the job is stopping or has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StopAccepted {
    /// Which job, and how far it is.
    pub job: StoppedJob,
}

/// A job that was asked to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoppedJob {
    /// The job's URL.
    pub id: String,
    /// The job's number, as text.
    pub name: String,
    /// How many nodes are in which state.
    pub nodes: NodeCounts,
}

/// How many nodes of a job are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeCounts {
    /// Not started, those about to be included.
    pub new: u64,
    /// Running.
    pub running: u64,
    /// The task failed.
    pub failed: u64,
    /// The task could not be run.
    pub errored: u64,
    /// Never started, because the job was stopped.
    pub skipped: u64,
    /// The task succeeded.
    pub finished: u64,
    /// Killed, or given up, while running, because the job was stopped by force.
    #[serde(default)]
    pub stopped: u64,
}

/// `POST command/rerun`: an ended job once more, as a new job. Beyond the original's API.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RerunRequest {
    /// The number of the ended job, as text.
    pub job: String,
    /// On which of its nodes; on all of them when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<RerunOnly>,
    /// Values of the task's sensitive parameters, which are stored nowhere and have to be given again;
    /// other parameters replace those of the ended job. May hold secrets: not shown by `Debug`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub params: Map<String, Value>,
    /// What the caller says it is for; the ended job's description when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Which nodes of an ended job are run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RerunOnly {
    /// Those that did not end well: failed, errored, skipped and stopped ones.
    Failed,
}

/// Parameters may be secrets.
impl std::fmt::Debug for RerunRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RerunRequest")
            .field("job", &self.job)
            .field("only", &self.only)
            .field("params", &"[redacted]")
            .finish_non_exhaustive()
    }
}

pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(body: Value) -> Result<TaskRequest, serde_json::Error> {
        serde_json::from_value(body)
    }

    #[test]
    fn null_means_absent() {
        let with_nulls = request(json!({"task": "a", "params": null, "environment": null,
            "noop": null, "description": null, "timeout": null, "targets": null,
            "scope": {"nodes": ["x"], "query": null, "node_group": null}}));
        let without = request(json!({"task": "a", "scope": {"nodes": ["x"]}}));
        assert_eq!(with_nulls.unwrap(), without.unwrap());
    }

    #[test]
    fn a_scope_is_exactly_one_of_three() {
        assert!(request(json!({"task": "a", "scope": {}})).is_err());
        assert!(request(json!({"task": "a"})).is_err());
        let two = json!({"nodes": ["x"], "query": "nodes {}"});
        let error = request(json!({"task": "a", "scope": two})).unwrap_err();
        assert!(error.to_string().contains("exactly one of"));
    }

    #[test]
    fn an_option_that_is_not_known_is_refused_by_name() {
        let error = request(json!({"task": "a", "scope": {"nodes": []}, "run_as": "root"}));
        assert!(error.unwrap_err().to_string().contains("run_as"));
    }

    #[test]
    fn debug_does_not_show_parameters() {
        let request = request(json!({"task": "a", "params": {"password": "hunter2"},
            "scope": {"nodes": ["x"]}}));
        assert!(!format!("{:?}", request.unwrap()).contains("hunter2"));
    }
}
