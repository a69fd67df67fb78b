//! The task's three streams, none of which may ever block the wrapper, nor the wrapper the task.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sandbox::output::{Share, segment_path};

/// The size of a pipe, so one read can empty it.
const BUFFER: usize = 64 * 1024;

/// How many reads of one stream before the other things are looked at again: a task that writes
/// without end must not keep its time limit from being seen.
const READS_A_TURN: usize = 16;

/// One output stream on its way into files: kept whole up to the limit, beyond it by head and tail,
/// counted to the end, and always read, so that the task is never stopped by it.
#[derive(Debug)]
pub(crate) struct Capture {
    /// None once the stream has ended.
    pipe: Option<File>,
    /// Where the head lies; segments of the tail lie beside it.
    path: PathBuf,
    share: Share,
    head: File,
    /// The last two segments of what came after the head, each with the offset that it begins at.
    tail: VecDeque<(u64, File)>,
    /// How much more the file that is being written takes.
    room: u64,
    total: u64,
    /// Whether bytes are missing.
    truncated: bool,
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
    /// Keeps what comes out of the pipe in new files.
    pub(crate) fn create(pipe: File, path: &Path, limit: u64) -> io::Result<Self> {
        let share = Share::of(limit);
        Ok(Self {
            pipe: Some(pipe),
            path: path.to_path_buf(),
            share,
            head: create(path)?,
            tail: VecDeque::new(),
            room: share.head,
            total: 0,
            truncated: false,
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
        let mut rest = bytes;
        while !rest.is_empty() && self.error.is_none() {
            match self.write(rest) {
                Ok(0) => self.error = Some(io::ErrorKind::WriteZero.into()),
                Ok(length) => {
                    self.total += length as u64;
                    rest = rest.get(length..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The task goes on: it did nothing wrong, and what it does may matter more than
                // what it says.
                Err(error) => self.error = Some(error),
            }
        }
        self.truncated |= !rest.is_empty();
        self.total += rest.len() as u64;
    }

    /// Writes as much as fits into one file, and goes on to the next one when it is full. Without
    /// room for a tail everything counts as written, and is dropped.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room == 0 {
            if self.share.segment == 0 {
                self.truncated = true;
                return Ok(bytes.len());
            }
            self.next_segment()?;
        }
        let room = usize::try_from(self.room).unwrap_or(usize::MAX);
        let bytes = bytes.get(..room).unwrap_or(bytes);
        let length = match self.tail.back_mut() {
            Some((_, segment)) => segment.write(bytes)?,
            None => self.head.write(bytes)?,
        };
        self.room -= length as u64;
        Ok(length)
    }

    fn next_segment(&mut self) -> io::Result<()> {
        // The oldest goes first: the disk never holds more than the limit.
        if self.tail.len() > 1
            && let Some((offset, oldest)) = self.tail.pop_front()
        {
            self.truncated = true;
            drop(oldest);
            std::fs::remove_file(segment_path(&self.path, offset))?;
        }
        let segment = create(&segment_path(&self.path, self.total))?;
        self.tail.push_back((self.total, segment));
        self.room = self.share.segment;
        Ok(())
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

    /// Makes the files durable.
    pub(crate) fn flush(&self) -> io::Result<()> {
        // An empty file has no content to lose; its name is made durable with the directory.
        if self.total > 0 {
            self.head.sync_all()?;
        }
        self.tail.iter().try_for_each(|(_, file)| file.sync_all())
    }

    /// How many bytes the task wrote.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Whether the files hold less than that.
    pub(crate) fn truncated(&self) -> bool {
        self.truncated
    }

    /// Why it does, when it is not the limit.
    pub(crate) fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
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
