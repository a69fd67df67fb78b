//! Task targets: some tasks on some nodes, under a number that a role may be granted. Which nodes
//! they are is looked up when a task is to be run ([`crate::scope::permit_targets`]).

use std::fmt;
use std::str::FromStr;

use orchestrator_api::{ApiError, ErrorKind, TaskTargetRequest};
use pcp::uri::Certname;

/// The longest display name, task name, group id or query, in bytes.
const MAX_TEXT: usize = 4096;

/// The most tasks, nodes or groups that one task target names: those of a large estate.
const MAX_NAMES: usize = 50_000;

/// The number of a task target. It is never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TargetId(pub(crate) i64);

/// Some tasks on some nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskTarget {
    pub(crate) display_name: String,
    pub(crate) tasks: Vec<String>,
    pub(crate) all_tasks: bool,
    pub(crate) nodes: Vec<Certname>,
    pub(crate) node_groups: Vec<String>,
    pub(crate) query: Option<String>,
}

impl TaskTarget {
    /// Whether a task belongs to it; without one, whether any does.
    pub(crate) fn covers(&self, task: Option<&str>) -> bool {
        self.all_tasks || task.is_none_or(|task| self.tasks.iter().any(|name| name == task))
    }
}

impl TryFrom<TaskTargetRequest> for TaskTarget {
    type Error = ApiError;

    fn try_from(request: TaskTargetRequest) -> Result<Self, ApiError> {
        let invalid = |msg: &str| ApiError::new(ErrorKind::ValidationError, msg);
        let tasks = request.tasks.unwrap_or_default();
        let all_tasks = request.all_tasks.unwrap_or_default();
        if tasks.is_empty() && !all_tasks {
            return Err(invalid("tasks is empty: name tasks, or set all_tasks"));
        }
        let counts = [&tasks, &request.nodes, &request.node_groups].map(Vec::len);
        if counts.into_iter().any(|count| count > MAX_NAMES) {
            return Err(invalid("more than 50000 names: use node_groups or a query"));
        }
        let display_name = request.display_name.unwrap_or_default();
        let query = request.pql_query.filter(|query| !query.is_empty());
        let mut texts = tasks.iter().chain(&request.node_groups).chain(&query);
        if texts.any(|text| text.is_empty() || text.len() > MAX_TEXT)
            || display_name.len() > MAX_TEXT
        {
            return Err(invalid("a name is empty or longer than 4096 bytes"));
        }
        let nodes = request.nodes.iter().map(|name| {
            Certname::parse(name).map_err(|_| {
                let msg = format!("{name:?} is not a certname");
                ApiError::new(ErrorKind::ValidationError, msg).with("nodes", name.as_str())
            })
        });
        Ok(Self {
            nodes: nodes.collect::<Result<_, _>>()?,
            display_name,
            tasks,
            all_tasks,
            node_groups: request.node_groups,
            query,
        })
    }
}

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Plain digits.
impl FromStr for TargetId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().map_err(|_| ())?;
        if is_plain { Ok(Self(number)) } else { Err(()) }
    }
}
