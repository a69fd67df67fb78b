//! What the program does other than to run: questions of an operator, answered on standard output.

pub(crate) mod check_config;
pub(crate) mod doctor;
pub(crate) mod module;
pub(crate) mod policy;
pub(crate) mod transactions;

use clap::ValueEnum;

/// For whom an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Human,
    /// For programs.
    Json,
}

/// Prints an answer. A reader that has gone does not need it.
pub(crate) fn print(text: &str) {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).ok();
    stdout.flush().ok();
}
