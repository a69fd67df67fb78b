//! A whole mesh of real processes on one machine: the quick start and the bed of the system tests.
//!
//! [`Lab::builder`] makes a CA, ssldirs and configuration files, starts primary, compilers,
//! orchestrator and agents in that order, each when the one before is ready, and returns when all
//! agents are connected. The processes are those that users run, found beside the running
//! executable; nothing of the product is linked in. Dropping the [`Lab`] ends them all.
//!
//! With [`Builder::network`] each process has a host of its own: a network namespace.
//!
//! The binary `lab` is a thin shell around it: `lab run`, `lab up`, `lab load`, `lab restart`,
//! `lab cert`.

mod api;
mod binaries;
mod builder;
pub mod control;
mod environment;
mod error;
pub mod generator;
mod leftovers;
pub mod network;
mod overlay;
mod plan;
mod ports;
mod process;
mod site;
mod skip;
mod start;
mod wait;

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use api::Api;
pub use api::ApiError;
pub use binaries::{bin, build, workspace};
pub use builder::Builder;
pub use environment::FILE_NAME as ENVIRONMENT_FILE;
pub use error::LabError;
pub use lab_ca::SslDir;
pub use network::Network;
use ports::Reservation;
use process::Process;
pub use site::Site;
pub use skip::skip;
pub use wait::{TimedOut, wait_until};

/// How long all agents may take to be connected; a debug build on a busy machine needs seconds.
const CONNECT_DEADLINE: Duration = Duration::from_secs(60);

/// A running mesh. Its processes end with it.
#[derive(Debug)]
pub struct Lab {
    site: Site,
    api: Api,
    /// In the order of their start.
    processes: Mutex<Vec<Process>>,
    broker_primary: String,
    broker_compilers: Vec<String>,
    agents: usize,
    network: Option<Network>,
    /// Other labs of this machine keep off these ports while it runs.
    _ports: Vec<Reservation>,
}

