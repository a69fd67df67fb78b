//! Ctrl-C: the first asks the job to stop, the second leaves at once. SIGTERM counts the same.

use std::future::Future;
use std::pin::pin;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::Failure;

/// Counts the interrupts of this process.
#[derive(Debug)]
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    asked: bool,
}

/// The second interrupt: leave at once.
#[derive(Debug)]
pub(crate) struct Second;

impl Interrupts {
    /// Takes over the signals from now on.
    ///
    /// # Errors
    /// When the system does not let us.
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(Failure::Signals)?,
            terminate: signal(SignalKind::terminate()).map_err(Failure::Signals)?,
            asked: false,
        })
    }

    /// Whether there was one.
    pub(crate) fn asked(&self) -> bool {
        self.asked
    }

    /// Finishes `work` in spite of a first interrupt, so that nothing half done is dropped.
    pub(crate) async fn finish<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Second> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                () = next(&mut self.interrupt, &mut self.terminate) => self.count()?,
                done = &mut work => return Ok(done),
            }
        }
    }

    /// Waits for `work`, but not beyond an interrupt: then `work` is dropped, and there is nothing.
    pub(crate) async fn wait<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, Second> {
        tokio::select! {
            biased;
            () = next(&mut self.interrupt, &mut self.terminate) => self.count().map(|()| None),
            done = work => Ok(Some(done)),
        }
    }

    fn count(&mut self) -> Result<(), Second> {
        if std::mem::replace(&mut self.asked, true) {
            Err(Second)
        } else {
            Ok(())
        }
    }
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
