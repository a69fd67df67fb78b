//! [`Tasks`]: one parent for each task, one token that ends them all, and nobody's panic unnoticed.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span};

/// A branch of the task tree: its tasks, and the token that asks them to end.
#[derive(Debug, Clone)]
pub struct Tasks {
    token: CancellationToken,
    tracker: TaskTracker,
    /// The branches above, which wait for our tasks too.
    ancestors: Vec<TaskTracker>,
}

impl Tasks {
    /// The root of a new tree.
    #[must_use]
    pub fn new() -> Self {
        Self {
            token: CancellationToken::new(),
            tracker: TaskTracker::new(),
            ancestors: Vec::new(),
        }
    }

    /// A branch that can be shut down by itself, and ends with this one.
    #[must_use]
    pub fn child(&self) -> Self {
        let mut ancestors = self.ancestors.clone();
        ancestors.push(self.tracker.clone());
        Self {
            token: self.token.child_token(),
            tracker: TaskTracker::new(),
            ancestors,
        }
    }

    /// Cancelled when this branch is to end. Every task that waits for something waits for this too.
    #[must_use]
    pub fn shutdown_token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Starts a task in a span of its name. If it panics, that is logged and ends this task only.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_in(&span(name), future);
    }

    /// Starts a task in a span that [`span`] has made, and that all tasks of a name may share. A span of
    /// its own takes each some hundred bytes, and time whenever it runs, since they are never in the cache
    /// then; so this is for tasks of which there are ten thousand.
    pub fn spawn_in<F>(&self, span: &Span, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // Boxed, here and below, since each layer around a future has room for it twice.
        let future = Box::pin(future);
        self.start(span.clone(), async {
            log_panic(guarded(future).await);
        });
    }

    /// Starts a task without which the process is of no use: its end, by return or by panic, starts
    /// the shutdown of this branch.
    pub fn spawn_core<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.token.clone();
        let future = Box::pin(future);
        self.start(span(name), async move {
            log_panic(guarded(future).await);
            if !token.is_cancelled() {
                tracing::error!("a core task ended: shutting down");
                token.cancel();
            }
        });
    }

    /// Asks all tasks of this branch and of those below to end, and waits for them: true when all
    /// have ended within the deadline.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait())
            .await
            .is_ok()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where tasks are started: named, in a span, with a parent"
    )]
    fn start<F>(&self, span: Span, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let held: Vec<_> = self.ancestors.iter().map(TaskTracker::token).collect();
        let future = async move {
            future.await;
            drop(held);
        };
        drop(tokio::spawn(
            self.tracker.track_future(future.instrument(span)),
        ));
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

/// The span of tasks of this name that are started here.
#[must_use]
pub fn span(name: &'static str) -> Span {
    tracing::info_span!("task", name)
}

/// Runs a future to its end or to its panic. Unwind safety is asserted because a future that has
/// panicked is dropped and never polled again.
async fn guarded(future: impl Future<Output = ()>) -> Result<(), Box<dyn Any + Send>> {
    let mut future = pin!(future);
    poll_fn(
        |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
            Err(panic) => Poll::Ready(Err(panic)),
        },
    )
    .await
}

fn log_panic(end: Result<(), Box<dyn Any + Send>>) {
    let Err(panic) = end else { return };
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(panic = text, "a task panicked");
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn shutdown_ends_all_tasks_also_those_of_children() {
        let tasks = Tasks::new();
        for branch in [tasks.clone(), tasks.child(), tasks.child().child()] {
            let token = branch.shutdown_token();
            branch.spawn("waits", async move { token.cancelled().await });
        }
        assert!(tasks.shutdown(SOON).await);
    }

    #[tokio::test]
    async fn a_child_ends_alone() {
        let tasks = Tasks::new();
        let child = tasks.child();
        let token = child.shutdown_token();
        child.spawn("waits", async move { token.cancelled().await });
        assert!(child.shutdown(SOON).await);
        assert!(!tasks.shutdown_token().is_cancelled());
    }

    #[tokio::test]
    async fn a_task_that_does_not_end_is_told_after_the_deadline() {
        let tasks = Tasks::new();
        let (_keep, never) = oneshot::channel::<()>();
        tasks
            .child()
            .spawn("deaf", async move { drop(never.await) });
        assert!(!tasks.shutdown(Duration::from_millis(20)).await);
    }

    #[tokio::test]
    async fn a_panic_ends_its_own_task_only() {
        let tasks = Tasks::new();
        let (sent, received) = oneshot::channel();
        tasks.spawn("panics", async { panic!("on purpose") });
        tasks.spawn("works", async move { sent.send(1).unwrap() });
        assert_eq!(received.await, Ok(1));
        assert!(!tasks.shutdown_token().is_cancelled());
        assert!(tasks.shutdown(SOON).await);
    }

    #[tokio::test]
    async fn the_end_of_a_core_task_starts_shutdown_whether_good_or_bad() {
        let good = Tasks::new();
        good.spawn_core("returns", async {});
        good.shutdown_token().cancelled().await;
        let bad = Tasks::new();
        bad.spawn_core("panics", async { panic!("on purpose") });
        bad.shutdown_token().cancelled().await;
        assert!(good.shutdown(SOON).await && bad.shutdown(SOON).await);
    }
}
