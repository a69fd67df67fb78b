//! The process of a Puppet run: `pxp-agent module pxp-module-puppet run`, started by the execution
//! wrapper like any task, so that waiting for another run, Puppet itself and reading its report outlive
//! the agent and end with the transaction. What Puppet says goes to standard error, as it is said; the
//! result goes to standard output at the end.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use pxp::{PuppetRun, PuppetRunError, PuppetRunResult};
use serde::{Deserialize, Serialize};

use super::flags;
use super::places::{AskError, Places, Seen, View};
use super::report::{self, Report};

/// How long another run is waited for: the original's ten minutes.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// How often it is looked whether the other run has ended: the original's tenth of a second.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What the process finds on its standard input. Its form is that of the original's external modules.
#[derive(Debug, Serialize, Deserialize)]
pub struct Task {
    /// The parameters of the request.
    pub input: PuppetRun,
    /// What the agent adds.
    pub configuration: Configuration,
}

/// What the agent adds to a request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Configuration {
    /// Where `puppet` is said to be; looked for otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub puppet_bin: Option<PathBuf>,
    /// The PID namespace that the agent is in. In another one, Puppet does not see who holds its lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_namespace: Option<PathBuf>,
}

/// The PID namespace that this process is in, where the system tells.
#[must_use]
pub fn pid_namespace() -> Option<PathBuf> {
    std::fs::read_link("/proc/self/ns/pid").ok()
}

/// Reads the request from `input`, runs Puppet, and writes the result to `output`. `true` when nothing
/// went wrong.
///
/// # Errors
/// When the result cannot be written.
pub fn run(input: impl Read, mut output: impl Write) -> io::Result<bool> {
    let result = match serde_json::from_reader(input) {
        Ok(task) => of(&task),
        Err(error) => {
            let why = format!("the request for a Puppet run cannot be read: {error}");
            super::failed(-1, PuppetRunError::InvalidJson, why)
        }
    };
    serde_json::to_writer(&mut output, &result)?;
    output.flush()?;
    Ok(result.error_type.is_none())
}

fn of(task: &Task) -> PuppetRunResult {
    let run = Run::prepare(task).and_then(|run| run.to_its_end());
    run.unwrap_or_else(|Failure { kind, code, why }| super::failed(code, kind, why))
}

/// A run that ends without a report of its own.
#[derive(Debug)]
struct Failure {
    kind: PuppetRunError,
    code: i32,
    why: String,
}

/// Before Puppet was run.
fn not_run(kind: PuppetRunError, why: String) -> Failure {
    let code = -1;
    Failure { kind, code, why }
}

struct Run<'a> {
    puppet: PathBuf,
    arguments: Vec<String>,
    places: Places,
    job: Option<&'a str>,
    view: View,
    /// How long another run is waited for.
    patience: Duration,
}

impl<'a> Run<'a> {
    fn prepare(task: &'a Task) -> Result<Self, Failure> {
        let arguments = flags::arguments(&task.input)
            .map_err(|error| not_run(PuppetRunError::InvalidJson, error.to_string()))?;
        let configured = task.configuration.puppet_bin.as_deref();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let puppet = super::find(configured, &path)
            .map_err(|error| not_run(PuppetRunError::NoPuppetBin, error.to_string()))?;
        Ok(Self {
            places: Places::ask(&puppet).map_err(|error| unknown_places(&puppet, &error))?,
            puppet,
            arguments,
            job: task.input.job.as_deref(),
            view: match &task.configuration.pid_namespace {
                Some(agents) if pid_namespace().as_ref() != Some(agents) => View::Own,
                _ => View::Host,
            },
            patience: PATIENCE,
        })
    }

    /// One run at a time. Puppet's own lock says who is running, but not who is next: those who were
    /// started by an agent stand in line by a lock on the directory that Puppet's lock lies in. Puppet
    /// is tried before its lock is looked at, for it knows best whether the lock is an old one.
    fn to_its_end(&self) -> Result<PuppetRunResult, Failure> {
        let deadline = Instant::now() + self.patience;
        let _turn = self.turn(deadline)?;
        if self.view == View::Own {
            // Puppet would take every lock for one that was left behind, and run beside the other.
            self.wait_for_lock(deadline);
            if self.places.is_held(self.view) {
                return Err(self.locked(-1));
            }
        }
        let held = self.places.locked.exists();
        let before = Seen::of(&self.places.report);
        let code = self.puppet()?;
        if code == 0 || self.is_ours(&before) {
            return self.result(code, &before);
        }
        self.check_enabled(code)?;
        // It may have ended in the meantime.
        if !held && !self.places.locked.exists() {
            return self.result(code, &before);
        }
        self.wait_for_lock(deadline);
        let before = Seen::of(&self.places.report);
        let code = self.puppet()?;
        if code != 0 && !self.is_ours(&before) {
            self.check_enabled(code)?;
            if self.places.locked.exists() {
                return Err(self.locked(code));
            }
        }
        self.result(code, &before)
    }

