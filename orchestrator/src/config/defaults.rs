//! What holds when the files say nothing, each with its reason.

use std::time::Duration;

/// All addresses, on the port that clients of the original know.
pub(super) const LISTEN: &str = "0.0.0.0:8143";

/// Under the directory that the service manager makes for the service.
pub(super) const DATABASE: &str = "/var/lib/pxp-orchestrator/orchestrator.db";

/// Where Puppet keeps the modules of the environment that everybody has.
pub(super) const MODULES: &str = "/etc/puppetlabs/code/environments/production/modules";

/// The original's number: enough to keep brokers busy, little enough to stop in time.
pub(super) const TASK_CONCURRENCY: u32 = 250;

/// The original's time for a node to be reachable.
pub(super) const PCP_TIMEOUT: Duration = Duration::from_secs(30);

/// The original's time for a task on each node.
pub(super) const TASK_NODE_TIMEOUT: Duration = Duration::from_secs(40 * 60);
