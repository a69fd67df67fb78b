//! The status endpoints, as all Puppet services have them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How much a status says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Detail {
    /// Whether it works.
    Critical,
    /// What an operator looks at.
    #[default]
    Info,
    /// Everything.
    Debug,
}

/// The query of the status endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusQuery {
    /// How much to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Detail>,
    /// How many seconds the caller waits. The answer never takes that long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

/// How a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServiceState {
    /// It works.
    Running,
    /// It does not work.
    Error,
    /// Not yet.
    Starting,
    /// No longer.
    Stopping,
    /// Nobody knows.
    Unknown,
}

/// One service's status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceStatus {
    /// The service's version.
    pub service_version: String,
    /// The version of this form.
    pub service_status_version: u32,
    /// How much is said.
    pub detail_level: Detail,
    /// How it is.
    pub state: ServiceState,
    /// More, by level.
    pub status: Map<String, Value>,
    /// What a person should look at.
    pub active_alerts: Vec<Value>,
}

/// `GET /status/v1/services`: by the service's name.
pub type Services = BTreeMap<String, ServiceStatus>;
