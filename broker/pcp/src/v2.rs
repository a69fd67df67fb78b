//! PCP 2: one JSON object in one WebSocket text frame.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::foreign::{self, ForeignMessage, Undecodable, id, is_broker_error};
use crate::message::{Envelope, MAX_ENVELOPE};

/// What a message of PCP 2 may take beside its body: an envelope with its keys, every character of it
/// escaped.
pub const OVERHEAD: usize = 8 * MAX_ENVELOPE;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Received<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    message_type: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "present")]
    target: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    sender: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    in_reply_to: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

/// A key that is there has a value: `null` is data like any other, and no address.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[derive(Serialize)]
struct Sent<'a> {
    id: String,
    message_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_reply_to: Option<String>,
}

/// Reads a text frame. The body is the very text of `data`, and shares memory with the frame.
///
/// # Errors
/// [`Undecodable`] when it is no message.
pub fn decode(text: &Bytes) -> Result<ForeignMessage, Undecodable> {
    let wrong = |problem| Undecodable {
        version: 2,
        problem,
    };
    let received: Received<'_> = serde_json::from_slice(text).map_err(|_| {
        wrong("it is not an object of id, message_type, target, sender, in_reply_to and data")
    })?;
    let in_reply_to = match received.in_reply_to {
        None => None,
        Some(text) => Some(id(&text).ok_or(wrong("in_reply_to is not a UUID"))?),
    };
    Ok(ForeignMessage {
        id: id(&received.id).ok_or(wrong("the id is not a UUID"))?,
        message_type: received.message_type.into_owned(),
        sender: received.sender.map(Cow::into_owned),
        target: received.target.map(Cow::into_owned),
        multicast: false,
        in_reply_to,
        body: received
            .data
            .map_or_else(Bytes::new, |data| text.slice_ref(data.get().as_bytes())),
    })
}

/// The text of a message up to its body, and what comes behind it. A broker's error carries neither
/// sender nor target, and every broker is `pcp:///server` to its clients.
#[must_use]
pub fn encode(envelope: &Envelope, has_body: bool) -> (String, &'static str) {
    let bare = is_broker_error(envelope);
    let head = serde_json::to_string(&Sent {
        id: envelope.id.to_string(),
        message_type: envelope.message_type.as_str(),
        target: (!bare).then(|| envelope.target.to_string()),
        sender: (!bare).then(|| foreign::sender(envelope)),
        in_reply_to: envelope.in_reply_to.map(|id| id.to_string()),
    });
    // Strings alone, so that it cannot fail.
    let mut head = head.unwrap_or_default();
    if !has_body {
        return (head, "");
    }
    head.pop();
    head.push_str(",\"data\":");
    (head, "}")
}

/// Whether a body is one JSON value, and so may stand as `data` in a text frame: a sender over QUIC
/// may put anything there, and could else write an envelope of its own into the frame.
#[must_use]
pub fn may_be_data(body: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(body).is_ok()
}
