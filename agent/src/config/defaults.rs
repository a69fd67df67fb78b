//! What holds where nothing is written. Places are the original's, for root and for other users.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::logs::Facility;

/// How long transactions and task files are kept: the original's two weeks.
pub const PURGE_TTL: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// How much transactions that are done with may take: with ordinary output of a few KiB far more than
/// two weeks of them, and with output at its limit still less than any disk has.
pub const SPOOL_MAX_SIZE: u64 = 1 << 30;

/// How many of them are kept: at a dozen files each, an eighth of the inodes of a small disk.
pub const SPOOL_MAX_COUNT: usize = 10_000;

/// What must be free on the spool's disk for a new transaction: enough to write down the ends of all
/// that run, with their output at its limit in a few of them.
pub const SPOOL_RESERVE: u64 = 64 * 1024 * 1024;

/// How much task files may take. They are scripts; what is dropped is fetched again.
pub const CACHE_MAX_SIZE: u64 = 1 << 30;

/// How many task files are kept.
pub const CACHE_MAX_COUNT: usize = 10_000;

/// How long a task may run. There is always a limit, so that a task that waits for ever (for a
/// prompt, a lock, a dead server) ends; an hour is beyond nearly all that is meant to end.
pub const TASK_TIME_LIMIT: Duration = Duration::from_secs(60 * 60);

/// How much of each output stream is kept. Results are meant for people and programs to read; both
/// streams together fit into a message even when JSON makes them longer.
pub const TASK_OUTPUT_LIMIT: u64 = 8 * 1024 * 1024;

/// How many tasks run at once: far more than orchestrators send to one node, and few enough that a
/// node survives them.
pub const TASK_CONCURRENCY: usize = 64;

/// The original's time-outs of downloads.
pub const DOWNLOAD_CONNECT_TIMEOUT: Duration = Duration::from_secs(120);
/// The same for the whole of one.
pub const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(1800);

/// As what lines are logged to syslog: the original's.
pub const SYSLOG_FACILITY: Facility = Facility::local(5);

/// The file that is read when none is named.
///
/// # Errors
/// When the user database does not know an ordinary user's home.
pub fn config_file() -> io::Result<PathBuf> {
    Ok(places()?.config_dir.join("pxp-agent.conf"))
}

/// The wrapper that is installed with this agent.
///
/// # Errors
/// When the agent's own place cannot be found.
pub fn wrapper() -> io::Result<PathBuf> {
    let agent = std::env::current_exe()?;
    let directory = agent.parent().unwrap_or(Path::new("/"));
    Ok(directory.join("execution-wrapper"))
}

/// Where everything lies on this node, for this user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The agent's configuration.
    pub config_dir: PathBuf,
    /// Spool, cache and modules.
    pub base: PathBuf,
    /// Logs.
    pub log_dir: PathBuf,
    /// Puppet's own configuration.
    pub puppet_dir: PathBuf,
}

/// A broker that was repaired is left alone for as long as it takes to see that it stays up.
pub const HOME_AFTER: Duration = Duration::from_secs(600);

/// The places of root, or of an ordinary user.
///
/// # Errors
/// When the user database does not know an ordinary user's home.
pub fn places() -> io::Result<Places> {
    let uid = nix::unistd::geteuid();
    if uid.is_root() {
        return Ok(Places {
            config_dir: "/etc/puppetlabs/pxp-agent".into(),
            base: "/opt/puppetlabs/pxp-agent".into(),
            log_dir: "/var/log/puppetlabs/pxp-agent".into(),
            puppet_dir: "/etc/puppetlabs/puppet".into(),
        });
    }
    let user = nix::unistd::User::from_uid(uid)?
        .ok_or_else(|| io::Error::other("this user has no entry in the user database"))?;
    let own = user.dir.join(".puppetlabs");
    Ok(Places {
        config_dir: own.join("etc/pxp-agent"),
        base: own.join("opt/pxp-agent"),
        log_dir: own.join("var/log"),
        puppet_dir: own.join("etc/puppet"),
    })
}
