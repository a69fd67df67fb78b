//! The one thread that writes: whatever waits goes into one transaction, and answers are given when
//! that transaction is on the disk. The commit is what costs, not the row.

use std::sync::Arc;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::StoreError;

/// How many writes may wait. Every caller waits for its answer, so a full queue only makes callers
/// wait.
const QUEUE: usize = 256;

/// Tells the caller how its write ended, once the transaction has.
type Answer = Box<dyn FnOnce(Result<(), StoreError>)>;

/// Does the write, or passes on why nothing can be written. Gives whether anything has been put into
/// the transaction.
type Work =
    Box<dyn FnOnce(Result<&Connection, &StoreError>) -> (Result<(), StoreError>, Answer) + Send>;

/// Hands writes to the thread.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Work>,
}

impl Writer {
    pub(super) fn start(mut connection: Connection) -> Result<Self, StoreError> {
        let (queue, mut work) = mpsc::channel::<Work>(QUEUE);
        std::thread::Builder::new()
            .name("db-write".to_owned())
            .spawn(move || {
                while let Some(first) = work.blocking_recv() {
                    let mut batch = vec![first];
                    while batch.len() < QUEUE
                        && let Ok(next) = work.try_recv()
                    {
                        batch.push(next);
                    }
                    write(&mut connection, batch);
                }
                // Everything is committed; this only keeps the write-ahead log small for the next
                // start, and whether it works does not matter.
                drop(connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"));
            })
            .map_err(|error| StoreError::Thread(Arc::new(error)))?;
        Ok(Self { queue })
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            let result = match connection {
                Ok(connection) => work(connection),
                Err(error) => Err(error.clone()),
            };
            let written = result.as_ref().map(drop).map_err(Clone::clone);
            let answer: Answer = Box::new(move |committed: Result<(), StoreError>| {
                let result = result.and_then(|value| committed.map(|()| value));
                // A caller that has gone away needs no answer.
                drop(reply.send(result));
            });
            (written, answer)
        });
        self.queue.send(work).await.map_err(|_| StoreError::Ended)?;
        answer.await.map_err(|_| StoreError::Ended)?
    }
}

#[cfg(test)]
impl Writer {
    /// How many writes wait for the thread.
    pub(super) fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

/// Does a batch in one transaction. What fails by itself is undone by itself; when the transaction
/// fails, everybody is told so.
fn write(connection: &mut Connection, batch: Vec<Work>) {
    let mut answers = Vec::with_capacity(batch.len());
    let mut work = batch.into_iter();
    let result = transact(connection, &mut work, &mut answers);
    if let Err(error) = &result {
        answers.extend(work.map(|work| work(Err(error)).1));
    }
    for answer in answers {
        answer(result.clone());
    }
}

fn transact(
    connection: &mut Connection,
    batch: &mut impl Iterator<Item = Work>,
    answers: &mut Vec<Answer>,
) -> Result<(), StoreError> {
    let mut transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(StoreError::of("begin to write"))?;
    // The savepoint comes before the work is taken, so that no work is lost when there is none.
    loop {
        let savepoint = transaction
            .savepoint()
            .map_err(StoreError::of("begin to write"))?;
        let Some(work) = batch.next() else { break };
        let (written, answer) = work(Ok(&savepoint));
        answers.push(answer);
        match written {
            Ok(()) => savepoint.commit().map_err(StoreError::of("write"))?,
            // When the disk is full, SQLite has undone everything already, and this fails too.
            Err(cause) => savepoint.finish().map_err(|_| cause)?,
        }
    }
    transaction
        .commit()
        .map_err(StoreError::of("commit what was written"))
}
