//! The bodies that brokers themselves speak: inventory and errors (PCP 2, JSON).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::message::MessageType;
use crate::uri::{Certname, MAX_CERTNAME, MAX_CLIENT_TYPE, Uri, UriPattern};

/// The most patterns in one inventory query; a controller needs one or two.
pub const MAX_QUERY: usize = 1024;

/// The longest body of an inventory query in bytes: [`MAX_QUERY`] patterns of the greatest length,
/// quoted. A longer one is not even read.
pub const MAX_QUERY_BYTES: usize = MAX_QUERY * (MAX_CERTNAME + MAX_CLIENT_TYPE + 16);

/// `inventory_request`: which clients are connected?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InventoryRequest {
    /// The clients asked about; wildcards are allowed.
    pub query: Vec<UriPattern>,
    /// Whether changes are to be sent from now on. Each request replaces the one before.
    #[serde(default)]
    pub subscribe: bool,
}

/// `inventory_response`: the connected clients that match, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryResponse {
    /// Addresses, sorted.
    pub uris: Vec<Uri>,
    /// Where they are, for who has asked with [`Flags::PLACES`](crate::Flags::PLACES).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub places: Option<Places>,
}

/// At which broker each client of a response is connected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// The brokers, each once.
    brokers: Vec<Certname>,
    /// For each client, in the response's order, the place of its broker among them.
    of: Vec<usize>,
}

/// `inventory_update`: what has changed since the response or the last update, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryUpdate {
    /// Changes, in order.
    pub changes: Vec<InventoryChange>,
}

/// One client that came (1) or went (-1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryChange {
    /// The client.
    pub client: Uri,
    /// [`CAME`](Self::CAME), [`GONE`](Self::GONE) or [`MOVED`](Self::MOVED).
    pub change: i8,
    /// Where it is, for who has asked with [`Flags::PLACES`](crate::Flags::PLACES).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<Certname>,
}

impl InventoryChange {
    /// A session of the client has begun.
    pub const CAME: i8 = 1;
    /// The client is connected nowhere any more.
    pub const GONE: i8 = -1;
    /// The same session is reached by another broker now. Told with places alone: the original has
    /// no such change.
    pub const MOVED: i8 = 0;
}

impl Places {
    /// The places of clients, in their order.
    pub fn of<'a>(brokers: impl Iterator<Item = &'a Certname>) -> Self {
        let mut places = Self::default();
        for broker in brokers {
            // A site has a handful of brokers, and neighbours in the order are often at the same one.
            let known = places.brokers.iter().position(|known| known == broker);
            let place = known.unwrap_or_else(|| {
                places.brokers.push(broker.clone());
                places.brokers.len() - 1
            });
            places.of.push(place);
        }
        places
    }

    /// The broker of the client that stands at `index` in the response; nothing when the sender did
    /// not say.
    #[must_use]
    pub fn broker(&self, index: usize) -> Option<&Certname> {
        self.brokers.get(*self.of.get(index)?)
    }
}

/// The kinds of a broker's `error_message`. On the wire it is the text alone, as PCP 2 has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The target is connected nowhere in the mesh.
    NotConnected,
    /// The sender is not who the certificate says.
    NotAuthenticated,
    /// A rule, or the lack of one, forbids the message.
    NotAuthorized,
    /// The target's queue is full.
    Busy,
    /// The body is above the broker's limit.
    TooLarge,
    /// The broker that holds the target cannot be reached just now.
    Unreachable,
    /// The message went round in circles or past too many brokers.
    TooManyHops,
    /// A message for the broker itself that it could not read.
    Undecodable,
}

impl ErrorKind {
    const ALL: [(Self, &'static str); 8] = [
        (Self::NotConnected, "Not connected."),
        (Self::NotAuthenticated, "Message not authenticated."),
        (Self::NotAuthorized, "Message not authorized."),
        (Self::Busy, "Target is busy."),
        (Self::TooLarge, "Message too large."),
        (Self::Unreachable, "Broker of the target is not reachable."),
        (Self::TooManyHops, "Message passed too many brokers."),
        (Self::Undecodable, "Could not decode message"),
    ];

    /// The text on the wire: the originals' where they have one.
    #[must_use]
    pub fn text(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or("", |(_, text)| text)
    }

    /// The kind behind a text; nothing for a foreign broker's other texts.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == text)
            .map(|(kind, _)| *kind)
    }

    /// The body of an `error_message`: the text as a JSON string.
    #[must_use]
    pub fn body(self) -> Bytes {
        Bytes::from(format!("\"{}\"", self.text()))
    }

    /// Reads the body of an `error_message` of a broker.
    #[must_use]
    pub fn from_body(body: &[u8]) -> Option<Self> {
        Self::from_text(&serde_json::from_slice::<String>(body).ok()?)
    }
}

/// `inventory_request`
#[must_use]
pub fn inventory_request() -> MessageType {
    MessageType::of("inventory_request")
}

/// `inventory_response`
#[must_use]
pub fn inventory_response() -> MessageType {
    MessageType::of("inventory_response")
}

/// `inventory_update`
#[must_use]
pub fn inventory_update() -> MessageType {
    MessageType::of("inventory_update")
}

/// `error_message`
#[must_use]
pub fn error_message() -> MessageType {
    MessageType::of("error_message")
}
