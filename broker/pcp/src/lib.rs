//! The PCP wire protocol as values: what may be said, and in which order, without sockets or clocks.
//!
//! Read in this order: [`uri`] (who), [`message`] (the envelope that brokers route and the body that
//! they never read), [`frame`] (how values lie on a stream), [`greeting`] and [`session`] (who may say what when),
//! [`link`] (what brokers tell each other), [`body`] (the few bodies that brokers themselves speak).
//! Existing peers: [`foreign`] (what is common to their messages), [`v2`], [`v1`], [`websocket`].
//!
//! Everything that a peer sends is parsed here, once, against named limits that are checked before
//! memory is taken. No input makes this crate panic.

pub mod body;
pub mod foreign;
pub mod frame;
pub mod greeting;
pub mod link;
pub mod message;
pub mod session;
mod text;
pub mod uri;
pub mod v1;
pub mod v2;
pub mod websocket;
mod wire;

pub use body::{
    ErrorKind, InventoryChange, InventoryRequest, InventoryResponse, InventoryUpdate, Places,
};
pub use foreign::{ForeignMessage, Judged, Undecodable};
pub use frame::{
    ContentError, ContentErrorCode, Digest, Frame, FrameError, FrameReader, FrameWriter,
};
pub use greeting::{Goodbye, GoodbyeCode, Hello, Retry, Welcome};
pub use link::{Announcement, LinkFrame};
pub use message::{Envelope, Flags, Message, MessageId, MessageType};
pub use session::{ClientEvent, ClientSession, PeerMisbehaved, ServerEvent, ServerSession};
pub use uri::{Certname, ClientType, Target, Uri, UriError, UriPattern};

/// The ALPN name of this protocol over QUIC. Peers of one major version understand each other.
pub const ALPN: &[u8] = b"pcp-quic/1";

/// The port that PCP brokers have always listened on.
pub const DEFAULT_PORT: u16 = 8142;
