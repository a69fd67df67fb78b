//! What holds where nothing is written. Places are the original's, for root and for other users.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long transactions and task files are kept: the original's two weeks.
pub const PURGE_TTL: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// How long a task may run. There is always a limit, so that a task that waits for ever (for a
/// prompt, a lock, a dead server) ends; an hour is beyond nearly all that is meant to end.
pub const TASK_TIME_LIMIT: Duration = Duration::from_secs(60 * 60);

/// How much of each output stream is kept. Results are meant for people and programs to read; both
/// streams together fit into a message even when JSON makes them longer.
pub const TASK_OUTPUT_LIMIT: u64 = 8 * 1024 * 1024;

/// How many tasks run at once: far more than orchestrators send to one node, and few enough that a
/// node survives them.
pub const TASK_CONCURRENCY: usize = 64;

/// The file that is read when none is named.
///
/// # Errors
/// When the user database does not know an ordinary user's home.
pub fn config_file() -> io::Result<PathBuf> {
    if is_root() {
        return Ok(PathBuf::from("/etc/puppetlabs/pxp-agent/pxp-agent.conf"));
    }
    Ok(home()?.join(".puppetlabs/etc/pxp-agent/pxp-agent.conf"))
}

/// The directory of spool and cache.
///
/// # Errors
/// When the user database does not know an ordinary user's home.
pub fn base() -> io::Result<PathBuf> {
    if is_root() {
        return Ok(PathBuf::from("/opt/puppetlabs/pxp-agent"));
    }
    Ok(home()?.join(".puppetlabs/opt/pxp-agent"))
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

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn home() -> io::Result<PathBuf> {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid())?;
    user.map(|user| user.dir)
        .ok_or_else(|| io::Error::other("this user has no entry in the user database"))
}
