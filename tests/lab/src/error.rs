//! What can go wrong in a lab.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use crate::wait::TimedOut;

/// What can go wrong in a lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file of the lab cannot be used.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another lab runs in this directory.
    #[error("another lab is running in {0}")]
    Busy(PathBuf),
    /// The path of a socket in this directory would be longer than the system allows.
    #[error("the path {0} is too long for the sockets in it: choose a shorter --dir")]
    LongPath(PathBuf),
    /// A binary of the product is missing.
    #[error("{0} is not there: build it first (cargo build --workspace)")]
    NotBuilt(PathBuf),
    /// `cargo build` could not be run, or failed.
    #[error("building the product failed{0}")]
    Build(String),
    /// There are no free ports.
    #[error("no free port found")]
    Ports,
    /// Issuing a certificate failed.
    #[error("the certificate authority failed")]
    Ca(#[from] lab_ca::CaError),
    /// There is no certificate of this name.
    #[error("no certificate was issued for {0}")]
    NoCertificate(String),
    /// A process could not be started.
    #[error("cannot start {name} ({program})")]
    Spawn {
        /// The name in the lab.
        name: String,
        /// The program.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The process that makes load has failed, or ended.
    #[error("the load generator has failed; it has said why on standard error")]
    Generator,
    /// A process ended although it should run.
    #[error("{name} ended by itself ({status}); the end of {log}:\n{tail}")]
    Died {
        /// The name in the lab.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// A process runs but did not become ready.
    #[error("{name} is not ready after {seconds} s; the end of {log}:\n{tail}")]
    NotReady {
        /// The name in the lab.
        name: String,
        /// How long was waited.
        seconds: u64,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// There is no process of this name.
    #[error("this lab has no process {0}")]
    Unknown(String),
    /// The process is not running.
    #[error("{0} is not running")]
    NotRunning(String),
    /// The process is running.
    #[error("{0} is still running")]
    Running(String),
    /// A process could not be observed or signalled.
    #[error("cannot {action} {name}")]
    Process {
        /// What was tried.
        action: &'static str,
        /// The name in the lab.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The orchestrator gave no token.
    #[error("the orchestrator made no token: {0}")]
    Token(String),
    /// The API cannot be called.
    #[error("cannot call the orchestrator's API")]
    Api(#[source] crate::ApiError),
    /// Not all agents were connected in time.
    #[error("not all agents are connected; their logs are in {logs}")]
    Agents {
        /// Where to look.
        logs: PathBuf,
        /// How many were.
        #[source]
        source: TimedOut,
    },
    /// A network namespace cannot be made or entered.
    #[error("cannot use a network namespace: hosts of a lab take root")]
    Namespace(#[source] io::Error),
    /// A network has more hosts than it has addresses for.
    #[error("a lab's network has room for 254 hosts")]
    TooManyHosts,
    /// This lab runs on one host.
    #[error("this lab has no network of hosts")]
    NoNetwork,
    /// The network of a host cannot be changed.
    #[error("ip {command}: {errors}")]
    Ip {
        /// Its arguments.
        command: String,
        /// What it said.
        errors: String,
    },
    /// The switch between hosts does not run.
    #[error("the switch between the lab's hosts does not answer")]
    Switch(#[source] io::Error),
    /// What ran on a host does not end.
    #[error("a host of the lab cannot be killed")]
    StillThere(#[source] TimedOut),
    /// The start was given up because the user asked for it.
    #[error("interrupted")]
    Interrupted,
}

/// A fault with a file of the lab.
pub(crate) fn file(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> LabError {
    let path = path.into();
    move |source| LabError::File {
        action,
        path,
        source,
    }
}
