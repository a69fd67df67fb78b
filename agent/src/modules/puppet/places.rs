//! Where Puppet keeps what tells how it is: its last report, whether it is disabled, whether it runs.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::Deserialize;

use super::report;

/// The most that is read of what Puppet says about its settings, and of an administrator's reason for
/// disabling it. Both have a few lines.
const MAX_SHORT: u64 = 64 * 1024;

/// The longest that Puppet lets a run take (`runtimeout`). An older lock has been left behind.
const LONGEST_RUN: Duration = Duration::from_secs(60 * 60);

/// Whose processes are seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// All of the agent's host.
    Host,
    /// Only those of this run.
    Own,
}

/// The places.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// The report of the last run.
    pub(super) report: PathBuf,
    /// There when Puppet is disabled.
    pub(super) disabled: PathBuf,
    /// There while Puppet runs, and after a run that was killed.
    pub(super) locked: PathBuf,
}

/// Why they are not known.
#[derive(Debug)]
pub(super) enum AskError {
    /// Puppet cannot be started.
    Start(io::Error),
    /// It does not tell.
    Silent(ExitStatus),
}

impl Places {
    /// Asks Puppet.
    pub(super) fn ask(puppet: &Path) -> Result<Self, AskError> {
        let mut child = Command::new(puppet)
            .args(["agent", "--configprint"])
            .arg("lastrunreport,agent_disabled_lockfile,agent_catalog_run_lockfile")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(AskError::Start)?;
        let mut told = String::new();
        let read = child.stdout.take().map_or(Ok(0), |stdout| {
            stdout.take(MAX_SHORT).read_to_string(&mut told)
        });
        let status = read.and_then(|_| child.wait()).map_err(AskError::Start)?;
        Self::parse(&told).ok_or(AskError::Silent(status))
    }

    /// Whether an administrator has disabled Puppet, and what he said about it.
    pub(super) fn disabled(&self) -> Option<Option<String>> {
        let text = match read_short(&self.disabled) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            // It is there.
            Err(_) => String::new(),
        };
        let said: Result<Disabled, _> = serde_json::from_str(&text);
        Some(said.ok().map(|said| said.disabled_message))
    }

    /// Whether there is a lock, and, as far as can be seen, somebody who holds it: its file has the
    /// number of a process.
    pub(super) fn is_held(&self, view: View) -> bool {
        let Ok(metadata) = self.locked.metadata() else {
            return false;
        };
        match view {
            View::Host => {
                let holder = read_short(&self.locked).ok();
                let holder = holder.and_then(|text| text.trim().parse().ok());
                let holder = holder.filter(|pid| *pid > 0).map(Pid::from_raw);
                // A process of somebody else cannot be signalled, and is there.
                holder.is_none_or(|pid| kill(pid, None) != Err(Errno::ESRCH))
            }
            View::Own => {
                let age = metadata.modified().map(|made| made.elapsed());
                !matches!(age, Ok(Ok(age)) if age > LONGEST_RUN)
            }
        }
    }

    /// Lines `key = value`.
    fn parse(told: &str) -> Option<Self> {
        let value = |wanted: &str| {
            let pairs = told.lines().filter_map(|line| line.split_once(" = "));
            let mut values = pairs.filter(|(key, _)| *key == wanted);
            let (_, value) = values.next()?;
            Some(PathBuf::from(value)).filter(|path| path.is_absolute())
        };
        Some(Self {
            report: value("lastrunreport")?,
            disabled: value("agent_disabled_lockfile")?,
            locked: value("agent_catalog_run_lockfile")?,
        })
    }
}

/// What Puppet writes into the file that disables it.
#[derive(Deserialize)]
struct Disabled {
    disabled_message: String,
}

/// A report as it was seen before a run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    uuid: Option<String>,
    modified: Option<SystemTime>,
}

impl Seen {
    /// What lies there now.
    pub(super) fn of(path: &Path) -> Self {
        let file = File::open(path).ok();
        Self {
            modified: path
                .metadata()
                .and_then(|metadata| metadata.modified())
                .ok(),
            uuid: file.and_then(|file| Some(report::read(file).ok()?.transaction_uuid)),
        }
    }

    /// Whether there is another report now. Runs have ids; only where there is none, the time of the
    /// file has to do.
    pub(super) fn is_older_than(&self, path: &Path) -> bool {
        let now = Self::of(path);
        match (&self.uuid, &now.uuid) {
            (Some(before), Some(now)) => before != now,
            _ => now.modified != self.modified,
        }
    }
}

fn read_short(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_SHORT)
        .read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_puppet_tells_gives_absolute_places_or_none(
            told in "(lastrunreport|agent_disabled_lockfile|agent_catalog_run_lockfile| = |=|/v/|\n|é|\\PC){0,24}",
        ) {
            if let Some(places) = Places::parse(&told) {
                for path in [places.report, places.disabled, places.locked] {
                    prop_assert!(path.is_absolute());
                }
            }
        }

        #[test]
        fn a_lock_file_of_any_bytes_still_disables(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let dir = tempfile::tempdir().unwrap();
            let disabled = dir.path().join("disabled");
            std::fs::write(&disabled, &bytes).unwrap();
            let places = Places { disabled, ..Places::default() };
            prop_assert!(places.disabled().is_some());
        }
    }

    #[test]
    fn places_are_taken_from_what_puppet_tells() {
        let told = "agent_catalog_run_lockfile = /v/state/a = b.lock\n\
                    agent_disabled_lockfile = /v/state/d.lock\nnoise\nlastrunreport = /v/é.yaml\n";
        let places = Places::parse(told).unwrap();
        assert_eq!(places.report, Path::new("/v/é.yaml"));
        assert_eq!(places.locked, Path::new("/v/state/a = b.lock"));
        assert_eq!(Places::parse("lastrunreport = /v/r.yaml\n"), None);
        let relative = told.replace("= /v/é.yaml", "= r.yaml");
        assert_eq!(Places::parse(&relative), None);
    }
}
