//! Where blocking work is done: files are written, hashed and copied, and wrappers started, here and
//! nowhere else, so that the one thread that talks to the broker never waits for a disk. And how much
//! room there is.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Semaphore;

/// How much blocking work goes on at once. More threads than this gain nothing on one disk, but a
/// few of them let the file system join their flushes into one. The rest waits in line; the line is
/// no longer than the number of transactions and of requests in hand, which are bounded themselves.
const THREADS: usize = 4;

/// The place for blocking work.
#[derive(Debug, Clone)]
pub struct Disk {
    permits: Arc<Semaphore>,
}

/// The work did not come to an end.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It panicked, which is a fault of this program.
    #[error("an internal error interrupted the work")]
    Panicked(#[source] tokio::task::JoinError),
    /// The agent is stopping.
    #[error("the agent is stopping")]
    Stopping,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(THREADS)),
        }
    }
}

impl Disk {
    /// Does `work` on another thread and gives its value.
    ///
    /// # Errors
    /// [`DiskError`] when there is no value.
    pub async fn run<T, F>(&self, work: F) -> Result<T, DiskError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let Ok(_permit) = self.permits.acquire().await else {
            return Err(DiskError::Stopping);
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| {
            if error.is_panic() {
                DiskError::Panicked(error)
            } else {
                DiskError::Stopping
            }
        })
    }
}

/// What a file system can still take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that are free for us.
    pub bytes: u64,
    /// Files that there may be besides; nothing where there is no limit but the bytes.
    pub files: Option<u64>,
}

impl Room {
    /// The room on the file system of a directory.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Self> {
        let stat = nix::sys::statvfs::statvfs(path)?;
        // Root may use what is kept for it; others may not.
        let blocks = if nix::unistd::geteuid().is_root() {
            stat.blocks_free()
        } else {
            stat.blocks_available()
        };
        Ok(Self {
            bytes: blocks.saturating_mul(stat.fragment_size()),
            files: (stat.files() > 0).then(|| stat.files_free()),
        })
    }
}

/// How many bytes a directory takes on the disk with everything below it, and when any of its files was
/// last changed. What cannot be looked at counts as nothing.
#[must_use]
pub fn measure(path: &Path) -> (u64, SystemTime) {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return (0, SystemTime::UNIX_EPOCH);
    };
    let mut bytes = metadata.blocks().saturating_mul(512);
    let mut changed = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    if metadata.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let (more, later) = measure(&entry.path());
            bytes = bytes.saturating_add(more);
            changed = changed.max(later);
        }
    }
    (bytes, changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_takes_what_its_files_take() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        let (empty, _) = measure(dir.path());
        fs::write(dir.path().join("below/file"), vec![1; 100_000]).unwrap();
        let (full, changed) = measure(dir.path());
        assert!(full >= empty + 100_000, "{empty} {full}");
        assert!(changed > SystemTime::UNIX_EPOCH);
        assert_eq!(measure(&dir.path().join("none")).0, 0);
    }

    #[test]
    fn there_is_room_where_tests_run() {
        let room = Room::of(Path::new("/tmp")).unwrap();
        assert!(room.bytes > 0);
        assert!(Room::of(Path::new("/no/such/directory")).is_err());
    }
}
