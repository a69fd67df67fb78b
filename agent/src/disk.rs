//! Where blocking work is done: files are written, hashed and copied, and wrappers started, here and
//! nowhere else, so that the one thread that talks to the broker never waits for a disk.

use std::sync::Arc;

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
