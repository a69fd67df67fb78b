//! What the three daemons share, and nothing of what they do: configuration files ([`config`]),
//! logs ([`logs`]) and what is told there once only ([`Refusals`]), metrics ([`metrics`]), signals and
//! the service manager ([`service`]), and the task tree ([`Tasks`]).
//!
//! A daemon's `main` is the same everywhere: arguments → [`config::Source`] → checked configuration
//! (all faults at once, else [`ExitCode::Config`]) → [`logs::start`] → [`runtime`] → build → tell
//! [`service::ready`] → wait for a [`Signal`] → [`Tasks::shutdown`] with a deadline → [`ExitCode`].

pub mod config;
pub mod disk;
pub mod doctor;
pub mod logs;
pub mod metrics;
mod refusals;
pub mod service;
mod tasks;

use std::error::Error;
use std::fmt::Write as _;
use std::io;

pub use refusals::Refusals;
pub use service::{Signal, Signals, ready, status, stopping, watchdog};
pub use tasks::{Tasks, span};

/// The version of all our binaries.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How a product names itself to its peers: `pcp-broker/0.1.0`.
#[must_use]
pub fn software(product: &str) -> String {
    format!("{product}/{VERSION}")
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// It did what it was started for.
    Ok = 0,
    /// It could not.
    Failure = 1,
    /// It was called wrongly.
    Usage = 2,
    /// Its configuration is wrong: `EX_CONFIG` of sysexits.
    Config = 78,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// How many threads run a daemon's tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The calling thread alone: least memory, for the agent.
    Current,
    /// This many workers.
    Multi(usize),
}

/// The runtime of a daemon. Threads that do blocking file work are started when needed.
///
/// # Errors
/// When the system refuses threads or descriptors.
pub fn runtime(threads: Threads) -> io::Result<tokio::runtime::Runtime> {
    let mut builder = match threads {
        Threads::Current => tokio::runtime::Builder::new_current_thread(),
        Threads::Multi(count) => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(count.max(1));
            builder
        }
    };
    builder.enable_all().build()
}

/// An error with all its causes on one line: `operation: cause: cause of the cause`. Some of these
/// texts come from a peer (why it closed a connection), so control characters, with which it could
/// write lines of its own into our logs, are shown as escapes.
#[must_use]
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a string cannot fail.
        write!(text, ": {cause}").unwrap_or_default();
        source = cause.source();
    }
    if !text.contains(char::is_control) {
        return text;
    }
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot start")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_chain_of_errors_is_one_line() {
        let error = Outer(io::Error::other("the disk is full"));
        assert_eq!(error_chain(&error), "cannot start: the disk is full");
    }

    #[test]
    fn an_error_text_from_elsewhere_begins_no_line_of_its_own() {
        let error = Outer(io::Error::other("full\nINFO all is well\u{1b}[2K\u{9b}ä"));
        assert_eq!(
            error_chain(&error),
            r"cannot start: full\nINFO all is well\u{1b}[2K\u{9b}ä"
        );
    }

    #[test]
    fn both_runtimes_run_tasks() {
        for threads in [Threads::Current, Threads::Multi(2)] {
            let runtime = runtime(threads).unwrap();
            assert_eq!(runtime.block_on(async { 1 }), 1);
        }
    }
}
