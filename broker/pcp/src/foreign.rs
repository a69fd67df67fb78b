//! Messages as peers of PCP 1 and 2 write them, before anybody has judged their addresses, and what
//! makes messages of ours of them. The forms on the wire are in [`crate::v1`] and [`crate::v2`].

use bytes::Bytes;
use uuid::Uuid;

use crate::message::{Envelope, Flags, Message, MessageId, MessageType, TYPE_PREFIX};
use crate::uri::{Certname, ClientType, Target, Uri};

/// The address of the broker that one is connected to.
pub const BROKER: &str = "pcp:///server";

/// A message that could be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignMessage {
    /// The message's own id.
    pub id: MessageId,
    /// What it is, unchecked.
    pub message_type: String,
    /// Who sent it, unchecked; nothing stands for the connection's own address.
    pub sender: Option<String>,
    /// Where it is to go, unchecked; nothing stands for the broker.
    pub target: Option<String>,
    /// Whether it names more than one target, of which `target` is the first.
    pub multicast: bool,
    /// The message that it answers.
    pub in_reply_to: Option<MessageId>,
    /// What only sender and target read.
    pub body: Bytes,
}

/// Bytes that are no message of their version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a message of PCP {version}: {problem}")]
pub struct Undecodable {
    /// 1 or 2.
    pub version: u8,
    /// What is wrong.
    pub problem: &'static str,
}

/// What a decoded message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// One that can be routed, if its sender is genuine and the rules allow it.
    Message(Message),
    /// Its sender is no address, hence not that of the connection.
    NotAuthenticated,
    /// Its type or its target has characters that no rule allows.
    NotAuthorized,
    /// It is meant for several clients, which brokers refuse. The rules come first: they are asked
    /// about this envelope, in which one client stands for all.
    Multicast(Box<Envelope>),
}

impl ForeignMessage {
    /// Judges the addresses of a message from a connection of `peer`.
    #[must_use]
    pub fn judge(self, peer: &Uri) -> Judged {
        let sender = match self.sender.as_deref().map(str::parse::<Uri>) {
            None => peer.clone(),
            Some(Ok(sender)) => sender,
            Some(Err(_)) => return Judged::NotAuthenticated,
        };
        let Ok(message_type) = MessageType::parse(&self.message_type) else {
            return Judged::NotAuthorized;
        };
        let target = self.target.as_deref().unwrap_or(BROKER);
        let (target, wild) = match target.parse::<Target>() {
            Ok(target) => (target, false),
            Err(_) => match stand_in(target) {
                Some(target) => (target, true),
                None => return Judged::NotAuthorized,
            },
        };
        let envelope = Envelope {
            id: self.id,
            message_type,
            sender,
            target,
            in_reply_to: self.in_reply_to,
            hops: 0,
            flags: Flags::default(),
        };
        if wild || self.multicast {
            return Judged::Multicast(Box::new(envelope));
        }
        Judged::Message(Message {
            envelope,
            body: self.body,
        })
    }

    /// What a client makes of a message that a broker has delivered to it: whoever names no sender is the
    /// broker, and what has no target is for the client. Nothing when it has addresses that are none.
    #[must_use]
    pub fn delivered(self, own: &Uri, broker: &Uri) -> Option<Message> {
        let sender = match self.sender.as_deref() {
            None | Some(BROKER) => broker.clone(),
            Some(sender) => sender.parse().ok()?,
        };
        let target = match self.target.as_deref() {
            None => Target::Client(own.clone()),
            Some(target) => target.parse().ok()?,
        };
        Some(Message {
            envelope: Envelope {
                id: self.id,
                message_type: MessageType::parse(&self.message_type).ok()?,
                sender,
                target,
                in_reply_to: self.in_reply_to,
                hops: 0,
                flags: Flags::default(),
            },
            body: self.body,
        })
    }

    /// Whether this is the type `http://puppetlabs.com/<name>`.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.message_type.strip_prefix(TYPE_PREFIX) == Some(name)
    }
}

/// One client of those that an address with wildcards stands for.
fn stand_in(target: &str) -> Option<Target> {
    let (certname, client_type) = target.strip_prefix("pcp://")?.split_once('/')?;
    let certname = if certname == "*" { "any" } else { certname };
    let client_type = if client_type == "*" {
        ClientType::agent()
    } else {
        ClientType::parse(client_type).ok()?
    };
    Some(Target::Client(Uri::new(
        Certname::parse(certname).ok()?,
        client_type,
    )))
}

/// An id in the only form that PCP's peers write: 36 characters.
pub(crate) fn id(text: &str) -> Option<MessageId> {
    if text.len() != 36 {
        return None;
    }
    Uuid::try_parse(text).ok().map(MessageId)
}

/// Whether this is a broker's own word on what went wrong: it carries neither sender nor target.
pub(crate) fn is_broker_error(envelope: &Envelope) -> bool {
    envelope.sender.is_broker() && envelope.message_type.name() == Some("error_message")
}

/// The sender as PCP's peers know it: brokers are all `pcp:///server` to their clients.
pub(crate) fn sender(envelope: &Envelope) -> String {
    if envelope.sender.is_broker() {
        BROKER.to_owned()
    } else {
        envelope.sender.to_string()
    }
}
