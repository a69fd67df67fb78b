//! Messages on the way: those that wait for a primary, and the errors of those that cannot go on.

use std::collections::VecDeque;

use pcp::message::MAX_HOPS;
use pcp::{Envelope, ErrorKind, Flags, Message, MessageId, MessageType, Target, Uri};

/// Messages that wait, oldest first: at a compiler for a primary, at a primary for the snapshot that
/// names their senders. All wait equally long, so the oldest is also the first to be given up.
#[derive(Debug)]
pub(crate) struct GraceQueue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    max_messages: usize,
    max_bytes: usize,
    period: u64,
}

#[derive(Debug)]
struct Waiting {
    until: u64,
    message: Message,
}

impl GraceQueue {
    /// A queue of at most so many messages and bytes, each for `period` milliseconds.
    pub(crate) fn new(max_messages: usize, max_bytes: usize, period: u64) -> Self {
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
            max_messages,
            max_bytes,
            period,
        }
    }

    /// Keeps a message, or gives it back when the queue is full.
    pub(crate) fn push(&mut self, now: u64, message: Message) -> Result<(), Box<Message>> {
        let size = message.size();
        if self.waiting.len() >= self.max_messages
            || self.bytes.saturating_add(size) > self.max_bytes
        {
            return Err(Box::new(message));
        }
        self.bytes += size;
        self.waiting.push_back(Waiting {
            until: now.saturating_add(self.period),
            message,
        });
        Ok(())
    }

    /// The oldest message whose time is over at `now`.
    pub(crate) fn expired(&mut self, now: u64) -> Option<Message> {
        if self.next()? > now {
            return None;
        }
        self.pop()
    }

    /// The oldest message.
    pub(crate) fn pop(&mut self) -> Option<Message> {
        let message = self.waiting.pop_front()?.message;
        self.bytes = self.bytes.saturating_sub(message.size());
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some(message)
    }

    /// When the oldest message is given up.
    pub(crate) fn next(&self) -> Option<u64> {
        self.waiting.front().map(|oldest| oldest.until)
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Writes the broker's own messages.
#[derive(Debug)]
pub(crate) struct Author {
    /// The broker's address, `pcp://CERTNAME/server`.
    pub(crate) uri: Uri,
    life: u64,
    written: u64,
}

impl Author {
    /// `life` is the epoch of the broker: it keeps the ids of its lives apart.
    pub(crate) fn new(uri: Uri, life: u64) -> Self {
        Self {
            uri,
            life,
            written: 0,
        }
    }

    /// A message of the broker in answer to `cause`, or to nothing in particular.
    pub(crate) fn write(
        &mut self,
        message_type: MessageType,
        to: Uri,
        cause: Option<MessageId>,
        body: Vec<u8>,
    ) -> Message {
        self.written += 1;
        Message {
            envelope: Envelope {
                id: MessageId::numbered(self.life, self.written),
                message_type,
                sender: self.uri.clone(),
                target: Target::Client(to),
                in_reply_to: cause,
                hops: 0,
                flags: Flags::default(),
            },
            body: body.into(),
        }
    }

    /// The error that a message's sender gets. An error is never answered by an error, lest two
    /// brokers tell each other for ever what went wrong: then there is none.
    pub(crate) fn error(&mut self, cause: &Envelope, to: Uri, kind: ErrorKind) -> Option<Message> {
        if is_error(cause) {
            return None;
        }
        let body = kind.body().to_vec();
        Some(self.write(pcp::body::error_message(), to, Some(cause.id), body))
    }
}

/// Whether this is an `error_message`.
pub(crate) fn is_error(envelope: &Envelope) -> bool {
    envelope.message_type.name() == Some("error_message")
}

/// Counts one more broker. False when the message has passed too many.
pub(crate) fn pass_on(envelope: &mut Envelope) -> bool {
    if envelope.hops >= MAX_HOPS {
        return false;
    }
    envelope.hops += 1;
    true
}
