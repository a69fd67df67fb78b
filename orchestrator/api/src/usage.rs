//! How much the orchestrator is used, by day.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Date;

/// The query of `GET usage`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UsageQuery {
    /// The first day; 30 days before the last when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_date: Option<Date>,
    /// The last day; today when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_date: Option<Date>,
    /// Whether counts of changes are in the answer; yes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<UsageEvents>,
}

/// Whether counts of changes are in the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UsageEvents {
    /// They are.
    #[default]
    Include,
    /// They are not.
    Exclude,
}

/// `GET usage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// One item a day, the latest first.
    pub items: Vec<UsageDay>,
    /// Which days.
    pub pagination: UsagePagination,
}

/// Which days, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UsagePagination {
    /// The first.
    pub start_date: Date,
    /// The last.
    pub end_date: Date,
    /// How many.
    pub total: u64,
}

/// One day, in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UsageDay {
    /// Which.
    pub date: Date,
    /// Nodes that had been connected by then.
    pub total_nodes: u64,
    /// Those with an agent: all of them.
    pub nodes_with_agent: u64,
    /// Those without: none are supported.
    pub nodes_without_agent: u64,
    /// Resources that Puppet runs of jobs have put right again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrective_agent_changes: Option<u64>,
    /// Resources that they have changed because their code had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intentional_agent_changes: Option<u64>,
    /// Nodes on which tasks have ended.
    pub nodes_affected_by_task_runs: u64,
    /// Nodes on which tasks of plans have ended.
    pub nodes_affected_by_plan_runs: u64,
}
