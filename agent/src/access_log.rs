//! The original's access log: a line for each message that came in.
//!
//! ```text
//! [2026-11-29T10:00:00Z] AUTHORIZATION_SUCCESS broker.example.net pcp://orch/orchestrator rpc_blocking_request 0190…
//! ```

use std::io::Write as _;
use std::path::{Path, PathBuf};

use daemon::logs::LogFileHandle;
use jiff::{Timestamp, Unit};
use pcp::{Certname, Envelope};

/// What came of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It was read.
    Success,
    /// Its body is not what its type says.
    Unreadable,
}

/// The access log, or none.
#[derive(Debug, Clone, Default)]
pub struct AccessLog(Option<LogFileHandle>);

/// It cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the access log {}", path.display())]
pub struct AccessLogError {
    /// The file.
    path: PathBuf,
    /// Why not.
    #[source]
    source: std::io::Error,
}

impl AccessLog {
    /// Opens it, if there is to be one.
    ///
    /// # Errors
    /// [`AccessLogError`].
    pub fn open(path: Option<&Path>) -> Result<Self, AccessLogError> {
        let Some(path) = path else {
            return Ok(Self(None));
        };
        match LogFileHandle::open(path) {
            Ok(file) => Ok(Self(Some(file))),
            Err(source) => Err(AccessLogError {
                path: path.to_path_buf(),
                source,
            }),
        }
    }

    /// Opens the file anew.
    ///
    /// # Errors
    /// When it cannot be; lines go on into the old one.
    pub fn reopen(&self) -> std::io::Result<()> {
        self.0.as_ref().map_or(Ok(()), LogFileHandle::reopen)
    }

    /// Notes a message that `broker` has passed on.
    pub fn note(&self, access: Access, broker: Option<&Certname>, envelope: &Envelope) {
        let Some(mut file) = self.0.as_ref() else {
            return;
        };
        let line = line(Timestamp::now(), access, broker, envelope);
        if let Err(error) = file.write_all(line.as_bytes()) {
            tracing::warn!(%error, "the access log cannot be written");
        }
    }
}

/// None of the parts has white space: they are certnames, URIs and message types that were parsed.
fn line(now: Timestamp, access: Access, broker: Option<&Certname>, envelope: &Envelope) -> String {
    let now = now.round(Unit::Second).unwrap_or(now);
    let outcome = match access {
        Access::Success => "AUTHORIZATION_SUCCESS",
        Access::Unreadable => "DESERIALIZATION_ERROR",
    };
    let broker = broker.map_or("-", Certname::as_str);
    let Envelope {
        sender,
        message_type,
        id,
        ..
    } = envelope;
    format!("[{now}] {outcome} {broker} {sender} {message_type} {id}\n")
}

#[cfg(test)]
mod tests {
    use pcp::{Flags, MessageId, MessageType, Target};

    use super::*;

    #[test]
    fn a_line_has_the_originals_form() {
        let envelope = Envelope {
            id: MessageId(uuid::Uuid::from_u128(7)),
            message_type: MessageType::of("rpc_blocking_request"),
            sender: "pcp://orch/orchestrator".parse().unwrap(),
            target: Target::Client("pcp://node/agent".parse().unwrap()),
            in_reply_to: None,
            hops: 1,
            flags: Flags::default(),
        };
        let broker = Certname::parse("broker").unwrap();
        let line = line(
            Timestamp::UNIX_EPOCH,
            Access::Success,
            Some(&broker),
            &envelope,
        );
        assert_eq!(
            line,
            "[1970-01-01T00:00:00Z] AUTHORIZATION_SUCCESS broker pcp://orch/orchestrator \
             rpc_blocking_request 00000000-0000-0000-0000-000000000007\n"
        );
    }

    #[test]
    fn without_a_file_nothing_is_noted_and_a_bad_one_is_named() {
        AccessLog::open(None).unwrap().reopen().unwrap();
        let error = AccessLog::open(Some(Path::new("/no/such/dir/log"))).unwrap_err();
        assert!(error.to_string().contains("/no/such/dir/log"));
    }
}
