//! How a process is started: decided by its action, carried out by the runner.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sandbox::Delivery;

/// What is started.
#[derive(Debug, PartialEq, Eq)]
pub struct Launch {
    /// The program, by its absolute path.
    pub program: PathBuf,
    /// Those of its arguments that may be written to disk. Secret ones are part of the delivery.
    pub arguments: Vec<String>,
    /// What must not be written to disk.
    pub delivery: Delivery,
}

/// Where a process is started.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Where the files of the request lie.
    pub staging: &'a Path,
    /// Those that could not be had, by their places there, and why.
    pub missing: &'a BTreeMap<PathBuf, String>,
    /// The login shell of the agent's user.
    pub shell: &'a Path,
    /// This very program, which carries out some actions itself: `pxp-agent module MODULE ACTION`.
    pub agent: &'a Path,
}
