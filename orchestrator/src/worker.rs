//! A thread that owns something whose use blocks, and does one thing after another with it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::{mpsc, oneshot};

/// How many requests may wait for a worker. Requests come from API calls, each of which waits for
/// its answer, so a full queue makes callers wait and nothing else.
const QUEUE: usize = 256;

type Work<S> = Box<dyn FnOnce(&mut S) + Send>;

/// Hands work to the thread. The thread ends when the last handle is gone.
pub(crate) struct Worker<S> {
    queue: mpsc::Sender<Work<S>>,
}

/// The worker could not answer: it has been stopped, or the work hit a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the worker gave no answer")]
pub(crate) struct NoAnswer;

impl<S: Send + 'static> Worker<S> {
    /// Starts a thread that owns `state`.
    ///
    /// # Errors
    /// What the system says when it has no more threads.
    pub(crate) fn start(name: &str, mut state: S) -> io::Result<Self> {
        let (queue, mut work) = mpsc::channel::<Work<S>>(QUEUE);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                while let Some(work) = work.blocking_recv() {
                    // A panic ends the one request; its caller gets `NoAnswer`.
                    if catch_unwind(AssertUnwindSafe(|| work(&mut state))).is_err() {
                        tracing::error!("a request to a worker thread panicked");
                    }
                }
            })?;
        Ok(Self { queue })
    }

    /// Does something with the state and waits for the answer.
    ///
    /// # Errors
    /// [`NoAnswer`] when there will be none.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        let work: Work<S> = Box::new(move |state| {
            // A caller that has gone away needs no answer.
            drop(reply.send(work(state)));
        });
        self.queue.send(work).await.map_err(|_| NoAnswer)?;
        answer.await.map_err(|_| NoAnswer)
    }
}

impl<S> std::fmt::Debug for Worker<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}
