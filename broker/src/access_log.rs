//! The original's access log: a line for each message that came in, and what the broker said to it. Lines
//! are written by a thread of their own, so that no disk holds up the mesh; when it cannot keep up, lines
//! are lost and counted.
//!
//! ```text
//! [2026-11-29T10:00:00Z] AUTHORIZATION_SUCCESS 10.0.0.7:52100 orch pcp://orch/orchestrator rpc_blocking_request 0190… pcp://web1/agent
//! ```

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use daemon::logs::LogFileHandle;
use jiff::{Timestamp, Unit};
use pcp::{Envelope, ErrorKind, MessageId, Uri};

use crate::counts::Count;

/// How many lines may wait: a fan-out to some thousand agents. Each has some hundred bytes.
const QUEUE: usize = 8192;

/// What the broker said to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// It may pass. Whether its target is there is another question.
    Success,
    /// It cannot be read.
    Unreadable,
    /// Its sender is not who sent it.
    NotAuthenticated,
    /// The rules forbid it.
    NotAuthorized,
    /// It has several targets.
    Multicast,
}

/// The access log, or none. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct AccessLog {
    queue: Option<SyncSender<Line>>,
    lost: Arc<Count>,
}

/// Ends the thread that writes.
#[derive(Debug)]
pub(crate) struct Closing {
    queue: SyncSender<Line>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
enum Line {
    Message(Box<Noted>),
    Last,
}

/// A message, as far as it could be read.
#[derive(Debug)]
struct Noted {
    at: Timestamp,
    access: Access,
    address: Option<SocketAddr>,
    peer: Uri,
    id: Option<MessageId>,
    envelope: Option<Envelope>,
}

impl AccessLog {
    /// Begins to write into a file.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn start(file: LogFileHandle) -> io::Result<(Self, Closing)> {
        let (queue, lines) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(&file, &lines))?;
        let log = Self {
            queue: Some(queue.clone()),
            lost: Arc::default(),
        };
        Ok((log, Closing { queue, thread }))
    }

    /// Notes a message that a peer has sent, or a broker has passed on.
    pub(crate) fn note(
        &self,
        refused: Option<ErrorKind>,
        peer: &Uri,
        address: impl FnOnce() -> Option<SocketAddr>,
        envelope: &Envelope,
    ) {
        let access = match refused {
            Some(ErrorKind::NotAuthenticated) => Access::NotAuthenticated,
            Some(ErrorKind::NotAuthorized) => Access::NotAuthorized,
            Some(ErrorKind::Undecodable | ErrorKind::TooLarge) => Access::Unreadable,
            None
            | Some(
                ErrorKind::NotConnected
                | ErrorKind::Busy
                | ErrorKind::Unreachable
                | ErrorKind::TooManyHops,
            ) => Access::Success,
        };
        self.put(|at| Noted {
            at,
            access,
            address: address(),
            peer: peer.clone(),
            id: Some(envelope.id),
            envelope: Some(envelope.clone()),
        });
    }

    /// Notes a message of an existing peer that is none of ours yet.
    pub(crate) fn note_foreign(
        &self,
        access: Access,
        peer: &Uri,
        address: SocketAddr,
        id: Option<MessageId>,
    ) {
        self.put(|at| Noted {
            at,
            access,
            address: Some(address),
            peer: peer.clone(),
            id,
            envelope: None,
        });
    }

    /// How many lines were lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.get()
    }

    fn put(&self, noted: impl FnOnce(Timestamp) -> Noted) {
        let Some(queue) = &self.queue else { return };
        let line = Line::Message(Box::new(noted(Timestamp::now())));
        if queue.try_send(line).is_err() {
            self.lost.add();
        }
    }
}

impl Closing {
    /// Writes what waits, and ends. Blocks.
    pub(crate) fn close(self) {
        // Without the thread there is nothing to write; that it panicked is in the log.
        drop(self.queue.send(Line::Last));
        drop(self.thread.join());
    }
}

