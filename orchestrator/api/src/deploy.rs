//! `command/deploy`: a Puppet run on many nodes, and the options of the job that it becomes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::command::Scope;

/// `POST command/deploy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "DeployKeys", into = "DeployKeys")]
pub struct DeployRequest {
    /// The environment; empty or absent: each node's own.
    pub environment: Option<String>,
    /// Where Puppet is to run.
    pub scope: Option<Scope>,
    /// How many of the nodes may run at once.
    pub concurrency: Option<u64>,
    /// What the caller says it is for.
    pub description: Option<String>,
    /// Whether nodes must run in `environment` whatever they are assigned to; yes when absent.
    pub enforce_environment: Option<bool>,
    /// How many seconds Puppet may take on each node.
    pub timeout: Option<u64>,
    /// Anything that the caller wants to find again in the job.
    pub userdata: Option<Map<String, Value>>,
    /// An application of the original's deprecated kind. Read so that it can be refused by name.
    pub target: Option<Value>,
    /// Settings that are passed on to Puppet.
    pub flags: RunFlags,
}

/// Settings of a Puppet run. What is absent is left to each node's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunFlags {
    /// Only look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noop: Option<bool>,
    /// Change things, also on nodes that are configured to look only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_noop: Option<bool>,
    /// Log everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debug: Option<bool>,
    /// Log where errors come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<bool>,
    /// Log each resource as it is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaltrace: Option<bool>,
    /// In which order resources are applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordering: Option<String>,
    /// Only resources with one of these tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Words>,
    /// No resources with one of these tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_tags: Option<Words>,
    /// Use the catalog of the last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_cached_catalog: Option<bool>,
    /// Use the catalog of the last run when there is no new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usecacheonfailure: Option<bool>,
    /// How long changed files are waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filetimeout: Option<Setting>,
    /// How long a connection may take to stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_connect_timeout: Option<Setting>,
    /// How long an idle connection is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_keepalive_timeout: Option<Setting>,
    /// How long an answer may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_read_timeout: Option<Setting>,
}

/// A setting that is a number, or a number with a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Setting {
    /// Such as 30.
    Number(u64),
    /// Such as `"30s"`.
    Text(String),
}

/// One word, or several: a list, or one text with commas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Words {
    /// Such as `"web,db"`.
    Text(String),
    /// Such as `["web", "db"]`.
    List(Vec<String>),
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// With commas, as Puppet takes them.
impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::List(words) => words.join(",").fmt(f),
        }
    }
}

/// The options of a job that runs Puppet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeployOptions {
    /// What the caller said it is for.
    pub description: String,
    /// The environment; empty: each node's own.
    pub environment: String,
    /// Whether nodes run in `environment` whatever they are assigned to.
    pub enforce_environment: bool,
    /// Where it runs.
    pub scope: Scope,
    /// How many of the nodes may run at once.
    pub concurrency: Option<u64>,
    /// How many seconds Puppet may take on each node.
    pub timeout: Option<u64>,
    /// The number of the job that it runs once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun_of: Option<String>,
    /// What was decided for the caller: nodes that were left out because they are not permitted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What was passed on to Puppet.
    #[serde(flatten)]
    pub flags: RunFlags,
}

/// The body has a key that this version does not know. It is refused rather than ignored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown key `{0}`")]
pub struct UnknownKey(pub String);

#[derive(Serialize, Deserialize, JsonSchema)]
struct DeployKeys {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    environment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<Scope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    concurrency: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    enforce_environment: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    userdata: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<Value>,
    #[serde(flatten)]
    flags: RunFlags,
    /// Whatever else there is.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl TryFrom<DeployKeys> for DeployRequest {
    type Error = UnknownKey;

    fn try_from(keys: DeployKeys) -> Result<Self, UnknownKey> {
        if let Some(key) = keys.rest.keys().next() {
            return Err(UnknownKey(key.clone()));
        }
        Ok(Self {
            environment: keys.environment,
            scope: keys.scope,
            concurrency: keys.concurrency,
            description: keys.description,
            enforce_environment: keys.enforce_environment,
            timeout: keys.timeout,
            userdata: keys.userdata,
            target: keys.target,
            flags: keys.flags,
        })
    }
}

impl From<DeployRequest> for DeployKeys {
    fn from(request: DeployRequest) -> Self {
        Self {
            environment: request.environment,
            scope: request.scope,
            concurrency: request.concurrency,
            description: request.description,
            enforce_environment: request.enforce_environment,
            timeout: request.timeout,
            userdata: request.userdata,
            target: request.target,
            flags: request.flags,
            rest: Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The names of [`RunFlags`].
    const FLAGS: [&str; 14] = [
        "noop",
        "no_noop",
        "debug",
        "trace",
        "evaltrace",
        "ordering",
        "tags",
        "skip_tags",
        "use_cached_catalog",
        "usecacheonfailure",
        "filetimeout",
        "http_connect_timeout",
        "http_keepalive_timeout",
        "http_read_timeout",
    ];

    fn request(body: Value) -> Result<DeployRequest, serde_json::Error> {
        serde_json::from_value(body)
    }

    #[test]
    fn a_request_is_written_as_it_was_read() {
        let body = json!({"environment": "production", "scope": {"nodes": ["a"]}, "noop": true,
            "tags": ["web", "db"], "skip_tags": "slow", "filetimeout": "10s",
            "http_read_timeout": 30, "concurrency": 4, "enforce_environment": false});
        let read = request(body.clone()).unwrap();
        assert_eq!(read.flags.tags.as_ref().unwrap().to_string(), "web,db");
        assert_eq!(serde_json::to_value(&read).unwrap(), body);
    }

    #[test]
    fn null_means_absent_and_what_is_not_known_is_refused_by_name() {
        let nulls: Map<String, Value> = FLAGS
            .iter()
            .chain(&[
                "environment",
                "scope",
                "concurrency",
                "timeout",
                "target",
                "userdata",
            ])
            .map(|name| ((*name).to_owned(), Value::Null))
            .collect();
        let read = request(Value::Object(nulls)).unwrap();
        assert_eq!(read, request(json!({})).unwrap());
        let error = request(json!({"environment": "a", "run_as": "root"})).unwrap_err();
        assert!(error.to_string().contains("run_as"), "{error}");
        assert!(request(json!({"noop": "yes"})).is_err());
        let two = json!({"scope": {"nodes": ["x"], "application": "App"}});
        assert!(
            request(two)
                .unwrap_err()
                .to_string()
                .contains("application")
        );
    }
}
