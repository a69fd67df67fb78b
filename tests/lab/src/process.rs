//! [`Process`]: one process of the lab, from its start over its readiness to its end.
//!
//! Each is in a process group of its own, so that Ctrl-C reaches the lab alone, which ends them in
//! order. It is known by the handle of our own child and never by a number read back from a file.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::LabError;
use crate::error::file;
use crate::network::Host;
use crate::site::Site;
use crate::wait::wait_until;

/// How long a process may take to be ready: generous, since two busy cores run debug builds too.
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// How long a process may take to end before it is killed.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// How often a process that is to become ready is looked after.
const LOOK: Duration = Duration::from_millis(50);

/// How much of the end of a log is shown.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 15;

/// What a process is in the mesh. Those of one kind end together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Primary,
    Compiler,
    Orchestrator,
    Agent,
}

/// One process of the lab.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    kind: Kind,
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Where it runs; without one, where the lab does.
    host: Option<Host>,
    log: PathBuf,
    pid_file: PathBuf,
    notify_path: PathBuf,
    notify: UnixDatagram,
    child: Option<Child>,
    /// Where the log ended when the process was started last.
    log_start: u64,
}

impl Process {
    /// A process that is not started yet.
    pub(crate) fn new(
        site: &Site,
        name: &str,
        kind: Kind,
        program: PathBuf,
        arguments: Vec<OsString>,
    ) -> Result<Self, LabError> {
        let notify_path = site.socket(name);
        // One of a lab that ran here before.
        if notify_path.exists() {
            fs::remove_file(&notify_path).map_err(file("remove", &notify_path))?;
        }
        let notify = UnixDatagram::bind(&notify_path).map_err(file("create", &notify_path))?;
        notify
            .set_read_timeout(Some(LOOK))
            .map_err(file("use", &notify_path))?;
        Ok(Self {
            name: name.to_owned(),
            kind,
            program,
            arguments,
            host: None,
            log: site.logs_dir().join(format!("{name}.log")),
            pid_file: site.pids_dir().join(format!("{name}.pid")),
            notify_path,
            notify,
            child: None,
            log_start: 0,
        })
    }

    /// It is to run on this host.
    pub(crate) fn on(mut self, host: Option<Host>) -> Self {
        self.host = host;
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn pid(&mut self) -> Option<u32> {
        self.reap();
        self.child.as_ref().map(Child::id)
    }

    /// Starts it; it may not be running.
    pub(crate) fn start(&mut self) -> Result<(), LabError> {
        self.reap();
        if self.child.is_some() {
            return Err(LabError::Running(self.name.clone()));
        }
        let log = File::options()
            .append(true)
            .create(true)
            .open(&self.log)
            .map_err(file("open", &self.log))?;
        self.log_start = log.metadata().map_err(file("read", &self.log))?.len();
        let errors = log.try_clone().map_err(file("open", &self.log))?;
        self.forget_messages();
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env("NOTIFY_SOCKET", &self.notify_path)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0);
        let child = match &self.host {
            Some(host) => host.run(|| command.spawn())?,
            None => command.spawn(),
        };
        let child = child.map_err(|source| LabError::Spawn {
            name: self.name.clone(),
            program: self.program.clone(),
            source,
        })?;
        let written = fs::write(&self.pid_file, format!("{}\n", child.id()));
        self.child = Some(child);
        written.map_err(file("write", &self.pid_file))
    }

    /// Waits until it says that it is ready.
    pub(crate) fn wait_ready(&mut self, interrupted: &dyn Fn() -> bool) -> Result<(), LabError> {
        let end = Instant::now() + READY_DEADLINE;
        let mut buffer = [0; 4096];
        loop {
            match self.notify.recv(&mut buffer) {
                Ok(length) => {
                    let message = buffer.get(..length).unwrap_or_default();
                    if message
                        .split(|byte| *byte == b'\n')
                        .any(|line| line == b"READY=1")
                    {
                        return Ok(());
                    }
                }
                Err(error) if is_timeout(&error) => {}
                Err(source) => return Err(self.failed("hear from", source)),
            }
            if let Some(status) = self.reap() {
                return Err(self.died(status));
            }
            if interrupted() {
                return Err(LabError::Interrupted);
            }
            if Instant::now() >= end {
                return Err(LabError::NotReady {
                    name: self.name.clone(),
                    seconds: READY_DEADLINE.as_secs(),
                    log: self.log.clone(),
                    tail: self.tail(),
                });
            }
        }
    }

    /// Kills it and waits for its end.
    pub(crate) fn kill(&mut self) -> Result<(), LabError> {
        let Some(child) = &mut self.child else {
            return Err(LabError::NotRunning(self.name.clone()));
        };
        let ended = child.kill().and_then(|()| child.wait());
        ended.map_err(|source| self.failed("kill", source))?;
        self.gone();
        Ok(())
    }

