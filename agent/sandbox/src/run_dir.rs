//! The directory of one run: its files and what they are called.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::plan::{DecodeError, Plan};
use crate::report::Report;

/// How much of the disk a report is given in advance: more than the longest, whose two texts are cut at a
/// thousand characters each.
const REPORT: i64 = 16 * 1024;

/// The directory that holds the files of one run. It must exist, and be the agent's alone: the
/// files in it say what was run and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir(PathBuf);

/// Why a report or plan could not be read, though its file is there.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file's content is not a report.
    #[error("{} is not a report", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// The file's content is not a plan.
    #[error("{} is not a plan", path.display())]
    Plan {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: DecodeError,
    },
}

impl RunDir {
    /// The run of this directory.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// The run whose plan is this file.
    #[must_use]
    pub fn of_plan(plan: &Path) -> Option<Self> {
        let named = plan.file_name().is_some_and(|name| name == PLAN);
        plan.parent()
            .filter(|_| named)
            .map(|dir| Self(dir.to_path_buf()))
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The plan, written before the wrapper is started.
    #[must_use]
    pub fn plan_path(&self) -> PathBuf {
        self.0.join(PLAN)
    }

    /// The beginning of what the task wrote to its stdout; see [`crate::output`]. It grows while the
    /// task runs.
    #[must_use]
    pub fn stdout(&self) -> PathBuf {
        self.0.join("stdout")
    }

    /// The beginning of what the task wrote to its stderr; see [`crate::output`]. It grows while the
    /// task runs.
    #[must_use]
    pub fn stderr(&self) -> PathBuf {
        self.0.join("stderr")
    }

    /// The report, there once the task's tree is empty.
    #[must_use]
    pub fn report_path(&self) -> PathBuf {
        self.0.join("report.json")
    }

    /// The report while it is being written.
    #[must_use]
    pub fn unfinished_report_path(&self) -> PathBuf {
        self.0.join("report.json.new")
    }

    /// Takes the report's place on the disk, so that a disk that is full, or that the task fills, cannot
    /// keep its end from being known. It may have been taken already.
    ///
    /// # Errors
    /// When there is no room, or the file cannot be made.
    pub fn reserve_report(&self) -> io::Result<File> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.unfinished_report_path())?;
        match fallocate(&file, FallocateFlags::empty(), 0, REPORT) {
            // A file system that cannot reserve can still be written to.
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(file),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The FIFO through which the wrapper is asked to stop the task.
    #[must_use]
    pub fn control_path(&self) -> PathBuf {
        self.0.join("control")
    }

    /// The FIFO whose write end is open until the report is there, or the wrapper has died.
    #[must_use]
    pub fn alive_path(&self) -> PathBuf {
        self.0.join("alive")
    }

    /// The socket that stands for the message bus's in the task's mount namespace.
    #[must_use]
    pub fn bus_path(&self) -> PathBuf {
        self.0.join("bus")
    }

    /// What the wrapper itself had to say: empty unless something is badly wrong.
    #[must_use]
    pub fn wrapper_log_path(&self) -> PathBuf {
        self.0.join("wrapper.log")
    }

    /// The report; `None` while there is none. One without content is none: power failed before it
    /// was durable, and took everything of the run with it.
    ///
    /// # Errors
    /// When the file cannot be read or is not a report.
    pub fn report(&self) -> Result<Option<Report>, ReportError> {
        let path = self.report_path();
        match fs::read(&path) {
            Ok(bytes) if bytes.iter().all(|byte| *byte == 0) => Ok(None),
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(report) => Ok(Some(report)),
                Err(source) => Err(ReportError::Form { path, source }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ReportError::Read { path, source }),
        }
    }

    /// The plan; `None` when there is none. An empty file is none too: the plan is written before
    /// anything is started, so the machine went down in between and took everything with it.
    pub(crate) fn plan(&self) -> Result<Option<Plan>, ReportError> {
        let path = self.plan_path();
        match fs::read(&path) {
            Ok(bytes) if bytes.is_empty() => Ok(None),
            Ok(bytes) => match Plan::decode(&bytes) {
                Ok(plan) => Ok(Some(plan)),
                Err(source) => Err(ReportError::Plan { path, source }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ReportError::Read { path, source }),
        }
    }
}

const PLAN: &str = "plan.json";
