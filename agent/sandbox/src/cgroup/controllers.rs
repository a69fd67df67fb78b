//! The limits that a cgroup can have, and what it tells of what was used.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{CgroupError, Leaf};
use crate::plan::CgroupLimits;
use crate::support::{Controllers, Facility};

/// The period over which processor time is limited, in microseconds: the kernel's own default.
const PERIOD_US: u64 = 100_000;

/// What all processes of a cgroup took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Processor time.
    pub cpu: Option<Duration>,
    /// The most memory at once, in bytes.
    pub peak_memory: Option<u64>,
    /// How many of its processes were killed because the limit of memory was reached.
    pub killed_for_memory: u64,
    /// How often the limit of processes refused one more.
    pub processes_refused: u64,
}

/// Turns on, for the leaves below `base`, the controllers that tasks are limited with, and says which
/// of them work.
#[must_use]
pub fn enable(base: &Path) -> Controllers {
    Controllers {
        memory: facility(base, "memory"),
        pids: facility(base, "pids"),
        cpu: facility(base, "cpu"),
    }
}

fn facility(base: &Path, name: &str) -> Facility<()> {
    match turn_on(base, name) {
        Ok(()) => Facility::Available(()),
        Err(reason) => Facility::Missing(reason),
    }
}

fn turn_on(base: &Path, name: &str) -> Result<(), String> {
    if !lists(&base.join("cgroup.controllers"), name) {
        let parent = base.parent().unwrap_or(base);
        if !lists(&parent.join("cgroup.controllers"), name) {
            return Err(format!(
                "the cgroup {} does not have the controller {name}: the kernel lacks it, cgroup v1 \
                 holds it, or it was not delegated",
                parent.display()
            ));
        }
        add(parent, name)?;
    }
    add(base, name)
}

fn add(directory: &Path, name: &str) -> Result<(), String> {
    let path = directory.join("cgroup.subtree_control");
    if lists(&path, name) {
        return Ok(());
    }
    let refused = |why: String| {
        format!(
            "cannot turn on the controller {name} in {}: {why}",
            path.display()
        )
    };
    // The rule of "no internal processes" (cgroups(7)). For cpu and pids the kernel does not insist on it,
    // but makes every cgroup below one that no process can be put into. The root has no such rule.
    let root = !directory.join("cgroup.type").exists();
    let procs = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    if !root && !procs.is_empty() {
        let why = "processes are in that cgroup itself; a unit with Delegate=yes and \
                   DelegateSubgroup=supervisor (systemd 254) keeps the agent out of it";
        return Err(refused(why.to_owned()));
    }
    fs::write(&path, format!("+{name}")).map_err(|error| refused(error.to_string()))
}

fn lists(path: &Path, name: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.split_whitespace().any(|word| word == name))
}

impl Leaf {
    /// Limits what all processes in it may take.
    ///
    /// # Errors
    /// When a limit cannot be set.
    pub fn limit(&self, limits: &CgroupLimits) -> Result<(), CgroupError> {
        if let Some(bytes) = limits.memory {
            self.set("memory.max", &bytes.to_string())?;
            // Not by way of a swap file either, where there is one.
            match self.set("memory.swap.max", "0") {
                Err(CgroupError::Write { source, .. })
                    if source.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        if let Some(processes) = limits.processes {
            self.set("pids.max", &processes.to_string())?;
        }
        if let Some(percent) = limits.cpu_percent {
            let quota = u64::from(percent).saturating_mul(PERIOD_US / 100);
            self.set("cpu.max", &format!("{quota} {PERIOD_US}"))?;
        }
        Ok(())
    }

    /// What its processes took until now. What the kernel does not tell is missing.
    #[must_use]
    pub fn taken(&self) -> Taken {
        let number = |name: &str| fs::read_to_string(self.file(name)).ok();
        Taken {
            cpu: self
                .entry("cpu.stat", "usage_usec")
                .map(Duration::from_micros),
            peak_memory: number("memory.peak").and_then(|text| text.trim().parse().ok()),
            killed_for_memory: self.entry("memory.events", "oom_kill").unwrap_or(0),
            processes_refused: self.entry("pids.events", "max").unwrap_or(0),
        }
    }

    fn entry(&self, file: &str, key: &str) -> Option<u64> {
        let text = fs::read_to_string(self.file(file)).ok()?;
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
    }

    fn set(&self, name: &str, value: &str) -> Result<(), CgroupError> {
        let path: PathBuf = self.file(name);
        // Not created where it is missing: cgroupfs refuses, and says so.
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
            .map_err(|source| CgroupError::Write { path, source })
    }
}
