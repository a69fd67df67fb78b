//! The task's three streams, none of which may ever block the wrapper, nor the wrapper the task.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The size of a pipe, so one read can empty it.
const BUFFER: usize = 64 * 1024;

/// How many reads of one stream before the other things are looked at again: a task that writes
/// without end must not keep its time limit from being seen.
const READS_A_TURN: usize = 16;

/// One output stream on its way into a file: kept up to the limit, counted to the end, and always
/// read, so that the task is never stopped by it.
#[derive(Debug)]
pub(crate) struct Capture {
    /// None once the stream has ended.
    pipe: Option<File>,
    file: File,
    room: u64,
    written: u64,
    total: u64,
    /// Why no more is kept, though there is room under the limit: as a rule a full disk.
    error: Option<io::Error>,
}

/// The task's standard input: the delivered bytes, then the end.
#[derive(Debug)]
pub(crate) struct Feed {
    /// None once all is written, or nobody reads it any more.
    pipe: Option<File>,
    bytes: Vec<u8>,
    written: usize,
}

impl Capture {
    /// Keeps what comes out of the pipe in a new file.
    pub(crate) fn create(pipe: File, path: &Path, limit: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Self {
            pipe: Some(pipe),
            file,
            room: limit,
            written: 0,
            total: 0,
            error: None,
        })
    }

    /// What to poll for reading, while there is something to wait for.
    pub(crate) fn waits_on(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Moves what is there. `false` when there is no more for now, or at all.
    pub(crate) fn pump(&mut self) -> bool {
        let mut buffer = [0; BUFFER];
        for _ in 0..READS_A_TURN {
            let Some(pipe) = &mut self.pipe else {
                return false;
            };
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(length) => self.keep(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => {
                    self.error.get_or_insert(error);
                    self.pipe = None;
                }
            }
        }
        true
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = usize::try_from(self.room)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let mut rest = bytes.get(..room).unwrap_or_default();
        while !rest.is_empty() && self.error.is_none() {
            match self.file.write(rest) {
                Ok(0) => self.error = Some(io::ErrorKind::WriteZero.into()),
                Ok(length) => {
                    self.written += length as u64;
                    self.room -= length as u64;
                    rest = rest.get(length..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The task goes on: it did nothing wrong, and what it does may matter more than
                // what it says.
                Err(error) => self.error = Some(error),
            }
        }
    }

    /// Takes what is still in the pipe after the task's end. Should somebody outside of the task's
    /// tree hold the stream open, that is not waited for.
    pub(crate) fn finish(&mut self) {
        while self.pump() {}
        self.pipe = None;
        // A file that was cut does not show how long it should be, should power fail before it is
        // durable: its report must not come first.
        if self.truncated()
            && let Err(error) = self.flush()
        {
            self.error.get_or_insert(error);
        }
    }

    /// Makes the file durable.
    pub(crate) fn flush(&self) -> io::Result<()> {
        // An empty file has no content to lose; its name is made durable with the directory.
        if self.written > 0 {
            self.file.sync_all()
        } else {
            Ok(())
        }
    }

    /// How many bytes the task wrote.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Whether the file holds less than that.
    pub(crate) fn truncated(&self) -> bool {
        self.written < self.total
    }

    /// Why it does, when it is not the limit.
    pub(crate) fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }
}

impl Feed {
    /// Hands these bytes to the task.
    pub(crate) fn new(pipe: File, bytes: Vec<u8>) -> Self {
        // Without any, the end is there from the beginning.
        let pipe = (!bytes.is_empty()).then_some(pipe);
        Self {
            pipe,
            bytes,
            written: 0,
        }
    }

    /// What to poll for writing, while there is something to write.
    pub(crate) fn waits_on(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Writes what fits.
    pub(crate) fn pump(&mut self) {
        while let Some(pipe) = &mut self.pipe {
            let rest = self.bytes.get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                self.end();
                return;
            }
            match pipe.write(rest) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The task does not want the rest: its right, and no error.
                Err(_) => self.end(),
            }
        }
    }

    fn end(&mut self) {
        self.pipe = None;
        // They are secret and of no more use.
        self.bytes = Vec::new();
    }
}