    fn wait_for_lock(&self, deadline: Instant) {
        let mut told = false;
        while self.places.is_held(self.view) && Instant::now() < deadline {
            if !told {
                note("another Puppet run is in progress; waiting for its end");
                told = true;
            }
            sleep(LOOK_AGAIN);
        }
    }

    fn turn(&self, deadline: Instant) -> Result<Option<File>, Failure> {
        // Without it there has never been a run, and whoever is first makes it.
        let directory = self.places.locked.parent().map(File::open);
        let Some(Ok(directory)) = directory else {
            return Ok(None);
        };
        let mut told = false;
        loop {
            match directory.try_lock() {
                Ok(()) => return Ok(Some(directory)),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    note(&format!(
                        "cannot stand in line with other Puppet runs: {error}"
                    ));
                    return Ok(None);
                }
            }
            if Instant::now() >= deadline {
                return Err(self.locked(-1));
            }
            if !told {
                note("another Puppet run of this agent is in progress; waiting for its end");
                told = true;
            }
            sleep(LOOK_AGAIN);
        }
    }

    fn locked(&self, code: i32) -> Failure {
        let why = format!(
            "another Puppet run has been in progress for {} s and more",
            self.patience.as_secs()
        );
        let kind = PuppetRunError::AgentLocked;
        Failure { kind, code, why }
    }

    fn puppet(&self) -> Result<i32, Failure> {
        let started = io::stderr()
            .as_fd()
            .try_clone_to_owned()
            .and_then(|stderr| {
                Command::new(&self.puppet)
                    .arg("agent")
                    .args(&self.arguments)
                    .stdin(Stdio::null())
                    .stdout(stderr)
                    .status()
            });
        started
            .map(code_of)
            .map_err(|error| cannot_start(&self.puppet, &error))
    }

    fn check_enabled(&self, code: i32) -> Result<(), Failure> {
        let Some(said) = self.places.disabled() else {
            return Ok(());
        };
        let said = said.map_or_else(String::new, |said| format!(": {said}"));
        let why =
            format!("Puppet is disabled on this node{said}; \"puppet agent --enable\" enables it");
        let kind = PuppetRunError::AgentDisabled;
        Err(Failure { kind, code, why })
    }

    /// Whether the report is surely that of our run, not of one that came in between.
    fn is_ours(&self, before: &Seen) -> bool {
        let job = self
            .job
            .filter(|_| before.is_older_than(&self.places.report));
        let report = job.and_then(|_| self.report().ok());
        report.is_some_and(|report| report.job_id.as_deref() == job)
    }

    fn report(&self) -> Result<Report, ReadError> {
        let file = File::open(&self.places.report)?;
        Ok(report::read(file)?)
    }

    fn result(&self, code: i32, before: &Seen) -> Result<PuppetRunResult, Failure> {
        let path = self.places.report.display();
        let failed = |kind, why| Failure { kind, code, why };
        let missing = |why| failed(PuppetRunError::NoLastRunReport, why);
        if !self.places.report.exists() {
            return Err(missing(format!(
                "Puppet ended with exit code {code} and left no report: there is no {path}"
            )));
        }
        if !before.is_older_than(&self.places.report) {
            return Err(missing(format!(
                "Puppet ended with exit code {code} and left no report of this run in {path}"
            )));
        }
        let report = self.report().map_err(|error| {
            let error = daemon::error_chain(&error);
            let why = format!("the report of the Puppet run, {path}, is not usable: {error}");
            failed(PuppetRunError::InvalidLastRunReport, why)
        })?;
        if let (Some(job), Some(reported)) = (self.job, &report.job_id)
            && job != reported
        {
            return Err(missing(format!(
                "another Puppet run (job {reported}) has replaced the report of this one in {path}"
            )));
        }
        let exit = (code != 0).then(|| format!("Puppet ended with exit code {code}"));
        Ok(PuppetRunResult {
            time: report.time,
            transaction_uuid: report.transaction_uuid,
            environment: report.environment,
            status: report.status,
            metrics: report.metrics,
            exitcode: code,
            version: super::RESULT_VERSION,
            error_type: exit.as_ref().map(|_| PuppetRunError::AgentExitNonZero),
            error: exit,
            usage: None,
        })
    }
}

