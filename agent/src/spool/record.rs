//! What is written down of a transaction: a line of the file `metadata`, JSON, with the original's
//! keys where they mean the same. Unknown keys are ignored, so that an older agent can read a newer
//! one's. Each state adds a line, and the last whole one counts: a line that a loss of power cut in
//! two leaves the state before it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pcp::{MessageId, Uri};
use pxp::{KilledBy, Profile, TransactionId};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::transaction::{Notify, Outcome, Ran, Request, Stored, Took, Transaction, Written};

/// The version of this form. A record of a later one is not touched.
const VERSION: u32 = 1;

/// The file `metadata`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    transaction_id: TransactionId,
    state: State,
    requester: Uri,
    request_id: uuid::Uuid,
    module: String,
    action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<String>,
    /// The rule of the policy that allows it; absent in the records of earlier agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// Always `{}`, as in the original: parameters may hold secrets.
    #[serde(default)]
    request_params: String,
    request_digest: String,
    notify_outcome: bool,
    acknowledges: bool,
    start: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<Timestamp>,
    /// For an operator and for tools of the original: the state and the outcome in one word.
    status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exitcode: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stdout: Option<Stream>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stderr: Option<Stream>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    execution_error: Option<String>,
    /// What the process took; absent in the records of earlier agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    took: Option<TookRecord>,
    /// The machine's start, as the kernel names it, in which this was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Accepted,
    Running,
    Finished,
    Reported,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Running,
    Success,
    Failure,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Stream {
    bytes: u64,
    truncated: bool,
}

/// [`Took`] on disk.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct TookRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    profile: Option<Profile>,
    duration_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpu_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peak_memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    killed_by: Option<KilledBy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_limit_ms: Option<u64>,
}

