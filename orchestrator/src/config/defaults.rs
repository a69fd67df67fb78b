//! What holds when the files say nothing, each with its reason.

use std::time::Duration;

/// All addresses.
pub(super) const HOST: &str = "0.0.0.0";

/// The port that clients of the original know.
pub(super) const PORT: u16 = 8143;

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

/// Many times what the modules of an estate have as files of tasks.
pub(super) const TASK_FILES_SIZE: u64 = 1024 * 1024 * 1024;

/// The original's: long enough for a morning's work at one thing.
pub(super) const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// The original's ten years: services keep tokens too.
pub(super) const LONGEST_TOKEN_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86400);

/// The original's number of failed logins.
pub(super) const FAILED_ATTEMPTS: u32 = 10;

/// How many Puppet runs the original lets compile at once: catalogs cost the servers' processors.
pub(super) const GLOBAL_CONCURRENT_COMPILES: u32 = 8;

/// A run waits for one that is under way for up to ten minutes, and may then take as long as a task.
pub(super) const DEPLOY_NODE_TIMEOUT: Duration = Duration::from_secs(50 * 60);

/// The original's number of questions, twelve seconds apart, that a node may leave unanswered.
pub(super) const ALLOWED_PCP_STATUS_REQUESTS: u32 = 35;

/// The original's month of history.
pub(super) const JOB_PRUNE_THRESHOLD: Duration = Duration::from_secs(30 * 24 * 3600);

/// The original's least: what ended on a Friday is there on a Sunday.
pub(super) const LEAST_JOB_PRUNE_THRESHOLD: Duration = Duration::from_secs(2 * 24 * 3600);
