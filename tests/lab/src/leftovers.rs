//! Processes that nobody owns any more: tasks that still run when their agents have ended, and what a
//! lab left behind that was killed itself.
//!
//! An agent leaves tasks running on purpose, so that it can be restarted under them; a lab that ends
//! has nobody to come back for them. Each process of ours has an argument that lies in the lab's
//! directory, and an `execution-wrapper` that is asked to end ends its task first.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_until;

const PROGRAMS: [&str; 4] = [
    "pxp-agent",
    "execution-wrapper",
    "pcp-broker",
    "pxp-orchestrator",
];

/// How long they have when asked to end: a task gets a grace of some seconds before it is killed.
const GRACE: Duration = Duration::from_secs(15);

/// A killed process is gone in milliseconds.
const DEADLINE: Duration = Duration::from_secs(5);

/// Ends whatever runs with files of this lab, and waits until it is gone.
pub(crate) fn end(dir: &Path) {
    let mut asked = BTreeSet::new();
    let ended = wait_until("what the lab left has ended", GRACE, || {
        let left = left(dir);
        for pid in &left {
            if asked.insert(*pid) {
                // One that has ended meanwhile is no concern.
                kill(*pid, Signal::SIGTERM).unwrap_or_default();
            }
        }
        empty(&left)
    });
    if ended.is_ok() {
        return;
    }
    let killed = wait_until("what the lab left has ended", DEADLINE, || {
        let left = left(dir);
        for pid in &left {
            kill(*pid, Signal::SIGKILL).unwrap_or_default();
        }
        empty(&left)
    });
    if let Err(error) = killed {
        #[expect(clippy::print_stderr, reason = "nobody else is left to say it")]
        {
            eprintln!("{error}");
        }
    }
}

fn empty(left: &[Pid]) -> Result<(), String> {
    if left.is_empty() {
        Ok(())
    } else {
        Err(format!("still there: {left:?}"))
    }
}

fn left(dir: &Path) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| belongs_to(*pid, dir))
        .map(Pid::from_raw)
        .collect()
}

fn belongs_to(pid: i32, dir: &Path) -> bool {
    // Empty for a process that has ended and is not waited for yet.
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let mut words = line
        .split(|byte| *byte == 0)
        .map(|word| Path::new(OsStr::from_bytes(word)));
    let program = words.next().and_then(Path::file_name);
    program.is_some_and(|program| PROGRAMS.iter().any(|ours| program == *ours))
        && words.any(|word| word.starts_with(dir))
}
