//! Where blocking work is done: files are written, hashed and copied, and processes started, here and
//! nowhere else, so that threads that talk to peers never wait for a disk. And how much room there is.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Semaphore;

/// How much blocking work goes on at once. More threads than this gain nothing on one disk, but a
/// few of them let the file system join their flushes into one. The rest waits in line; the line is
/// no longer than what its owner has in hand, which is bounded itself.
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
    /// The process is stopping.
    #[error("the process is stopping")]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_where_tests_run() {
        let room = Room::of(Path::new("/tmp")).unwrap();
        assert!(room.bytes > 0);
        assert!(Room::of(Path::new("/no/such/directory")).is_err());
    }

    #[tokio::test]
    async fn work_gives_its_value_and_a_panic_is_told() {
        let disk = Disk::default();
        assert_eq!(disk.run(|| 7).await.unwrap(), 7);
        let panicked = disk.run(|| -> u8 { panic!("on purpose") }).await;
        assert!(matches!(panicked, Err(DiskError::Panicked(_))));
    }
}
