//! A future that is polled only when it was woken itself. A session is one task with several futures, most
//! of which wait nearly always: without this, each of them would be asked at every word that comes or
//! goes, and to ask QUIC for a stream takes as long as to take a message off one.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A future that sleeps until it is woken itself, whatever wakes its task.
#[derive(Debug)]
pub struct Woken<F> {
    future: F,
    bell: Arc<Bell>,
    /// Rings the bell.
    waker: Waker,
}

#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    /// The task.
    task: Mutex<Waker>,
}

impl<F> Woken<F> {
    /// Wraps a future, which is polled once in any case.
    pub fn new(future: F) -> Self {
        let bell = Arc::new(Bell {
            rung: AtomicBool::new(true),
            task: Mutex::new(Waker::noop().clone()),
        });
        Self {
            future,
            waker: Waker::from(Arc::clone(&bell)),
            bell,
        }
    }
}

impl<F: Future + Unpin> Future for Woken<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        // Before the bell is looked at: whoever rings it from now on wakes this task.
        this.bell.task().clone_from(context.waker());
        if !this.bell.rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        Pin::new(&mut this.future).poll(&mut Context::from_waker(&this.waker))
    }
}

impl Bell {
    /// Never held while anything else is done; a waker is whole at every step.
    fn task(&self) -> std::sync::MutexGuard<'_, Waker> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        let task = self.task().clone();
        task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::time::Duration;

    use tokio::sync::{mpsc, oneshot};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn is_asked_when_it_was_woken_and_at_no_other_time() {
        let asked = Cell::new(0);
        let (sender, mut receiver) = mpsc::channel::<()>(4);
        let receiving = pin!(poll_fn(|context| {
            asked.set(asked.get() + 1);
            receiver.poll_recv(context)
        }));
        let mut sleeping = Woken::new(receiving);
        let mut poll = |times| {
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..times {
                let polled = Pin::new(&mut sleeping).poll(&mut context);
                if polled.is_ready() {
                    return true;
                }
            }
            false
        };
        assert!(!poll(3));
        assert_eq!(asked.get(), 1);
        sender.try_send(()).expect("room");
        assert!(poll(1));
        assert_eq!(asked.get(), 2);
    }

    #[tokio::test]
    async fn wakes_the_task_that_polled_it_last() {
        let (sender, receiver) = oneshot::channel();
        let mut sleeping = Woken::new(Box::pin(receiver));
        // Polled by one task, and then by another.
        let first = Pin::new(&mut sleeping).poll(&mut Context::from_waker(Waker::noop()));
        assert!(first.is_pending());
        let (polled, send) = oneshot::channel();
        let waits = async {
            let mut sleeping = pin!(sleeping);
            let mut polled = Some(polled);
            poll_fn(|context| {
                let outcome = sleeping.as_mut().poll(context);
                if let Some(polled) = polled.take() {
                    polled.send(()).expect("somebody waits");
                }
                outcome
            })
            .await
        };
        let sends = async {
            send.await.expect("it is polled");
            sender.send(7).expect("somebody waits");
        };
        let both = timeout(Duration::from_secs(10), async {
            tokio::join!(waits, sends).0
        });
        assert_eq!(both.await.expect("it is woken"), Ok(7));
    }
}