/// Why a report cannot be had.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("it cannot be opened")]
    Open(#[from] io::Error),
    #[error("it is not what Puppet writes")]
    Form(#[from] report::ReportError),
}

fn unknown_places(puppet: &Path, error: &AskError) -> Failure {
    match error {
        AskError::Start(error) => cannot_start(puppet, error),
        AskError::Silent(status) => not_run(
            PuppetRunError::NoLastRunReport,
            format!(
                "\"{} agent --configprint\" (exit code {}) does not tell where Puppet's last run \
                 report lies",
                puppet.display(),
                code_of(*status)
            ),
        ),
    }
}

fn cannot_start(puppet: &Path, error: &io::Error) -> Failure {
    let why = format!("{} cannot be started: {error}", puppet.display());
    not_run(PuppetRunError::AgentFailedToStart, why)
}

fn code_of(status: ExitStatus) -> i32 {
    let of_signal = || 128_i32.saturating_add(status.signal().unwrap_or_default());
    status.code().unwrap_or_else(of_signal)
}

/// A line among those of Puppet.
fn note(text: &str) {
    // Nobody may be reading it any more.
    writeln!(io::stderr(), "pxp-agent: {text}").ok();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_no_request_has_a_result_that_says_so(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut written = Vec::new();
            prop_assert!(!run(bytes.as_slice(), &mut written).unwrap());
            let result: PuppetRunResult = serde_json::from_slice(&written).unwrap();
            prop_assert_eq!(result.error_type, Some(PuppetRunError::InvalidJson));
        }
    }

    #[test]
    fn a_run_that_never_gets_its_turn_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let run = Run {
            puppet: "/bin/false".into(),
            arguments: Vec::new(),
            places: Places {
                report: path("report"),
                disabled: path("disabled"),
                locked: path("locked"),
            },
            job: None,
            view: View::Host,
            patience: Duration::from_millis(250),
        };
        let kind_and_code = |result: Result<_, Failure>| result.map_err(|f| (f.kind, f.code));
        let none = kind_and_code(run.to_its_end());
        assert_eq!(none, Err((PuppetRunError::NoLastRunReport, 1)));
        // Puppet's own lock stays.
        std::fs::write(path("locked"), "1").unwrap();
        let held = kind_and_code(run.to_its_end());
        assert_eq!(held, Err((PuppetRunError::AgentLocked, 1)));
        // Another one of ours does not end.
        let other = run.turn(Instant::now()).unwrap().unwrap();
        let queued = kind_and_code(run.to_its_end());
        assert_eq!(queued, Err((PuppetRunError::AgentLocked, -1)));
        drop(other);
        // Nobody has this number: the run was killed, and Puppet itself looks after its lock.
        std::fs::write(path("locked"), i32::MAX.to_string()).unwrap();
        let begun = Instant::now();
        let tried = kind_and_code(run.to_its_end());
        assert_eq!(tried, Err((PuppetRunError::AgentLocked, 1)));
        assert!(begun.elapsed() < run.patience);
        // Where others are not seen, Puppet is not even tried while there is a lock.
        let mut run = run;
        run.view = View::Own;
        let unseen = kind_and_code(run.to_its_end());
        assert_eq!(unseen, Err((PuppetRunError::AgentLocked, -1)));
        std::fs::remove_file(path("locked")).unwrap();
        assert_eq!(kind_and_code(run.to_its_end()), none);
    }

    #[test]
    fn a_request_that_cannot_be_read_has_a_result_that_says_so() {
        let mut written = Vec::new();
        assert!(!run(&b"{\"input\": 1"[..], &mut written).unwrap());
        let result: PuppetRunResult = serde_json::from_slice(&written).unwrap();
        assert_eq!(result.error_type, Some(PuppetRunError::InvalidJson));
        assert_eq!((result.exitcode, &*result.status), (-1, "unknown"));
    }
}
