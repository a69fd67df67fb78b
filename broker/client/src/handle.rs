//! What users of a client hold: a handle to send with, and to see how the connection stands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use pcp::message::INLINE_LIMIT;
use pcp::{Certname, Digest, Frame, LinkFrame, Message, Uri};
use quinn::Connection;
use tokio::sync::mpsc::error::TrySendError as QueueError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::content::{self, Content, FetchError, Origin};
use crate::way::Transport;

/// Sends on whatever session is open. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ClientHandle {
    uri: Arc<Uri>,
    session: watch::Receiver<Option<Session>>,
    state: watch::Receiver<State>,
}

/// How the connection stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// No session is open; we dial, or wait to dial again.
    Connecting {
        /// Which attempt this is since the last good session; the first is 1.
        attempt: u32,
        /// What went wrong last, for a person.
        last_error: Option<String>,
    },
    /// A session is open.
    Connected {
        /// The broker's certname, from its certificate.
        broker: Certname,
        /// Where it is; where a proxy is in between, where that is.
        address: SocketAddr,
        /// What carries the session.
        transport: Transport,
        /// Since when.
        since: SystemTime,
    },
    /// The client was shut down.
    Closed,
}

/// Why a message was not handed to the transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no session just now.
    #[error("not connected to a broker")]
    NotConnected,
    /// The body is above what the broker, or we ourselves, take.
    #[error("a message of {size} bytes is above the limit of {limit}")]
    TooLarge {
        /// The body's size in bytes.
        size: usize,
        /// What is allowed, in bytes.
        limit: usize,
    },
    /// The client was shut down.
    #[error("the client is shut down")]
    Closed,
}

/// Why a frame was not handed to the transport at once. The message comes back where it could go
/// elsewhere.
#[derive(Debug, thiserror::Error)]
pub enum TrySendError {
    /// The queue of the session is full.
    #[error("the queue to the broker is full")]
    Full(Box<Message>),
    /// It cannot be sent, now or on this session.
    #[error("the message cannot be sent")]
    Refused(Box<Message>, #[source] SendError),
}

/// A frame that waits for the writer.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) frame: Frame,
    /// The place of a large message among those on their way out.
    pub(crate) place: Option<OwnedSemaphorePermit>,
}

impl From<Frame> for Queued {
    fn from(frame: Frame) -> Self {
        Self { frame, place: None }
    }
}

/// The sending side of an open session.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) outgoing: mpsc::Sender<Queued>,
    /// One permit for each large message on its way.
    pub(crate) large: Arc<Semaphore>,
    /// The smaller of the broker's limit and our own.
    pub(crate) max_message: usize,
    /// Ends the session.
    pub(crate) cut: CancellationToken,
    /// Where files are asked for.
    pub(crate) way: Way,
}

/// What carries a session, as far as its files need to know.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    Quic(Connection),
    WebSocket(Arc<Origin>),
}

impl Default for State {
    fn default() -> Self {
        Self::Connecting {
            attempt: 1,
            last_error: None,
        }
    }
}

impl ClientHandle {
    pub(crate) fn new(
        uri: Uri,
        session: watch::Receiver<Option<Session>>,
        state: watch::Receiver<State>,
    ) -> Self {
        Self {
            uri: Arc::new(uri),
            session,
            state,
        }
    }

