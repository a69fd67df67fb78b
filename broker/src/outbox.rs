//! What waits to be written to one peer. The driver puts frames in and never waits; the session's
//! task takes all that is there and writes it at once.
//!
//! Frames are encoded as they come in: an idle session holds no buffer at all, a busy one fills
//! packets, and the bound is in bytes. A message above the inline limit is kept whole, for a stream
//! of its own; for a WebSocket peer that speaks PCP 1 or 2 all messages are, in their order.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use pcp::message::INLINE_LIMIT;
use pcp::{Frame, FrameWriter, Goodbye, Message};
use tokio::sync::Notify;

/// Bytes that may wait for an agent: some hundred requests, far more than one agent runs at once.
pub(crate) const AGENT_BYTES: usize = 256 * 1024;

/// Bytes that may wait for a controller or a broker: short answers of ten thousand agents at once,
/// three times over, or the snapshot of a large fleet.
pub(crate) const CONTROLLER_BYTES: usize = 32 * 1024 * 1024;

/// Large messages that may wait for an agent, or be on their way to it.
pub(crate) const AGENT_LARGE: usize = 4;

/// The same for a controller or a broker.
pub(crate) const CONTROLLER_LARGE: usize = 64;

/// What a message that is kept whole takes beside its bytes.
const KEPT: usize = size_of::<Message>();

/// The queue of one session. When it is full the sender of a message gets it back.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    ready: Notify,
    max_bytes: usize,
    max_large: usize,
    /// Whether short messages are kept whole too.
    whole: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: FrameWriter,
    /// Messages that are kept whole, in their order.
    large: Vec<Message>,
    /// The bytes of the short ones among them.
    whole_bytes: usize,
    /// Large messages that wait or are being written.
    large_count: usize,
    /// What the last ping said; one answer does for all that wait.
    pong: Option<Bytes>,
    /// The peer is to show that it is there.
    ping: bool,
    goodbye: Option<Goodbye>,
    closed: bool,
    /// Whether it was we who ended the session.
    by_us: bool,
}

/// Why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// The limit of bytes or of large messages is reached.
    Full,
    /// The session is ending.
    Closed,
}

/// What is to be written now.
#[derive(Debug)]
pub(crate) struct Ready {
    /// Frames for the session stream.
    pub(crate) bytes: Bytes,
    /// Messages that were kept whole; each large one is reported by [`Outbox::large_done`].
    pub(crate) large: Vec<Message>,
    /// The payload of a WebSocket's pong.
    pub(crate) pong: Option<Bytes>,
    /// Whether the peer is to be asked for one.
    pub(crate) ping: bool,
    /// What to say last.
    pub(crate) goodbye: Option<Goodbye>,
}