fn write(mut file: &LogFileHandle, lines: &Receiver<Line>) {
    let mut text = String::new();
    let mut failing = false;
    while let Ok(first) = lines.recv() {
        text.clear();
        let mut last = false;
        // All that waits is one write.
        for line in std::iter::once(first).chain(lines.try_iter().take(QUEUE)) {
            match line {
                Line::Message(noted) => noted.write(&mut text),
                Line::Last => last = true,
            }
        }
        match file.write_all(text.as_bytes()) {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%error, "the access log cannot be written");
            }
            Err(_) => {}
        }
        if last {
            return;
        }
    }
}

impl Noted {
    /// None of the parts has white space: they are certnames, URIs and message types that were parsed.
    fn write(&self, text: &mut String) {
        let at = self.at.round(Unit::Second).unwrap_or(self.at);
        let outcome = match self.access {
            Access::Success => "AUTHORIZATION_SUCCESS",
            Access::Unreadable => "DESERIALIZATION_ERROR",
            Access::NotAuthenticated => "AUTHENTICATION_FAILURE",
            Access::NotAuthorized => "AUTHORIZATION_FAILURE",
            Access::Multicast => "MULTICAST_UNSUPPORTED",
        };
        let dash = || "-".to_owned();
        let address = self
            .address
            .map_or_else(dash, |address| address.to_string());
        let id = self.id.map_or_else(dash, |id| id.to_string());
        let certname = self.peer.certname();
        let (sender, message_type, target) = match &self.envelope {
            Some(envelope) => (
                envelope.sender.to_string(),
                envelope.message_type.to_string(),
                envelope.target.to_string(),
            ),
            None => (dash(), dash(), dash()),
        };
        // Writing to a string does not fail.
        writeln!(
            text,
            "[{at}] {outcome} {address} {certname} {sender} {message_type} {id} {target}"
        )
        .unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use pcp::{Flags, MessageType, Target};

    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            id: MessageId(uuid::Uuid::from_u128(7)),
            message_type: MessageType::of("rpc_blocking_request"),
            sender: "pcp://orch/orchestrator".parse().expect("an address"),
            target: Target::Client("pcp://node/agent".parse().expect("an address")),
            in_reply_to: None,
            hops: 0,
            flags: Flags::default(),
        }
    }

    #[test]
    fn lines_have_the_original_s_form_and_are_all_written_at_the_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("access.log");
        let (log, closing) =
            AccessLog::start(LogFileHandle::open(&path).expect("opened")).expect("started");
        let (peer, envelope) = ("pcp://orch/orchestrator".parse().expect("one"), envelope());
        let address = "10.0.0.7:52100".parse().ok();
        for refused in [
            None,
            Some(ErrorKind::NotAuthorized),
            Some(ErrorKind::NotAuthenticated),
            Some(ErrorKind::NotConnected),
        ] {
            log.note(refused, &peer, || address, &envelope);
        }
        let from = "10.0.0.8:1".parse().expect("an address");
        log.note_foreign(Access::Unreadable, &peer, from, None);
        closing.close();
        let text = std::fs::read_to_string(&path).expect("written");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        let rest = "10.0.0.7:52100 orch pcp://orch/orchestrator rpc_blocking_request \
                    00000000-0000-0000-0000-000000000007 pcp://node/agent";
        for (line, outcome) in lines.iter().zip([
            "AUTHORIZATION_SUCCESS",
            "AUTHORIZATION_FAILURE",
            "AUTHENTICATION_FAILURE",
            "AUTHORIZATION_SUCCESS",
        ]) {
            assert!(line.starts_with("[2") && line.contains("Z] "), "{line}");
            assert!(line.ends_with(&format!("{outcome} {rest}")), "{line}");
        }
        assert!(
            lines[4].ends_with("DESERIALIZATION_ERROR 10.0.0.8:1 orch - - - -"),
            "{text}"
        );
    }

    #[test]
    fn lines_that_find_no_room_are_counted() {
        let (queue, _lines) = sync_channel(1);
        let log = AccessLog {
            queue: Some(queue),
            lost: Arc::default(),
        };
        let peer = "pcp://orch/orchestrator".parse().expect("an address");
        for _ in 0..3 {
            log.note(None, &peer, || None, &envelope());
        }
        assert_eq!(log.lost(), 2);
        let none = AccessLog::default();
        none.note(None, &peer, || None, &envelope());
        assert_eq!(none.lost(), 0);
    }
}
