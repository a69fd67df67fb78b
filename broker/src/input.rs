//! What the driver is told, by whatever happens on connections, and asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pcp::{Certname, ErrorKind, GoodbyeCode, LinkFrame, Message, Uri};
use pcp_client::ClientHandle;
use pcp_mesh::{LinkKind, SessionId};
use quinn::Connection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::look::Question;
use crate::outbox::Outbox;

/// How much of what happened may wait for the driver. Inline messages have at most 16 KiB, so this is
/// at most 64 MiB; when it is full, sessions wait and their peers are held back.
pub(crate) const INPUT_QUEUE: usize = 4096;

/// How long an answer may take. A driver that has so much to do must not gather askers besides.
const PATIENCE: Duration = Duration::from_secs(5);

/// What happens on a connection.
#[derive(Debug)]
pub(crate) enum Input {
    /// A client was welcomed.
    Client {
        session: SessionId,
        uri: Uri,
        address: Whereabouts,
        started: u64,
        outbox: Arc<Outbox>,
    },
    /// A link to another broker is open.
    Link {
        session: SessionId,
        broker: Certname,
        kind: LinkKind,
        /// Of the hello; nothing tells those apart that we have dialled.
        started: u64,
        /// Nothing when we have dialled it.
        address: Option<Whereabouts>,
        exit: Exit,
    },
    /// A message came in.
    Message {
        session: SessionId,
        message: Message,
    },
    /// A link frame came in.
    LinkFrame {
        session: SessionId,
        frame: LinkFrame,
    },
    /// A session is to be ended from here.
    Close {
        session: SessionId,
        code: GoodbyeCode,
        reason: String,
    },
    /// A message that was taken could not be written in the peer's version of PCP after all.
    Undeliverable {
        session: SessionId,
        message: Message,
        why: ErrorKind,
    },
    /// A session has ended.
    Closed { session: SessionId },
    /// Somebody wants to see what there is.
    Look(Question),
    /// The broker is being stopped, and these will be told to go elsewhere in a moment.
    Leaving { sessions: Vec<SessionId> },
    /// They are told now.
    Goodbye { sessions: Vec<SessionId> },
    /// Everybody is told, now and whoever still comes.
    Drain,
    /// Whatever waits for somebody goes back to its sender: the broker is about to end.
    GiveBack,
}

/// Where a peer is.
#[derive(Debug, Clone)]
pub(crate) enum Whereabouts {
    /// At this address.
    Fixed(SocketAddr),
    /// At the other end of this connection, which goes on when its address changes.
    Quic(Connection),
}

impl Whereabouts {
    /// Its address just now.
    pub(crate) fn now(&self) -> SocketAddr {
        match self {
            Self::Fixed(address) => *address,
            Self::Quic(connection) => connection.remote_address(),
        }
    }
}

/// The way out to a peer.
#[derive(Debug)]
pub(crate) enum Exit {
    /// A session that the peer has opened.
    Session(Arc<Outbox>),
    /// A primary that we have dialled.
    Uplink(ClientHandle),
}

/// Asks the driver; nothing when it does not answer in time.
pub(crate) async fn ask<T>(
    inputs: &mpsc::Sender<Input>,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Option<T> {
    let (sender, answer) = oneshot::channel();
    let asked = async {
        let input = Input::Look(question(sender));
        inputs.send(input).await.ok()?;
        answer.await.ok()
    };
    timeout(PATIENCE, asked).await.ok()?
}
