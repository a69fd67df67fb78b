//! What the process ends with: the original's codes, on which its packages and its users' scripts rely.

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// It did what it was started for.
    Ok = 0,
    /// It could not; another agent uses the spool.
    Failure = 1,
    /// The command line is wrong, or the configuration file is not even readable as one.
    Usage = 2,
    /// The configuration is wrong or not there, or the certificates or the policy cannot be used: for
    /// a person to mend, and not to be started again before that.
    Config = 3,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