    /// Our own address: the identity's certname and our client type. Every message that we send must
    /// carry it as its sender; brokers refuse any other.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// How the connection stands, now and as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Whether a session is open just now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.session.borrow().is_some()
    }

    /// Sends a message; waits while the session's queue is full. `Ok` means handed to the transport:
    /// only an answer shows that it arrived. Messages up to the inline limit stay in order; over QUIC a
    /// larger one has a stream of its own and may be overtaken.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&self, message: Message) -> Result<(), SendError> {
        let session = self.open_session()?;
        session.check(&message)?;
        let place = if message.size() > INLINE_LIMIT {
            let place = Arc::clone(&session.large).acquire_owned().await;
            Some(place.map_err(|_| SendError::NotConnected)?)
        } else {
            None
        };
        let frame = Frame::Message(message);
        session.queue(Queued { frame, place }).await
    }

    /// Sends a message if that needs no waiting.
    ///
    /// # Errors
    /// [`TrySendError`], with the message.
    pub fn try_send(&self, message: Message) -> Result<(), TrySendError> {
        let session = match self.open_session() {
            Ok(session) => session,
            Err(error) => return Err(TrySendError::Refused(Box::new(message), error)),
        };
        if let Err(error) = session.check(&message) {
            return Err(TrySendError::Refused(Box::new(message), error));
        }
        let place = if message.size() > INLINE_LIMIT {
            match Arc::clone(&session.large).try_acquire_owned() {
                Ok(place) => Some(place),
                Err(_) => return Err(TrySendError::Full(Box::new(message))),
            }
        } else {
            None
        };
        let frame = Frame::Message(message);
        let (back, closed) = match session.outgoing.try_send(Queued { frame, place }) {
            Ok(()) => return Ok(()),
            Err(QueueError::Full(queued)) => (queued, false),
            Err(QueueError::Closed(queued)) => (queued, true),
        };
        match back.frame {
            Frame::Message(message) if closed => Err(TrySendError::Refused(
                Box::new(message),
                SendError::NotConnected,
            )),
            Frame::Message(message) => Err(TrySendError::Full(Box::new(message))),
            // The queue gives back what it was given, which is a message.
            _ => Ok(()),
        }
    }

    /// Sends a link frame, on links only; waits while the session's queue is full.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send_link(&self, frame: LinkFrame) -> Result<(), SendError> {
        self.open_session()?.queue(Frame::Link(frame).into()).await
    }

    /// Sends a link frame if that needs no waiting.
    ///
    /// # Errors
    /// [`LinkSendError`]. After `Full` the two brokers' views differ, and the session must be dropped
    /// ([`ClientHandle::reconnect`]).
    pub fn try_send_link(&self, frame: LinkFrame) -> Result<(), LinkSendError> {
        let session = self
            .open_session()
            .map_err(|_| LinkSendError::NotConnected)?;
        session
            .outgoing
            .try_send(Frame::Link(frame).into())
            .map_err(|error| match error {
                QueueError::Full(_) => LinkSendError::Full,
                QueueError::Closed(_) => LinkSendError::NotConnected,
            })
    }

    /// Fetches a file by its digest from the broker, which asks on. The bytes are not checked here.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch(&self, digest: Digest) -> Result<Content, FetchError> {
        let session = self.open_session().map_err(|_| FetchError::NotConnected)?;
        match session.way {
            Way::Quic(connection) => content::fetch(&connection, digest).await,
            Way::WebSocket(origin) => content::fetch_over_https(&origin, digest).await,
        }
    }

    /// Drops the session, if there is one; the client dials anew.
    pub fn reconnect(&self) {
        if let Ok(session) = self.open_session() {
            session.cut.cancel();
        }
    }

    fn open_session(&self) -> Result<Session, SendError> {
        if let Some(session) = &*self.session.borrow() {
            return Ok(session.clone());
        }
        match *self.state.borrow() {
            State::Closed => Err(SendError::Closed),
            State::Connecting { .. } | State::Connected { .. } => Err(SendError::NotConnected),
        }
    }
}

/// Why a link frame was not handed to the transport at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkSendError {
    /// There is no session just now.
    #[error("not connected to a broker")]
    NotConnected,
    /// The queue of the session is full.
    #[error("the queue to the broker is full")]
    Full,
}

impl Session {
    fn check(&self, message: &Message) -> Result<(), SendError> {
        let size = message.body.len();
        let limit = self.max_message;
        if size > limit {
            return Err(SendError::TooLarge { size, limit });
        }
        Ok(())
    }

    async fn queue(&self, queued: Queued) -> Result<(), SendError> {
        let sent = self.outgoing.send(queued).await;
        sent.map_err(|_| SendError::NotConnected)
    }
}
