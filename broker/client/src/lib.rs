//! One live connection to a broker: dialling, failover, backoff and the session.
//!
//! [`start`] gives a [`ClientHandle`] to send with and a queue of [`Event`]s to read. Behind them one
//! task dials the brokers in turn, for ever: it says hello, moves messages, and when the session ends
//! waits as [`backoff`] says and dials again. Agents, orchestrators and a compiler's uplink all use
//! it; what differs is the [`ClientConfig`].
//!
//! There are two ways to a broker ([`way`]): QUIC, and where UDP does not get through, WebSocket. A
//! client on WebSocket tries QUIC again (`reprobe`, pure) and moves to it without losing a message.
//!
//! Read in this order: [`config`], [`backoff`] (when to dial what, pure), `dial`, `session`,
//! [`handle`]. [`stream`], [`content`], [`transport`], [`websocket`] and [`woken`] are also the broker's: how frames, files,
//! sockets and sessions behave is the same on both ends.

pub mod address;
pub mod backoff;
mod clock;
pub mod config;
pub mod content;
mod dial;
pub mod doctor;
pub mod handle;
mod http;
pub mod https;
pub mod outward;
pub mod probe;
pub mod proxy;
mod race;
mod redial;
mod reprobe;
mod resolve;
mod session;
pub mod stream;
mod tcp;
pub mod transport;
pub mod way;
pub mod websocket;
pub mod woken;

use pcp::{LinkFrame, Message, Uri, Welcome};
use tokio::sync::{mpsc, watch};

pub use address::BrokerAddress;
pub use backoff::Backoff;
pub use config::ClientConfig;
pub use content::{Content, ContentQuery, FetchError};
pub use handle::{ClientHandle, SendError, State, TrySendError};
pub use proxy::Proxy;
pub use tcp::TcpError;
pub use way::{Transport, Ways};

/// The feature of a client that answers content requests: it has the files of tasks.
pub const FEATURE_CONTENT: &str = "content";

/// How many events wait for their reader. When it is full the client stops reading the session, and
/// QUIC's flow control holds the broker back. An inline message has at most 16 KiB, so this is at
/// most 4 MiB.
pub const EVENT_QUEUE: usize = 256;

/// What happens on the connection, in order.
#[derive(Debug)]
pub enum Event {
    /// A session is open; the handle sends on it from now on.
    Connected {
        /// What the broker said.
        welcome: Welcome,
        /// What carries the session.
        transport: Transport,
    },
    /// A message for this client. One that came on its own stream may be overtaken by shorter ones,
    /// and may still arrive after the end of its session was reported.
    Message(Message),
    /// News of the broker's clients; only on a link.
    Link(LinkFrame),
    /// The session is over. What was sent and not answered may or may not have arrived. When the client
    /// moves to a better way the next session is open already, and what was sent has arrived.
    Disconnected {
        /// Why, for a person.
        reason: String,
    },
    /// The broker asks for a file; only with [`FEATURE_CONTENT`].
    Content(ContentQuery),
}

/// Starts a client: it dials until `tasks` is shut down or the queue of events is dropped, and never
/// gives up before.
#[must_use]
pub fn start(config: ClientConfig, tasks: &daemon::Tasks) -> (ClientHandle, mpsc::Receiver<Event>) {
    let (events, event_queue) = mpsc::channel(EVENT_QUEUE);
    let (state, state_seen) = watch::channel(State::default());
    let (session, session_seen) = watch::channel(None);
    let uri = Uri::new(
        config.identity.get().certname().clone(),
        config.client_type.clone(),
    );
    let handle = ClientHandle::new(uri, session_seen, state_seen);
    let task = redial::Connection::new(config, tasks.clone(), events, state, session);
    tasks.spawn_core("pcp-client", task.run());
    (handle, event_queue)
}
