//! The report's file: its place on the disk is taken before the task starts, so that a disk that
//! the task fills cannot keep its end from being known.

use std::fs::File;
use std::io::{self, Write};

use sandbox::{Report, RunDir};

/// A report that is not written yet.
#[derive(Debug)]
pub(crate) struct ReportFile {
    dir: RunDir,
    file: File,
}

/// A report that can be read, and would not outlive a loss of power yet.
#[derive(Debug)]
#[must_use]
pub(crate) struct Unflushed {
    report: File,
    directory: File,
}

impl ReportFile {
    /// Takes the place for the report, as the agent has done already.
    pub(crate) fn reserve(dir: &RunDir) -> io::Result<Self> {
        Ok(Self {
            dir: dir.clone(),
            file: dir.reserve_report()?,
        })
    }

    /// Writes the report. The rename comes last: who sees a report sees all of it.
    pub(crate) fn write(mut self, report: &Report) -> io::Result<Unflushed> {
        let bytes = serde_json::to_vec_pretty(report)?;
        self.file.write_all(&bytes)?;
        self.file.set_len(bytes.len() as u64)?;
        let directory = File::open(self.dir.path())?;
        std::fs::rename(self.dir.unfinished_report_path(), self.dir.report_path())?;
        Ok(Unflushed {
            report: self.file,
            directory,
        })
    }
}

impl Unflushed {
    /// Makes the report, and with it the names of the output files, durable. The directory may be
    /// gone already: whoever has read the report may remove it.
    pub(crate) fn flush(self) -> io::Result<()> {
        self.report.sync_all()?;
        self.directory.sync_all()
    }
}
