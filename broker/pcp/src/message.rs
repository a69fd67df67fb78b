//! A PCP message: an envelope that brokers route by, and a body that they never read.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::text::Text;
use crate::uri::{Certname, ClientType, Target, Uri, UriError};
use crate::wire::{Reader, Truncated, put_short};

/// The longest message type. PCP's are URLs of some fifty characters.
pub const MAX_MESSAGE_TYPE: usize = 255;

/// The most bytes an envelope can take: the fixed part, two ids and five texts with their lengths.
pub const MAX_ENVELOPE: usize = 4 + 16 + 16 + 5 * 256;

/// A message above this many bytes, envelope included, travels on a stream of its own, so that
/// nothing waits behind it (design: 16 KiB).
pub const INLINE_LIMIT: usize = 16 * 1024;

/// The default limit of a whole message in bytes, as in the original broker and agent (64 MiB).
pub const DEFAULT_MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// The most brokers a message may pass. Two are enough inside a site; a message with more than this
/// is in a loop, which the mesh rules out by construction and checks all the same.
pub const MAX_HOPS: u8 = 4;

const VERSION: u8 = 1;
const HAS_IN_REPLY_TO: u8 = 1 << 7;

/// The prefix of every message type that PCP and PXP define.
pub const TYPE_PREFIX: &str = "http://puppetlabs.com/";

/// The message types of PXP and PCP that nearly all messages have.
const MESSAGE_TYPES: [&str; 12] = [
    "http://puppetlabs.com/rpc_blocking_request",
    "http://puppetlabs.com/rpc_blocking_response",
    "http://puppetlabs.com/rpc_non_blocking_request",
    "http://puppetlabs.com/rpc_non_blocking_response",
    "http://puppetlabs.com/rpc_provisional_response",
    "http://puppetlabs.com/rpc_outcome_acknowledgement",
    "http://puppetlabs.com/rpc_error_message",
    "http://puppetlabs.com/rpc_output",
    "http://puppetlabs.com/error_message",
    "http://puppetlabs.com/inventory_request",
    "http://puppetlabs.com/inventory_response",
    "http://puppetlabs.com/inventory_update",
];

/// A message's id, chosen by its sender.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub Uuid);

/// What a message is, as PCP writes it: `http://puppetlabs.com/rpc_non_blocking_request`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageType(Text);

/// Properties of a message that are neither address nor body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u8);

/// What a broker needs to know of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The message's own id.
    pub id: MessageId,
    /// What it is.
    pub message_type: MessageType,
    /// Who sent it; brokers refuse a message whose sender is not the connection's own address.
    pub sender: Uri,
    /// Where it is to go.
    pub target: Target,
    /// The message that this one answers.
    pub in_reply_to: Option<MessageId>,
    /// How many brokers have passed it on so far.
    pub hops: u8,
    /// Further properties.
    pub flags: Flags,
}

/// An envelope and its opaque body, which arrives exactly as it was sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The routed part.
    pub envelope: Envelope,
    /// The part that only sender and target read: for PXP, JSON text. May be empty.
    pub body: Bytes,
}

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside the envelope.
    #[error("the message ends inside its envelope")]
    Truncated,
    /// The first byte names an envelope version that this software does not know.
    #[error("envelope version {0} is not known here")]
    Version(u8),
    /// A field of the envelope is not UTF-8.
    #[error("a text of the envelope is not UTF-8")]
    Text,
    /// The sender or target is not a PCP address.
    #[error("an address of the envelope is malformed")]
    Uri(#[source] UriError),
    /// The message type is empty or has a character outside `[A-Za-z0-9_.:/-]`.
    #[error("the message type is malformed")]
    MessageType,
}

impl From<Truncated> for DecodeError {
    fn from(Truncated: Truncated) -> Self {
        Self::Truncated
    }
}