/// Why a text is not a record, or a transaction has none.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The text is not JSON of this form.
    #[error("it is not of the form that this agent writes")]
    Form(#[source] serde_json::Error),
    /// A newer agent has written it.
    #[error("it is of version {0}, and this agent knows version {VERSION}")]
    Version(u32),
    /// The request's digest is not one.
    #[error("its request digest is malformed")]
    Digest(#[source] pcp::FrameError),
    /// It says that the transaction has ended, and not when or how.
    #[error("it has no outcome")]
    NoOutcome,
    /// It lies in the directory of another transaction.
    #[error("it belongs to another transaction")]
    OtherTransaction,
}

impl Record {
    /// Reads what is written of a transaction; `boot` is the machine's present start.
    pub(super) fn parse(text: &[u8], boot: &str) -> Result<Stored, RecordError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        // The version first: another one may well have another form.
        let known = |text: &[u8]| match serde_json::from_slice(text).map_err(RecordError::Form)? {
            Version { version } if version > VERSION => Err(RecordError::Version(version)),
            Version { .. } => Ok(()),
        };
        let whole = |line: &&[u8]| serde_json::from_slice::<IgnoredAny>(line).is_ok();
        let lines = text.split(|byte| *byte == b'\n');
        // Earlier agents wrote one record over many lines, the last of which is a brace.
        let text = lines.rev().find(whole).unwrap_or(text);
        known(text)?;
        let record: Self = serde_json::from_slice(text).map_err(RecordError::Form)?;
        record.into_stored(boot)
    }

    /// The line for this state, without its end.
    pub(super) fn line(stored: &Stored, boot: &str) -> Result<Vec<u8>, RecordError> {
        let record = Self {
            boot: Some(boot.to_owned()),
            ..Self::of(stored)
        };
        serde_json::to_vec(&record).map_err(RecordError::Form)
    }

    fn of(stored: &Stored) -> Self {
        let (state, start) = match stored {
            Stored::Accepted(transaction) => (State::Accepted, transaction.accepted()),
            Stored::Running(transaction) => (State::Running, transaction.accepted()),
            Stored::Finished(transaction) => (State::Finished, transaction.accepted()),
            Stored::Reported(transaction) => (State::Reported, transaction.accepted()),
        };
        let request = stored.request();
        let outcome = stored.outcome();
        let ran = match outcome {
            Some((Outcome::Ran(ran), _)) => Some(*ran),
            _ => None,
        };
        Self {
            version: VERSION,
            transaction_id: request.id.clone(),
            state,
            requester: request.requester.clone(),
            request_id: request.request_id.0,
            module: request.module.clone(),
            action: request.action.clone(),
            task: request.subject.clone(),
            rule: request.rule.clone(),
            request_params: "{}".to_owned(),
            request_digest: request.digest.to_string(),
            notify_outcome: request.notify != Notify::Never,
            acknowledges: request.notify == Notify::UntilAcknowledged,
            start,
            end: outcome.map(|(_, ended)| ended),
            status: match (outcome, ran) {
                (None, _) => Status::Running,
                (Some(_), Some(Ran { exitcode: 0, .. })) => Status::Success,
                (Some(_), _) => Status::Failure,
            },
            exitcode: ran.map(|ran| ran.exitcode),
            stdout: ran.map(|ran| Stream::of(ran.stdout)),
            stderr: ran.map(|ran| Stream::of(ran.stderr)),
            execution_error: match outcome {
                Some((Outcome::Failed(message), _)) => Some(message.clone()),
                _ => None,
            },
            took: ran.map(|ran| TookRecord::of(ran.took)),
            boot: None,
        }
    }

    fn into_stored(self, boot: &str) -> Result<Stored, RecordError> {
        // The start of a task is not flushed. After a restart of the machine nothing of it runs, but
        // it may have. Records without a start of the machine were followed by flushed ones.
        let restarted = self.boot.is_some_and(|written| written != boot);
        let outcome = match (self.execution_error, self.exitcode) {
            (Some(message), _) => Some(Outcome::Failed(message)),
            (None, Some(exitcode)) => Some(Outcome::Ran(Ran {
                exitcode,
                stdout: self.stdout.unwrap_or_default().written(),
                stderr: self.stderr.unwrap_or_default().written(),
                took: self.took.unwrap_or_default().took(),
            })),
            (None, None) => None,
        };
        let request = Request {
            id: self.transaction_id,
            requester: self.requester,
            request_id: MessageId(self.request_id),
            module: self.module,
            action: self.action,
            subject: self.task,
            rule: self.rule,
            digest: self.request_digest.parse().map_err(RecordError::Digest)?,
            notify: match (self.notify_outcome, self.acknowledges) {
                (false, _) => Notify::Never,
                (true, false) => Notify::Once,
                (true, true) => Notify::UntilAcknowledged,
            },
        };
        let accepted = Transaction::accept(Arc::new(request), self.start);
        let end = || {
            let outcome = outcome.ok_or(RecordError::NoOutcome)?;
            Ok((self.end.ok_or(RecordError::NoOutcome)?, outcome))
        };
        Ok(match self.state {
            State::Accepted if restarted => Stored::Running(accepted.read_running()),
            State::Accepted => Stored::Accepted(accepted),
            State::Running => Stored::Running(accepted.read_running()),
            State::Finished => {
                let (ended, outcome) = end()?;
                Stored::Finished(accepted.read_running().finish(ended, outcome))
            }
            State::Reported => {
                let (ended, outcome) = end()?;
                Stored::Reported(accepted.read_running().finish(ended, outcome).report())
            }
        })
    }
}

impl TookRecord {
    fn of(took: Took) -> Self {
        Self {
            profile: took.profile,
            duration_ms: milliseconds(took.duration),
            cpu_ms: took.cpu.map(milliseconds),
            peak_memory_bytes: took.peak_memory,
            killed_by: took.killed_by,
            time_limit_ms: took.time_limit.map(milliseconds),
        }
    }

    fn took(self) -> Took {
        Took {
            profile: self.profile,
            duration: Duration::from_millis(self.duration_ms),
            cpu: self.cpu_ms.map(Duration::from_millis),
            peak_memory: self.peak_memory_bytes,
            killed_by: self.killed_by,
            time_limit: self.time_limit_ms.map(Duration::from_millis),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Stream {
    fn of(written: Written) -> Self {
        Self {
            bytes: written.bytes,
            truncated: written.truncated,
        }
    }

    fn written(self) -> Written {
        Written {
            bytes: self.bytes,
            truncated: self.truncated,
        }
    }
}
