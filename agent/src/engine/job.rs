//! What goes on beside the engine for each transaction: it is written down, run, and its end noted.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use pxp::TransactionId;
use sandbox::{Adoption, RunDir};
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio_util::sync::CancellationToken;

use super::Retention;
use crate::bounds::{Bounds, Entry};
use crate::gate::Granted;
use crate::policy::Refusal;
use crate::results;
use crate::runner::{Ended, Runner};
use crate::spool::{Begun, Durability, SpoolError};
use crate::transaction::{
    Finished, Found, Outcome, Recovered, Reported, Request, Stored, Transaction,
};

/// What a job tells the engine. All but the first are its last word.
#[derive(Debug)]
pub(super) enum Event {
    /// The transaction is on disk.
    Durable(Arc<Request>),
    /// It could not be written, and does not exist.
    NotDurable(Arc<Request>, SpoolError),
    /// The policy refuses it, and its id is not in use.
    Refused(Arc<Request>, Refusal),
    /// The id is in use, by this transaction.
    Known(Arc<Request>, Box<Result<Stored, SpoolError>>),
    /// It has an outcome.
    Ended {
        transaction: Transaction<Finished>,
        /// Whether its process was ever started.
        started: bool,
    },
    /// It is done with.
    Reported(TransactionId),
    /// The job panicked or was dropped.
    Interrupted(TransactionId),
}

/// A place in the engine's queue for the last word of a job, which comes even if the job panics.
#[derive(Debug)]
pub(super) struct EndGuard {
    id: TransactionId,
    permit: Option<OwnedPermit<Event>>,
}

impl EndGuard {
    pub(super) fn new(id: TransactionId, permit: OwnedPermit<Event>) -> Self {
        Self {
            id,
            permit: Some(permit),
        }
    }

    fn end(mut self, event: Event) {
        if let Some(permit) = self.permit.take() {
            permit.send(event);
        }
    }
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            permit.send(Event::Interrupted(self.id.clone()));
        }
    }
}

/// Writes a new transaction down and brings it to its end, unless its id is in use.
pub(super) async fn run(
    runner: Runner,
    request: Arc<Request>,
    granted: Granted,
    guard: EndGuard,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) {
    let transaction = Transaction::accept(Arc::clone(&request), Timestamp::now());
    let stored = Stored::Accepted(transaction.clone());
    let spool = runner.spool().clone();
    match runner.disk().run(move || spool.begin(&stored)).await {
        Ok(Ok(Begun::New)) => {}
        Ok(Ok(Begun::Exists(known))) => return guard.end(Event::Known(request, Box::new(known))),
        Ok(Err(error)) => return guard.end(Event::NotDurable(request, error)),
        // Nobody was told of it, and nothing runs; the requester asks again.
        Err(_stopping) => return,
    }
    // The engine is there until all jobs are dropped.
    events.send(Event::Durable(request)).await.ok();
    let Ended {
        transaction,
        started,
    } = runner.run(transaction, granted, &stop).await;
    if !started {
        runner.settle(&transaction).await;
    }
    let id = transaction.id().clone();
    guard.end(Event::Ended {
        transaction,
        started,
    });
    runner.clear(&id).await;
}

/// Refuses a request, unless it repeats one that was taken when the policy, or the hour, was another:
/// what has run is told, whatever is allowed now.
pub(super) async fn refuse(
    runner: Runner,
    request: Arc<Request>,
    refusal: Refusal,
    guard: EndGuard,
) {
    let spool = runner.spool().clone();
    let id = request.id.clone();
    let known = match runner.disk().run(move || spool.read(&id)).await {
        Ok(Ok(None)) => return guard.end(Event::Refused(request, refusal)),
        Ok(Ok(Some(known))) => Ok(known),
        Ok(Err(error)) => Err(error),
        // The requester asks again.
        Err(_stopping) => return,
    };
    guard.end(Event::Known(request, Box::new(known)));
}