impl MessageId {
    /// An id for a sender that counts instead of drawing random numbers: `life` (its low 48 bits
    /// count) keeps the sender's lives apart, `number` the messages of one life. The two make a
    /// UUID of version 8.
    #[must_use]
    pub fn numbered(life: u64, number: u64) -> Self {
        let bytes = (u128::from(life) << 80 | u128::from(number)).to_be_bytes();
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

impl MessageType {
    /// Parses a message type: 1 to [`MAX_MESSAGE_TYPE`] characters of `[A-Za-z0-9_.:/-]`.
    ///
    /// # Errors
    /// [`DecodeError::MessageType`] when it is anything else.
    pub fn parse(text: &str) -> Result<Self, DecodeError> {
        let fits = (1..=MAX_MESSAGE_TYPE).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_.:/-".contains(&b));
        if fits {
            Ok(Self(Text::of(text, &MESSAGE_TYPES)))
        } else {
            Err(DecodeError::MessageType)
        }
    }

    /// The type `http://puppetlabs.com/<name>`. Meant for the names that PCP and PXP define.
    #[must_use]
    pub fn of(name: &'static str) -> Self {
        let known = |known: &&&str| known.strip_prefix(TYPE_PREFIX) == Some(name);
        Self(match MESSAGE_TYPES.iter().find(known) {
            Some(known) => Text::Known(known),
            None => Text::Other(format!("{TYPE_PREFIX}{name}").into()),
        })
    }

    /// The part behind `http://puppetlabs.com/`, or nothing for a foreign type.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.as_str().strip_prefix(TYPE_PREFIX)
    }

    /// The whole type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl Flags {
    /// The requester will acknowledge the outcome of this request with an
    /// `rpc_outcome_acknowledgement`; until then the agent keeps the result and sends it again.
    /// Requests that come in over WebSocket never carry it, so old requesters see old behaviour.
    pub const ACKNOWLEDGES: Self = Self(1);

    /// The sender of this inventory request wants to hear at which broker each client is, too.
    /// Others are told what the original tells.
    pub const PLACES: Self = Self(1 << 1);

    /// Whether all flags of `other` are set here.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl Message {
    /// How many bytes [`Message::encode`] writes, at most. Exact but for the fixed part's slack.
    #[must_use]
    pub fn size(&self) -> usize {
        let target = match &self.envelope.target {
            Target::Broker => 2,
            Target::Client(uri) => 2 + uri_size(uri),
        };
        let in_reply_to = if self.envelope.in_reply_to.is_some() {
            16
        } else {
            0
        };
        3 + 16
            + in_reply_to
            + 1
            + self.envelope.message_type.as_str().len()
            + 2
            + uri_size(&self.envelope.sender)
            + target
            + self.body.len()
    }

    /// Writes the message: version, flags, hops, id, in_reply_to if there is one, message type,
    /// sender (certname, client type), target (the same; both empty for the broker), body.
    pub fn encode(&self, out: &mut BytesMut) {
        let envelope = &self.envelope;
        out.reserve(self.size());
        out.put_u8(VERSION);
        let reply = if envelope.in_reply_to.is_some() {
            HAS_IN_REPLY_TO
        } else {
            0
        };
        out.put_u8(envelope.flags.0 | reply);
        out.put_u8(envelope.hops);
        out.extend_from_slice(envelope.id.0.as_bytes());
        if let Some(id) = envelope.in_reply_to {
            out.extend_from_slice(id.0.as_bytes());
        }
        put_short(out, envelope.message_type.as_str());
        put_uri(out, &envelope.sender);
        match &envelope.target {
            Target::Broker => out.put_slice(&[0, 0]),
            Target::Client(uri) => put_uri(out, uri),
        }
        out.extend_from_slice(&self.body);
    }

    /// Reads a message back. The body shares memory with `bytes`.
    ///
    /// # Errors
    /// [`DecodeError`] says which part of the envelope is wrong.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let flags = reader.u8()?;
        let hops = reader.u8()?;
        let id = MessageId(Uuid::from_bytes(reader.array()?));
        let in_reply_to = if flags & HAS_IN_REPLY_TO == 0 {
            None
        } else {
            Some(MessageId(Uuid::from_bytes(reader.array()?)))
        };
        let message_type = reader.short(|bytes| MessageType::parse(text(bytes)?))??;
        let sender = read_uri(&mut reader)?.ok_or(DecodeError::Uri(UriError::Certname))?;
        let target = read_uri(&mut reader)?.map_or(Target::Broker, Target::Client);
        let flags = Flags(flags & !HAS_IN_REPLY_TO);
        let envelope = Envelope {
            id,
            message_type,
            sender,
            target,
            in_reply_to,
            hops,
            flags,
        };
        Ok(Self {
            envelope,
            body: reader.rest(),
        })
    }
}

fn uri_size(uri: &Uri) -> usize {
    uri.certname().as_str().len() + uri.client_type().as_str().len()
}

pub(crate) fn put_uri(out: &mut BytesMut, uri: &Uri) {
    put_short(out, uri.certname().as_str());
    put_short(out, uri.client_type().as_str());
}

/// Reads a certname and a client type; nothing when both are empty.
pub(crate) fn read_uri(reader: &mut Reader) -> Result<Option<Uri>, DecodeError> {
    let certname = reader.short(|bytes| match bytes {
        [] => Ok(None),
        bytes => Certname::parse(text(bytes)?)
            .map(Some)
            .map_err(DecodeError::Uri),
    })??;
    let client_type = reader.short(|bytes| match bytes {
        [] => Ok(None),
        bytes => ClientType::parse(text(bytes)?)
            .map(Some)
            .map_err(DecodeError::Uri),
    })??;
    match (certname, client_type) {
        (Some(certname), Some(client_type)) => Ok(Some(Uri::new(certname, client_type))),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(DecodeError::Uri(UriError::Certname)),
        (Some(_), None) => Err(DecodeError::Uri(UriError::ClientType)),
    }
}

fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Text)
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().unwrap_or(self.as_str()))
    }
}

impl fmt::Debug for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bodies hold parameters and output of tasks: they are never printed.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("envelope", &self.envelope)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}
