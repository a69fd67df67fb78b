//! How the program ends: the numbers that scripts decide by.

use std::process::ExitCode;

/// The outcome of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything succeeded, on every node.
    Success,
    /// A node did not succeed, or the orchestrator refused the request.
    Failure,
    /// The command line or the configuration is wrong. clap uses the same number.
    Usage,
    /// The orchestrator could not be reached or trusted, or does not know the token.
    Connection,
    /// Ctrl-C: what a shell expects after SIGINT.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Connection => 3,
            Exit::Interrupted => 130,
        })
    }
}