impl Outbox {
    pub(crate) fn new(max_bytes: usize, max_large: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            ready: Notify::new(),
            max_bytes,
            max_large,
            whole: false,
        }
    }

    /// The same, with all messages kept whole.
    pub(crate) fn of_messages(max_bytes: usize, max_large: usize) -> Self {
        Self {
            whole: true,
            ..Self::new(max_bytes, max_large)
        }
    }

    /// Takes a frame, or gives it back.
    pub(crate) fn push(&self, frame: Frame) -> Result<(), (NotTaken, Box<Frame>)> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err((NotTaken::Closed, Box::new(frame)));
        }
        match frame {
            Frame::Message(message) if message.size() > INLINE_LIMIT => {
                if waiting.large_count >= self.max_large {
                    return Err((NotTaken::Full, Box::new(Frame::Message(message))));
                }
                waiting.large_count += 1;
                waiting.large.push(message);
            }
            Frame::Message(message) if self.whole => {
                if waiting.whole_bytes >= self.max_bytes {
                    return Err((NotTaken::Full, Box::new(Frame::Message(message))));
                }
                waiting.whole_bytes += KEPT + message.size();
                waiting.large.push(message);
            }
            frame => {
                if waiting.frames.len() >= self.max_bytes {
                    return Err((NotTaken::Full, Box::new(frame)));
                }
                waiting.frames.push(&frame);
            }
        }
        drop(waiting);
        self.ready.notify_one();
        Ok(())
    }

    /// Takes nothing more, and says goodbye when all that waits is written. The first goodbye counts.
    pub(crate) fn close(&self, goodbye: Goodbye) {
        let mut waiting = self.lock();
        if !waiting.closed {
            waiting.closed = true;
            waiting.by_us = true;
            waiting.goodbye = Some(goodbye);
            drop(waiting);
            self.ready.notify_one();
        }
    }

    /// Takes nothing more, and forgets what waits: the session is gone.
    pub(crate) fn abandon(&self) {
        let mut waiting = self.lock();
        *waiting = Waiting {
            closed: true,
            by_us: waiting.by_us,
            ..Waiting::default()
        };
    }

    /// Whether [`Outbox::close`] has ended the session, rather than the peer or the network.
    pub(crate) fn closed_by_us(&self) -> bool {
        self.lock().by_us
    }

    /// The peer has sent a ping.
    pub(crate) fn pong(&self, payload: Bytes) {
        self.lock().pong = Some(payload);
        self.ready.notify_one();
    }

    /// How many bytes wait, about.
    pub(crate) fn bytes(&self) -> usize {
        let waiting = self.lock();
        let large = waiting.large.iter().map(|message| KEPT + message.size());
        waiting.frames.len() + large.sum::<usize>()
    }

    /// Asks the peer whether it is still there.
    pub(crate) fn ping(&self) {
        self.lock().ping = true;
        self.ready.notify_one();
    }

    /// A large message has been written, or given up.
    pub(crate) fn large_done(&self) {
        let mut waiting = self.lock();
        waiting.large_count = waiting.large_count.saturating_sub(1);
    }

    /// All that is to be written, as soon as there is anything.
    pub(crate) async fn ready(&self) -> Ready {
        loop {
            if let Some(ready) = self.take() {
                return ready;
            }
            self.ready.notified().await;
        }
    }

    fn take(&self) -> Option<Ready> {
        let mut waiting = self.lock();
        let waiting = &mut *waiting;
        if waiting.frames.is_empty()
            && waiting.large.is_empty()
            && waiting.goodbye.is_none()
            && waiting.pong.is_none()
            && !waiting.ping
        {
            return None;
        }
        waiting.whole_bytes = 0;
        Some(Ready {
            bytes: waiting.frames.take(),
            large: mem::take(&mut waiting.large),
            pong: waiting.pong.take(),
            ping: mem::take(&mut waiting.ping),
            goodbye: waiting.goodbye.take(),
        })
    }

    /// Never held over an await; what it guards is valid at every step, so a panic elsewhere while
    /// it is held does no harm.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use pcp::{Digest, GoodbyeCode};

    use super::*;

    fn frame() -> Frame {
        Frame::ContentRequest(Digest([0; 32]))
    }

    fn goodbye(reason: &str) -> Goodbye {
        Goodbye {
            code: GoodbyeCode::Normal,
            reason: reason.to_owned(),
        }
    }

    #[tokio::test]
    async fn gives_all_that_waits_at_once_and_keeps_nothing() {
        let outbox = Outbox::new(1024, 1);
        outbox.push(frame()).expect("room");
        outbox.push(frame()).expect("room");
        assert_eq!(outbox.ready().await.bytes.len(), 2 * 37);
        assert!(outbox.take().is_none());
    }

    #[test]
    fn refuses_when_full_and_has_room_again_when_taken() {
        let outbox = Outbox::new(50, 1);
        outbox.push(frame()).expect("room");
        outbox.push(frame()).expect("the limit is not reached yet");
        let (why, back) = outbox.push(frame()).expect_err("full");
        assert_eq!((why, *back), (NotTaken::Full, frame()));
        assert!(outbox.take().is_some());
        outbox.push(frame()).expect("room again");
    }

    #[tokio::test]
    async fn says_goodbye_behind_what_waits_and_takes_no_more() {
        let outbox = Outbox::new(1024, 1);
        outbox.push(frame()).expect("room");
        outbox.close(goodbye("first"));
        outbox.close(goodbye("second"));
        let (why, _) = outbox.push(frame()).expect_err("closed");
        assert_eq!(why, NotTaken::Closed);
        let ready = outbox.ready().await;
        assert_eq!(ready.bytes.len(), 37);
        assert_eq!(ready.goodbye, Some(goodbye("first")));
    }

    #[test]
    fn forgets_what_waits_for_a_peer_that_is_gone() {
        let outbox = Outbox::new(1024, 1);
        outbox.push(frame()).expect("room");
        outbox.abandon();
        assert!(outbox.take().is_none());
        assert!(outbox.push(frame()).is_err());
        assert!(!outbox.closed_by_us());
        outbox.close(goodbye("too late"));
        assert!(!outbox.closed_by_us());
    }
}
