//! How the rest of the agent talks to the engine.

use std::sync::Arc;

use pcp::Uri;
use pxp::{StopState, TransactionId};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::gate::Judged;
use crate::transaction::{Outcome, Request};

/// How many commands wait for the engine, which takes each of them in microseconds. When it is
/// full the session waits, and with it the broker.
const COMMANDS: usize = 64;

/// What the engine is asked to do.
#[derive(Debug)]
pub enum Command {
    /// Take a non-blocking request on.
    Submit {
        /// What is asked, by whom.
        request: Arc<Request>,
        /// What is to be run, if it may be and is new.
        judged: Judged,
        /// The room that it takes until it has ended.
        memory: OwnedSemaphorePermit,
    },
    /// A requester has recorded an outcome.
    Acknowledge {
        /// The transaction.
        id: TransactionId,
        /// Who says so.
        from: Uri,
    },
    /// How far is this transaction?
    Query {
        /// The transaction.
        id: TransactionId,
        /// Where the answer goes.
        answer: oneshot::Sender<Progress>,
    },
    /// End this transaction.
    Stop {
        /// The transaction.
        id: TransactionId,
        /// Where the answer goes, once nothing of it is left.
        answer: oneshot::Sender<Stopping>,
    },
    /// A session with a broker is open.
    Connected,
    /// There is no session any more.
    Disconnected,
    /// The outbox has tried to send an outcome.
    Sent {
        /// The transaction.
        id: TransactionId,
        /// Whether it was handed to the transport.
        delivered: bool,
    },
}

/// How far a transaction is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It has no outcome yet.
    InProgress,
    /// It has ended so, and its requester may not know yet.
    Ended(Arc<Request>, Outcome),
    /// If it is known at all, its outcome is in the spool.
    OnDisk,
}

/// What became of the wish to end a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopping {
    /// So.
    Done(StopState),
    /// It is not in progress: the spool knows whether it ever was.
    OnDisk,
}

/// Talks to the engine.
#[derive(Debug, Clone)]
pub struct EngineHandle(mpsc::Sender<Command>);

impl EngineHandle {
    /// Hands a command over; waits while the engine is busy. Does nothing when it has ended.
    pub async fn send(&self, command: Command) {
        self.0.send(command).await.ok();
    }

    /// Asks how far a transaction is.
    pub async fn progress(&self, id: TransactionId) -> Progress {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Query { id, answer }).await;
        // Without an engine nothing is in progress.
        answered.await.unwrap_or(Progress::OnDisk)
    }

    /// Ends a transaction, and returns when nothing of it is left.
    pub async fn stop(&self, id: TransactionId) -> Stopping {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Stop { id, answer }).await;
        answered.await.unwrap_or(Stopping::OnDisk)
    }
}

/// The channel between an engine and those who command it.
#[must_use]
pub fn channel() -> (EngineHandle, mpsc::Receiver<Command>) {
    let (sender, receiver) = mpsc::channel(COMMANDS);
    (EngineHandle(sender), receiver)
}
