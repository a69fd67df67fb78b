//! A log file that can be opened anew while the process runs.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// A file that lines are appended to. Clones are the same file.
#[derive(Debug, Clone)]
pub struct LogFileHandle {
    path: Arc<Path>,
    file: Arc<Mutex<File>>,
}

impl LogFileHandle {
    /// Opens a file to append to, which is made when there is none: readable for its group, too, as
    /// those of the original are.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: Arc::new(Mutex::new(append_to(path)?)),
            path: path.into(),
        })
    }

    /// Opens the file of this name again: another one, when the old one was moved away.
    ///
    /// # Errors
    /// When it cannot be opened; the old one stays.
    pub fn reopen(&self) -> io::Result<()> {
        let file = append_to(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.path.to_path_buf()
    }
}

impl Write for &LogFileHandle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFileHandle {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_left_for_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let file = LogFileHandle::open(&path).unwrap();
        let moved = dir.path().join("log.1");
        (&file).write_all(b"one\n").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        (&file).write_all(b"two\n").unwrap();
        file.clone().reopen().unwrap();
        (&file).write_all(b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        // What cannot be opened leaves things as they are.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(file.reopen().is_err());
        (&file).write_all(b"four\n").unwrap();
    }
}
