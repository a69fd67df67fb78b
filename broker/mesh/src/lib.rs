//! Who is connected where, and where a message goes next, without IO.
//!
//! A [`Node`] is one broker's whole knowledge of the mesh. It holds no socket, reads no clock and
//! draws no random number, so that a simulation can drive whole fleets of nodes through loss, crash
//! and partition and replay what went wrong.
//!
//! # The driving contract
//!
//! One task, the driver, owns the node. Whatever happens outside is told to it by one method each:
//! a client or a broker came or went, a message or a link frame arrived, time has passed. `now` is a
//! monotonic clock in milliseconds and never runs backwards. After each input the driver calls
//! [`Node::poll`] until it gives nothing, and carries the outputs out in that order; frames and
//! messages to one session must leave in the order in which they were given.
//!
//! * A session that [`Output::Close`] names is already forgotten: what still comes from it is
//!   ignored, and telling the node that it disconnected does no harm.
//! * [`Output::SendLink`] must be carried out or the link closed: a link that loses a frame would
//!   tell lies for ever. A snapshot of a large fleet is many frames at once.
//! * [`Output::Send`] may be refused (a full queue): the driver then hands the message back through
//!   [`Node::undeliverable`], and the sender learns of it.
//! * A session that is found dead when something is to be sent on it is reported as disconnected first,
//!   and the message handed back behind that ([`ErrorKind::NotConnected`], or of an uplink
//!   [`ErrorKind::Unreachable`]): it then waits for the client's return, or goes another way.
//! * [`Node::tick`] is due at [`Node::next_tick`], and harmless at any other time.
//!
//! # The shape of the mesh
//!
//! A compiler dials its primaries; primaries dial each other. Announcements go up and sideways,
//! never down: a compiler announces its own clients to its primaries, a primary announces its own
//! and its compilers' clients to the other primaries. A message goes to the client itself, or over
//! the link that announced the client, or, from a compiler, up. Since a message that came down is
//! never sent up again, and one that came from another primary is never sent to a third, none can
//! go in circles; the hop count is checked all the same.
//!
//! A client that has just gone is waited for, for a moment: it is usually on its way to another broker.
//! So a message to it is kept where it was to be delivered, or at a primary, and fails only when the
//! client is not back in time. Controllers, on which answers of a whole fleet depend, are given longer.
//!
//! A client seen in two places belongs to the session that started last. The other one, wherever it
//! is, is closed as superseded: a primary that sees both tells the compiler that holds the older one
//! by a delta down the link.

mod absent;
mod config;
mod counters;
mod delivery;
mod inventory;
mod link;
mod node;
mod route;
mod subscription;

#[cfg(doc)]
use pcp::ErrorKind;
use pcp::{Certname, GoodbyeCode, LinkFrame, Message, Uri};

pub use config::{
    DEFAULT_GRACE_BYTES, DEFAULT_GRACE_MESSAGES, DEFAULT_GRACE_PERIOD, DEFAULT_MAX_ANNOUNCED,
    DEFAULT_MAX_CLIENTS, DEFAULT_RETURN_PERIOD, NodeConfig, Role,
};
pub use counters::{Counters, Sizes};
pub use link::Misbehaved;
pub use node::Node;

/// One connection of the driver, to a client or to a broker. The driver chooses the number, which
/// is unique in the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What a link is to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkKind {
    /// We dialled this primary: a compiler its primary, or a primary another one.
    Up,
    /// A compiler dialled us.
    Down,
    /// Another primary dialled us.
    Peer,
}

/// What the broker's rules say of a message. Whether its sender is genuine is the node's own check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The message may pass.
    Allowed,
    /// The sender is told that it may not.
    Denied,
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Hand a message to a client, or to a broker that passes it on.
    Send {
        /// To whom.
        session: SessionId,
        /// What, with its hop count already raised.
        message: Message,
    },
    /// Tell a broker who is connected.
    SendLink {
        /// To whom.
        session: SessionId,
        /// What.
        frame: LinkFrame,
    },
    /// End a session with a goodbye.
    Close {
        /// Which.
        session: SessionId,
        /// What the peer's program decides by.
        code: GoodbyeCode,
        /// What a person reads.
        reason: String,
    },
}

/// One client of the inventory, as an operator or a metric sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InventoryEntry<'a> {
    /// The client's address.
    pub uri: &'a Uri,
    /// When its session started, by its own clock ([`pcp::Hello::started`]).
    pub started: u64,
    /// The broker over whose link it is reached; nothing when it is connected to this broker.
    pub via: Option<&'a Certname>,
}