impl Lab {
    /// A primary, an orchestrator, and whatever is added.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where everything of this lab lies.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.site.dir()
    }

    /// Certificates and folders of this lab.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The ssldir of a certname.
    ///
    /// # Errors
    /// When no certificate was issued for it.
    pub fn ssl_dir(&self, certname: &str) -> Result<PathBuf, LabError> {
        self.site.ssl_dir(certname)
    }

    /// Issues one more certificate from the lab's CA; `san` holds DNS names and IP addresses.
    ///
    /// # Errors
    /// When the certname is none, or files cannot be written.
    pub fn issue(&self, certname: &str, san: &[String]) -> Result<SslDir, LabError> {
        self.site.issue(certname, san)
    }

    /// The operator's token.
    #[must_use]
    pub fn token(&self) -> &str {
        self.api.token()
    }

    /// Where the orchestrator listens: `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn service_url(&self) -> String {
        self.api.url()
    }

    /// The CA certificates that the orchestrator's certificate is checked with.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.site.ca_file()
    }

    /// The primary's address: `127.0.0.1:PORT`.
    #[must_use]
    pub fn broker_primary(&self) -> &str {
        &self.broker_primary
    }

    /// The compilers' addresses, that of `compiler-1` first.
    #[must_use]
    pub fn broker_compilers(&self) -> &[String] {
        &self.broker_compilers
    }

    /// The agents' certnames: `agent-1` and so on, unless their certificates are of another CA.
    #[must_use]
    pub fn agents(&self) -> Vec<String> {
        let names = (1..=self.agents).map(agent_name);
        names.map(|name| self.site.certname_of(&name)).collect()
    }

    /// The hosts, in a lab that has several.
    ///
    /// # Errors
    /// When all its processes share one.
    pub fn network(&self) -> Result<&Network, LabError> {
        self.network.as_ref().ok_or(LabError::NoNetwork)
    }

    /// The names of all processes, in the order of their start.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let processes = self.processes();
        processes.iter().map(|p| p.name().to_owned()).collect()
    }

    /// The process id, while the process runs.
    #[must_use]
    pub fn pid(&self, name: &str) -> Option<u32> {
        self.with(name, |process| Ok(process.pid())).ok().flatten()
    }

    /// Kills a process (`SIGKILL`) and returns when it is gone. What it started may live on.
    ///
    /// # Errors
    /// When there is none of this name, or it does not run.
    pub fn kill(&self, name: &str) -> Result<(), LabError> {
        self.with(name, Process::kill)
    }

    /// Asks a process to end (`SIGTERM`), waits, and kills it when it does not. Gives how it ended.
    ///
    /// # Errors
    /// When there is none of this name, or it does not run.
    pub fn stop(&self, name: &str) -> Result<ExitStatus, LabError> {
        self.with(name, Process::stop)
    }

    /// Starts a process again that has ended, and returns when it is ready.
    ///
    /// # Errors
    /// When there is none of this name, it still runs, or it ends before it is ready.
    pub fn restart(&self, name: &str) -> Result<(), LabError> {
        self.with(name, |process| {
            process.start()?;
            process.wait_ready(&|| false)
        })
    }

    /// Processes that have ended by themselves, or were killed from outside, since the last call.
    #[must_use]
    pub fn deaths(&self) -> Vec<(String, ExitStatus)> {
        let mut processes = self.processes();
        let died = |process: &mut Process| Some((process.name().to_owned(), process.reap()?));
        processes.iter_mut().filter_map(died).collect()
    }

    /// Runs `puppet-task` as an operator of this lab and waits for its end.
    ///
    /// # Panics
    /// When the command cannot be started.
    #[must_use]
    pub fn puppet_task(&self, arguments: &[&str]) -> Output {
        let mut command = self.puppet_task_command();
        #[expect(clippy::panic, reason = "a test cannot go on without the command line")]
        match command.args(arguments).output() {
            Ok(output) => output,
            Err(error) => panic!("cannot run puppet-task: {error}"),
        }
    }

    /// `puppet-task`, configured as for an operator of this lab, to be completed and started.
    #[must_use]
    pub fn puppet_task_command(&self) -> Command {
        self.operator_command(bin("puppet-task"))
    }

    /// Any program as an operator of this lab runs it, to be completed and started: our commands are
    /// on its `PATH` and configured for this lab.
    #[must_use]
    pub fn operator_command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = [binaries::profile_dir()]
            .into_iter()
            .chain(env::split_paths(&path));
        // Only a folder with a colon in its name cannot be on a path, and then nothing would build.
        command.env("PATH", env::join_paths(folders).unwrap_or(path));
        command.env(environment::CLIENT_CONFIG, self.site.client_config());
        command
    }

    /// `GET` of the orchestrator's API: status and body. A path without a leading `/` is below
    /// `/orchestrator/v1/`.
    ///
    /// # Errors
    /// When there is no answer, or none that is JSON.
    pub fn api_get(&self, path: &str) -> Result<(u16, Value), ApiError> {
        self.api.call("GET", path, None)
    }

    /// `POST` of a JSON body; otherwise as [`Self::api_get`].
    ///
    /// # Errors
    /// When there is no answer, or none that is JSON.
    pub fn api_post(&self, path: &str, body: &Value) -> Result<(u16, Value), ApiError> {
        self.api.call("POST", path, Some(body))
    }

    /// Waits until the orchestrator knows of `count` connected agents.
    ///
    /// # Errors
    /// When they are not within a minute; the error says which are.
    pub fn wait_connected(&self, count: usize) -> Result<(), LabError> {
        self.wait_connected_unless(count, &|| false)
    }

    fn wait_connected_unless(
        &self,
        count: usize,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<(), LabError> {
        let outcome = wait_until("the agents are connected", CONNECT_DEADLINE, || {
            if interrupted() {
                return Ok(Err(LabError::Interrupted));
            }
            if let Some((name, status)) = self.deaths().into_iter().next() {
                return Ok(self.with(&name, |process| Err(process.died(status))));
            }
            let connected = self.connected().map_err(|error| chain(&error))?;
            if connected.len() >= count {
                Ok(Ok(()))
            } else {
                Err(format!("{} of {count} are: {connected:?}", connected.len()))
            }
        });
        outcome.map_err(|source| LabError::Agents {
            logs: self.site.logs_dir(),
            source,
        })?
    }

    /// The agents that the orchestrator holds for connected.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn connected(&self) -> Result<Vec<String>, ApiError> {
        let (_, inventory) = self.api_get("inventory")?;
        let items = inventory.get("items").and_then(Value::as_array);
        let connected = |item: &&Value| item.get("connected") == Some(&Value::Bool(true));
        Ok(items
            .into_iter()
            .flatten()
            .filter(connected)
            .filter_map(|item| Some(item.get("name")?.as_str()?.to_owned()))
            .collect())
    }

    /// Ends all processes in order: agents, orchestrator, compilers, primary. Those of one kind are
    /// asked together; whoever does not end in time is killed. Then tasks that still run are ended.
    pub fn shut_down(&self) {
        process::end_in_order(&mut self.processes());
        leftovers::end(self.site.dir());
    }

    /// Processes are plain values: a panic elsewhere does not leave them half changed.
    fn processes(&self) -> MutexGuard<'_, Vec<Process>> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        name: &str,
        act: impl FnOnce(&mut Process) -> Result<T, LabError>,
    ) -> Result<T, LabError> {
        let mut processes = self.processes();
        let process = processes.iter_mut().find(|process| process.name() == name);
        act(process.ok_or_else(|| LabError::Unknown(name.to_owned()))?)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.site.keep();
            #[expect(
                clippy::print_stderr,
                reason = "a failing test says what its processes said last: where tests run by \
                          themselves, the logs are gone afterwards"
            )]
            {
                eprintln!("the logs of the lab: {}", self.site.logs_dir().display());
                for process in &mut *self.processes() {
                    let pid = process
                        .pid()
                        .map_or_else(|| "ended".to_owned(), |pid| format!("pid {pid}"));
                    eprintln!("{} ({pid}):\n{}", process.name(), process.tail());
                }
            }
        }
        self.shut_down();
    }
}

fn agent_name(number: usize) -> String {
    format!("agent-{number}")
}

fn primary_name(number: usize) -> String {
    match number {
        1 => "primary".to_owned(),
        _ => format!("primary-{number}"),
    }
}

fn compiler_name(number: usize) -> String {
    format!("compiler-{number}")
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