/// Goes on with a transaction of which only the files are left.
pub(super) async fn take_up(
    runner: Runner,
    stored: Stored,
    guard: EndGuard,
    stop: CancellationToken,
) {
    let directory = RunDir::new(runner.spool().directory(&stored.request().id));
    let id = stored.request().id.clone();
    let adopted = runner.disk().run(move || sandbox::adopt(&directory)).await;
    let found = match adopted {
        Ok(Ok(Adoption::Running(alive))) => Found::Alive(alive),
        Ok(Ok(Adoption::Ended(report))) => Found::Ended(results::outcome(&report, None)),
        Ok(Ok(Adoption::Lost)) => Found::Nothing,
        Ok(Err(error)) => Found::Ended(Outcome::Failed(format!(
            "the agent restarted and cannot tell what became of the task: {}",
            daemon::error_chain(&error)
        ))),
        // The next agent finds it as it is.
        Err(_stopping) => return,
    };
    let transaction = match stored.recover(found, Timestamp::now()) {
        Recovered::Running(transaction, alive) => {
            tracing::info!(transaction_id = %id, "a task of an earlier agent is still running");
            runner.watch(transaction, alive, None, &stop).await
        }
        Recovered::Ended(transaction) => {
            runner.settle(&transaction).await;
            transaction
        }
        Recovered::Finished(transaction) => {
            return guard.end(Event::Ended {
                transaction,
                started: true,
            });
        }
        Recovered::Reported(_) => return guard.end(Event::Reported(id)),
    };
    guard.end(Event::Ended {
        transaction,
        started: true,
    });
    runner.clear(&id).await;
}

/// Writes down that a transaction is done with. Were that lost, its outcome would be sent once more.
pub(super) async fn report(runner: Runner, transaction: Transaction<Reported>, guard: EndGuard) {
    let id = transaction.id().clone();
    let stored = Stored::Reported(transaction);
    let spool = runner.spool().clone();
    let written = runner
        .disk()
        .run(move || spool.write(&stored, Durability::Lazy))
        .await;
    if let Ok(Err(error)) = written {
        let error = daemon::error_chain(&error);
        tracing::warn!(transaction_id = %id, error, "the spool could not be written");
    }
    guard.end(Event::Reported(id));
}

/// Writes down what was given up, and removes transactions and task files that the bounds do not allow.
/// Blocks.
pub(super) fn purge(
    runner: &Runner,
    given_up: Vec<Transaction<Reported>>,
    retention: Retention,
    now: Timestamp,
) {
    for transaction in given_up {
        let stored = Stored::Reported(transaction);
        if let Err(error) = runner.spool().write(&stored, Durability::Lazy) {
            let error = daemon::error_chain(&error);
            tracing::warn!(error, "the spool could not be written");
        }
    }
    match purge_spool(runner, retention.spool, now) {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "old transactions removed"),
        Err(error) => {
            let error = daemon::error_chain(&error);
            tracing::warn!(error, "old transactions not removed");
        }
    }
    match runner.cache().purge(retention.cache, now) {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "unused task files removed"),
        Err(error) => {
            let error = daemon::error_chain(&error);
            tracing::warn!(error, "unused task files not removed");
        }
    }
}

/// Only what its requester knows may go, and what nobody can read any more and nothing runs in.
/// Everything else counts, and stays.
fn purge_spool(runner: &Runner, bounds: Bounds, now: Timestamp) -> Result<usize, SpoolError> {
    let spool = runner.spool();
    let contents = spool.contents()?;
    let mut entries = Vec::new();
    for stored in contents.transactions {
        let id = stored.request().id.clone();
        let (bytes, _) = spool.measure(&id);
        let (used, removable) = match &stored {
            Stored::Reported(transaction) => (transaction.ended(), true),
            Stored::Accepted(_) | Stored::Running(_) | Stored::Finished(_) => (now, false),
        };
        entries.push(Entry {
            what: id,
            used,
            bytes,
            removable,
        });
    }
    for unreadable in contents.unreadable {
        let Some(id) = unreadable.id else { continue };
        let (bytes, changed) = spool.measure(&id);
        entries.push(Entry {
            removable: unreadable.error.is_corrupt() && !is_running(&spool.directory(&id)),
            what: id,
            used: Timestamp::try_from(changed).unwrap_or(now),
            bytes,
        });
    }
    let excess = bounds.excess(entries, now);
    for entry in &excess {
        spool.remove(&entry.what)?;
    }
    Ok(excess.len())
}

/// Whether a wrapper is at work in a directory. One that cannot be asked counts as one.
fn is_running(directory: &Path) -> bool {
    let run = RunDir::new(directory.to_path_buf());
    !matches!(
        sandbox::adopt(&run),
        Ok(Adoption::Ended(_) | Adoption::Lost)
    )
}