    /// Asks it to end and waits for that.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus, LabError> {
        if self.child.is_none() {
            return Err(LabError::NotRunning(self.name.clone()));
        }
        self.ask_to_end();
        self.end()
            .ok_or_else(|| LabError::NotRunning(self.name.clone()))
    }

    /// Asks it to end, if it runs.
    pub(crate) fn ask_to_end(&self) {
        if let Some(child) = &self.child
            && let Ok(pid) = i32::try_from(child.id())
        {
            // It may have ended just now, and is ours until it is waited for.
            kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap_or_default();
        }
    }

    /// Waits for the end of a process that was asked to end, and kills it after the deadline.
    pub(crate) fn end(&mut self) -> Option<ExitStatus> {
        self.child.as_ref()?;
        let ended = wait_until("it ends", END_DEADLINE, || {
            self.reap().ok_or("it still runs")
        });
        if let Ok(status) = ended {
            return Some(status);
        }
        let mut child = self.child.take()?;
        // Killing can fail only for a process that has ended.
        child.kill().unwrap_or_default();
        let status = child.wait().ok();
        self.gone();
        status
    }

    /// How it has ended, if it has since the last look.
    pub(crate) fn reap(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.gone();
        Some(status)
    }

    pub(crate) fn died(&self, status: ExitStatus) -> LabError {
        LabError::Died {
            name: self.name.clone(),
            status,
            log: self.log.clone(),
            tail: self.tail(),
        }
    }

    fn gone(&mut self) {
        self.child = None;
        // A file that cannot be removed names a process that is gone: whoever uses it finds out.
        fs::remove_file(&self.pid_file).unwrap_or_default();
    }

    fn failed(&self, action: &'static str, source: io::Error) -> LabError {
        LabError::Process {
            action,
            name: self.name.clone(),
            source,
        }
    }

    /// What an earlier process of this name said is not said by the next.
    fn forget_messages(&self) {
        let mut buffer = [0; 16];
        if self.notify.set_nonblocking(true).is_ok() {
            while self.notify.recv(&mut buffer).is_ok() {}
        }
        self.notify.set_nonblocking(false).unwrap_or_default();
    }

    /// The last lines it has logged since its start.
    pub(crate) fn tail(&self) -> String {
        let read = || -> io::Result<String> {
            let mut log = File::open(&self.log)?;
            let length = log.metadata()?.len();
            let from = length.saturating_sub(TAIL_BYTES).max(self.log_start);
            log.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            log.take(TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_else(|error| format!("(cannot be read: {error})"));
        let lines: Vec<_> = text.lines().map(|line| format!("  {line}")).collect();
        lines
            .get(lines.len().saturating_sub(TAIL_LINES)..)
            .unwrap_or_default()
            .join("\n")
    }
}

/// Ends processes in the reverse order of their start. Those of one kind are asked together; whoever
/// does not end in time is killed.
pub(crate) fn end_in_order(processes: &mut [Process]) {
    let mut rest = processes;
    while let Some(kind) = rest.last().map(Process::kind) {
        let begin = rest
            .iter()
            .rposition(|process| process.kind() != kind)
            .map_or(0, |index| index + 1);
        let (earlier, last) = rest.split_at_mut(begin);
        for process in &mut *last {
            process.ask_to_end();
        }
        for process in last {
            process.end();
        }
        rest = earlier;
    }
}

/// No process outlives its value.
impl Drop for Process {
    fn drop(&mut self) {
        self.ask_to_end();
        self.end();
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(site: &Site, script: &str) -> Process {
        let arguments = vec!["-c".into(), script.into()];
        Process::new(site, "it", Kind::Agent, "/bin/sh".into(), arguments).unwrap()
    }

    #[test]
    fn one_that_ends_before_it_is_ready_is_told_with_its_last_words() {
        let site = Site::prepare(None, None).unwrap();
        let mut process = shell(&site, "echo no configuration >&2; exit 78");
        for _ in 0..2 {
            process.start().unwrap();
            let error = process.wait_ready(&|| false).unwrap_err().to_string();
            assert!(error.contains("exit status: 78"), "{error}");
            assert_eq!(error.matches("no configuration").count(), 1, "{error}");
        }
    }

    #[test]
    fn one_that_runs_is_stopped_or_killed_and_its_pid_file_goes_with_it() {
        let site = Site::prepare(None, None).unwrap();
        let mut process = shell(&site, "exec tail -f /dev/null");
        assert!(matches!(process.kill(), Err(LabError::NotRunning(_))));
        process.start().unwrap();
        assert!(matches!(process.start(), Err(LabError::Running(_))));
        let pid = fs::read_to_string(site.pids_dir().join("it.pid")).unwrap();
        assert_eq!(pid.trim(), process.pid().unwrap().to_string());
        process.kill().unwrap();
        assert!(process.pid().is_none() && !site.pids_dir().join("it.pid").exists());
        process.start().unwrap();
        assert!(!process.stop().unwrap().success());
    }
}
