//! Resident memory of a process, as the kernel counts it.

use std::fs;

use anyhow::{Context as _, Result};

/// Resident memory in KiB (`VmRSS` of `/proc/PID/status`).
pub(crate) fn resident(pid: u32) -> Result<u64> {
    status(pid, "VmRSS:")
}

/// The most resident memory that a process has had, in KiB (`VmHWM`).
pub(crate) fn peak(pid: u32) -> Result<u64> {
    status(pid, "VmHWM:")
}

fn status(pid: u32, key: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let number = line
        .and_then(|line| line.split_whitespace().next())
        .with_context(|| format!("no line {key}"))?;
    number
        .parse()
        .with_context(|| format!("{key} is no number"))
}

/// CPU seconds that a process has used (`schedstat` of its threads, in nanoseconds).
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0_u64;
    let tasks = format!("/proc/{pid}/task");
    for task in fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}"))? {
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        let first = text.split_whitespace().next().unwrap_or("0");
        nanoseconds += first.parse::<u64>().unwrap_or(0);
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    Ok(nanoseconds as f64 / 1e9)
}

/// KiB as MiB, for people.
pub(crate) fn mib(kib: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let mib = kib as f64 / 1024.0;
    format!("{mib:.1} MiB")
}
