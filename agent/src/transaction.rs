//! A transaction: one non-blocking request and everything that comes of it.
//!
//! ```text
//! Accepted ──▶ Staging ──▶ Running ──▶ Finished ──▶ Reported
//!     └───────────┴─── could not be run ──▲
//! ```
//! Pure: no disk, no clock, no process. Each step consumes the old state and gives the new one, so
//! that a wrong order does not compile, and a [`StartPermit`], which launching a process asks for,
//! comes out of exactly one step. Only three states are ever found on disk in between: `Accepted`
//! is written, and flushed, before the requester hears of it, `Running` before the process is started,
//! `Finished` before the outcome is sent. Staging is not written: after a crash it means what
//! `Accepted` means, that nothing was run. The last two outlive the agent, not the machine: after a
//! loss of power `Accepted` is read as `Running`, and the wrapper's report, where it was flushed in
//! time, as what it is. Until the requester has acknowledged an outcome there is thus always an answer,
//! though it may be that the machine restarted before the outcome was safe.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pcp::{MessageId, Uri};
use pxp::{KilledBy, Profile, StopState, TransactionId};

use crate::digest::RequestDigest;

/// What a transaction was asked to be. Never holds parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The id that the requester chose.
    pub id: TransactionId,
    /// Who asked, and gets the outcome.
    pub requester: Uri,
    /// The PCP message of the request.
    pub request_id: MessageId,
    /// The module asked for.
    pub module: String,
    /// The action of the module.
    pub action: String,
    /// What the action is done with, for an operator's eyes: the name of the task.
    pub subject: Option<String>,
    /// The rule of the node's policy that allows it, if it is allowed.
    pub rule: Option<String>,
    /// What exactly was asked: another request cannot take the same id.
    pub digest: RequestDigest,
    /// Whether the requester is told the outcome.
    pub notify: Notify,
}

/// How the outcome reaches the requester.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notify {
    /// Not at all: the requester asks with `status query`.
    Never,
    /// It is sent once, as the original agent does.
    Once,
    /// It is sent until the requester has acknowledged it.
    UntilAcknowledged,
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The process ran to its end. Its output lies in the transaction's directory.
    Ran(Ran),
    /// There is no result, and this is why: for a person, saying what to do about it.
    Failed(String),
}

impl Outcome {
    /// What a wish to stop comes to whose process, if it was started at all, ended so.
    #[must_use]
    pub fn stopped(&self, started: bool) -> StopState {
        match self {
            _ if !started => StopState::NotStarted,
            Self::Ran(ran) if ran.took.killed_by == Some(KilledBy::Stop) => StopState::Stopped,
            // It ended just then, by itself or by its time limit.
            Self::Ran(_) | Self::Failed(_) => StopState::Finished,
        }
    }
}

/// How the process ended, and how much it wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code; 128 and the signal's number when a signal ended it.
    pub exitcode: i32,
    /// Standard output.
    pub stdout: Written,
    /// Standard error.
    pub stderr: Written,
    /// What it took.
    pub took: Took,
}

/// What a process took, with all that it started, and how it was held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Took {
    /// The profile that it ran with, where it is known.
    pub profile: Option<Profile>,
    /// From its start to the end of its tree.
    pub duration: Duration,
    /// The processor time of its tree, where the system tells.
    pub cpu: Option<Duration>,
    /// The most memory in bytes that its tree had at once, where the system tells.
    pub peak_memory: Option<u64>,
    /// What ended it before its time.
    pub killed_by: Option<KilledBy>,
    /// The time limit that it had, where it is known.
    pub time_limit: Option<Duration>,
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// How many bytes the process wrote.
    pub bytes: u64,
    /// Whether only the part up to the output limit was kept.
    pub truncated: bool,
}

/// A transaction in one of its states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction<S> {
    request: Arc<Request>,
    accepted: Timestamp,
    state: S,
}

/// The request is taken on; nothing has been done yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted(());

/// Files are being fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staging(());

/// The process has been started, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running(());

/// There is an outcome, which the requester may not know yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    ended: Timestamp,
    outcome: Outcome,
}

/// The requester knows the outcome, or did not want to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    ended: Timestamp,
    outcome: Outcome,
}

/// The right to start the process of one transaction, once.
#[derive(Debug)]
#[must_use]
pub struct StartPermit(());

/// A transaction as it is read back from disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// Taken on, or staging: not started.
    Accepted(Transaction<Accepted>),
    /// Started, or about to be.
    Running(Transaction<Running>),
    /// With an outcome to tell.
    Finished(Transaction<Finished>),
    /// Done with.
    Reported(Transaction<Reported>),
}

/// What a starting agent finds of a transaction's process. `A` is the hold on a living one.
#[derive(Debug)]
pub enum Found<A> {
    /// It is running.
    Alive(A),
    /// It has ended and left a report.
    Ended(Outcome),
    /// There is neither process nor report.
    Nothing,
}

/// A transaction after the agent's restart.
#[derive(Debug)]
pub enum Recovered<A> {
    /// It goes on.
    Running(Transaction<Running>, A),
    /// It ended in the meantime, or cannot go on; to be written down.
    Ended(Transaction<Finished>),
    /// It had ended before.
    Finished(Transaction<Finished>),
    /// It was done with.
    Reported(Transaction<Reported>),
}

/// What a request means when its id is already in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// The requester asks for the same again: it has not heard our answer.
    Same,
    /// The id belongs to something else.
    Other,
}

impl Request {
    /// Compares this request, which has the id, with another one that claims it. A repetition may
    /// come in a new PCP message, but never from somebody else.
    #[must_use]
    pub fn repeated_by(&self, other: &Self) -> Repeat {
        if self.digest == other.digest && self.requester == other.requester {
            Repeat::Same
        } else {
            Repeat::Other
        }
    }
}

impl<S> Transaction<S> {
    /// What was asked.
    #[must_use]
    pub fn request(&self) -> &Arc<Request> {
        &self.request
    }

    /// The transaction's id.
    #[must_use]
    pub fn id(&self) -> &TransactionId {
        &self.request.id
    }

    /// When the request was taken on.
    #[must_use]
    pub fn accepted(&self) -> Timestamp {
        self.accepted
    }

    fn with<T>(self, state: T) -> Transaction<T> {
        Transaction {
            request: self.request,
            accepted: self.accepted,
            state,
        }
    }

    fn end(self, ended: Timestamp, outcome: Outcome) -> Transaction<Finished> {
        self.with(Finished { ended, outcome })
    }
}

impl Transaction<Accepted> {
    /// Takes a request on.
    #[must_use]
    pub fn accept(request: Arc<Request>, now: Timestamp) -> Self {
        Self {
            request,
            accepted: now,
            state: Accepted(()),
        }
    }

    /// Begins to fetch what the action needs.
    #[must_use]
    pub fn stage(self) -> Transaction<Staging> {
        self.with(Staging(()))
    }

    /// It could not be run.
    #[must_use]
    pub fn fail(self, now: Timestamp, why: String) -> Transaction<Finished> {
        self.end(now, Outcome::Failed(why))
    }

    /// The spool says that it had been started. Gives no permit to start it.
    #[must_use]
    pub fn read_running(self) -> Transaction<Running> {
        self.with(Running(()))
    }
}

impl Transaction<Staging> {
    /// Everything is there: the process may be started, once.
    pub fn start(self) -> (Transaction<Running>, StartPermit) {
        (self.with(Running(())), StartPermit(()))
    }

    /// It could not be run.
    #[must_use]
    pub fn fail(self, now: Timestamp, why: String) -> Transaction<Finished> {
        self.end(now, Outcome::Failed(why))
    }
}

impl Transaction<Running> {
    /// The process has ended, or could not be started.
    #[must_use]
    pub fn finish(self, now: Timestamp, outcome: Outcome) -> Transaction<Finished> {
        self.end(now, outcome)
    }
}

impl Transaction<Finished> {
    /// How it ended.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.state.outcome
    }

    /// When it ended.
    #[must_use]
    pub fn ended(&self) -> Timestamp {
        self.state.ended
    }

    /// The requester knows.
    #[must_use]
    pub fn report(self) -> Transaction<Reported> {
        let Finished { ended, outcome } = self.state.clone();
        self.with(Reported { ended, outcome })
    }
}

impl Transaction<Reported> {
    /// How it ended.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.state.outcome
    }

    /// When it ended.
    #[must_use]
    pub fn ended(&self) -> Timestamp {
        self.state.ended
    }
}

impl StartPermit {
    /// The right to start a process for a blocking request. It has no transaction that could be
    /// repeated: nothing is stored, and each request is run as it comes.
    pub fn for_blocking_request() -> Self {
        Self(())
    }
}

impl Stored {
    /// What was asked.
    #[must_use]
    pub fn request(&self) -> &Arc<Request> {
        match self {
            Self::Accepted(transaction) => transaction.request(),
            Self::Running(transaction) => transaction.request(),
            Self::Finished(transaction) => transaction.request(),
            Self::Reported(transaction) => transaction.request(),
        }
    }

    /// When the request was taken on.
    #[must_use]
    pub fn accepted(&self) -> Timestamp {
        match self {
            Self::Accepted(transaction) => transaction.accepted(),
            Self::Running(transaction) => transaction.accepted(),
            Self::Finished(transaction) => transaction.accepted(),
            Self::Reported(transaction) => transaction.accepted(),
        }
    }

    /// How it ended and when, if it has.
    #[must_use]
    pub fn outcome(&self) -> Option<(&Outcome, Timestamp)> {
        match self {
            Self::Accepted(_) | Self::Running(_) => None,
            Self::Finished(transaction) => Some((transaction.outcome(), transaction.ended())),
            Self::Reported(transaction) => Some((transaction.outcome(), transaction.ended())),
        }
    }

    /// What becomes of the transaction after the agent's restart. Nothing is ever started again.
    #[must_use]
    pub fn recover<A>(self, found: Found<A>, now: Timestamp) -> Recovered<A> {
        match (self, found) {
            (Self::Finished(transaction), _) => Recovered::Finished(transaction),
            (Self::Reported(transaction), _) => Recovered::Reported(transaction),
            (Self::Accepted(transaction), Found::Alive(alive)) => {
                Recovered::Running(transaction.read_running(), alive)
            }
            (Self::Running(transaction), Found::Alive(alive)) => {
                Recovered::Running(transaction, alive)
            }
            (Self::Accepted(transaction), Found::Ended(outcome)) => {
                Recovered::Ended(transaction.end(now, outcome))
            }
            (Self::Running(transaction), Found::Ended(outcome)) => {
                Recovered::Ended(transaction.end(now, outcome))
            }
            (Self::Accepted(transaction), Found::Nothing) => {
                Recovered::Ended(transaction.fail(now, NOT_STARTED.to_owned()))
            }
            (Self::Running(transaction), Found::Nothing) => {
                Recovered::Ended(transaction.end(now, Outcome::Failed(LOST.to_owned())))
            }
        }
    }
}

/// Said of a transaction that was accepted and not started when the agent ended.
pub const NOT_STARTED: &str =
    "the agent restarted before the task was started; it did not run and can be run again";

/// Said of a transaction whose process is gone without a trace.
pub const LOST: &str = "the agent or the machine restarted before the outcome was known, and the \
     task's process had gone without leaving a report: the task may have done a part of its work";

#[cfg(test)]
mod tests;
