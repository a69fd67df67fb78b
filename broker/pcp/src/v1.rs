//! PCP 1: one WebSocket binary frame of chunks, an envelope in JSON first. Inside it is PCP 2 that
//! counts: what PCP 1 has beyond it (expiry, reports, hops) is read, checked for its form, and dropped,
//! as the original broker does since its version 1.0.

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::foreign::{self, ForeignMessage, Undecodable, id, is_broker_error};
use crate::message::{Message, TYPE_PREFIX};

/// What a message of PCP 1 may take beside its body: an envelope that names some thousand targets, and
/// a trace of its way.
pub const OVERHEAD: usize = 64 * 1024;

/// The most targets of one message that are read; above one it is refused anyway.
const MAX_TARGETS: usize = 1024;

const VERSION: u8 = 1;
const ENVELOPE: u8 = 1;
const DATA: u8 = 2;
const DEBUG: u8 = 3;

/// What the original broker writes: receivers of PCP 1 do not look at it.
const EXPIRES: &str = "1970-01-01T00:00:00.000Z";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Received {
    id: String,
    message_type: String,
    expires: String,
    targets: Vec<String>,
    sender: String,
    #[serde(default)]
    destination_report: Option<bool>,
    #[serde(default, rename = "in-reply-to")]
    in_reply_to: Option<String>,
}

#[derive(Serialize)]
struct Sent<'a> {
    id: String,
    message_type: &'a str,
    expires: &'static str,
    targets: Vec<String>,
    sender: String,
    #[serde(rename = "in-reply-to", skip_serializing_if = "Option::is_none")]
    in_reply_to: Option<String>,
}

/// The data of an `error_message` in PCP 1.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorData {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    description: String,
}

/// The data of an `associate_response`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssociateResponse {
    /// The request that is answered.
    pub id: String,
    /// Whether the client is associated.
    pub success: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Reads a binary frame. The body shares memory with it.
///
/// # Errors
/// [`Undecodable`] when it is no message.
pub fn decode(frame: &Bytes) -> Result<ForeignMessage, Undecodable> {
    let (envelope, data) = chunks(frame)?;
    let received: Received =
        serde_json::from_slice(&envelope).map_err(|_| wrong("its envelope is malformed"))?;
    if received.targets.len() > MAX_TARGETS {
        return Err(wrong("it has too many targets"));
    }
    if !is_time(&received.expires) {
        return Err(wrong("expires is not a time"));
    }
    let _report_is_history = received.destination_report;
    let mut in_reply_to = match &received.in_reply_to {
        None => None,
        Some(text) => Some(id(text).ok_or(wrong("in-reply-to is not a UUID"))?),
    };
    let mut body = data;
    if received.message_type.strip_prefix(TYPE_PREFIX) == Some("error_message") {
        let data: ErrorData = serde_json::from_slice(&body)
            .map_err(|_| wrong("the data of an error are not id and description"))?;
        in_reply_to = match data.id {
            None => in_reply_to,
            Some(text) => Some(id(&text).ok_or(wrong("an error's id is not a UUID"))?),
        };
        body = json(&data.description);
    }
    let multicast = received.targets.len() > 1;
    Ok(ForeignMessage {
        id: id(&received.id).ok_or(wrong("the id is not a UUID"))?,
        message_type: received.message_type,
        sender: Some(received.sender),
        target: received.targets.into_iter().next(),
        multicast,
        in_reply_to,
        body,
    })
}

/// Envelope and data of a frame.
fn chunks(frame: &Bytes) -> Result<(Bytes, Bytes), Undecodable> {
    let mut rest = frame.clone();
    if rest.first() != Some(&VERSION) {
        return Err(wrong("its first byte is not 1"));
    }
    drop(rest.split_to(1));
    let Some((ENVELOPE, envelope)) = chunk(&mut rest)? else {
        return Err(wrong("it does not begin with an envelope"));
    };
    let mut data = Bytes::new();
    let mut may_be_data = true;
    while let Some((kind, content)) = chunk(&mut rest)? {
        match kind {
            DATA if may_be_data => data = content,
            DEBUG if serde_json::from_slice::<IgnoredAny>(&content).is_ok() => {}
            DEBUG => return Err(wrong("a debug chunk is malformed")),
            _ => return Err(wrong("a chunk may not stand there")),
        }
        may_be_data = false;
    }
    Ok((envelope, data))
}

/// The next chunk, with its kind; nothing at the end.
fn chunk(rest: &mut Bytes) -> Result<Option<(u8, Bytes)>, Undecodable> {
    if rest.is_empty() {
        return Ok(None);
    }
    let Some(([descriptor, a, b, c, d], _)) = rest.split_first_chunk::<5>() else {
        return Err(wrong("a chunk ends too early"));
    };
    // The high half is reserved for flags that nobody has defined.
    let kind = descriptor & 0x0f;
    let length = i32::from_be_bytes([*a, *b, *c, *d]);
    let length = usize::try_from(length).map_err(|_| wrong("a length is negative"))?;
    if rest.len() - 5 < length {
        return Err(wrong("a chunk ends too early"));
    }
    drop(rest.split_to(5));
    Ok(Some((kind, rest.split_to(length))))
}

/// A frame up to its data, and the data. A message without a body has no data chunk.
#[must_use]
pub fn encode(message: &Message) -> (Bytes, Bytes) {
    let envelope = &message.envelope;
    let name = envelope.message_type.name();
    let sent = serde_json::to_vec(&Sent {
        id: envelope.id.to_string(),
        message_type: envelope.message_type.as_str(),
        expires: EXPIRES,
        targets: if is_broker_error(envelope) {
            Vec::new()
        } else {
            vec![envelope.target.to_string()]
        },
        sender: foreign::sender(envelope),
        in_reply_to: envelope
            .in_reply_to
            .filter(|_| name == Some("inventory_response"))
            .map(|id| id.to_string()),
    });
    // Strings alone, so that it cannot fail.
    let sent = sent.unwrap_or_default();
    let body = if name == Some("error_message") {
        error_data(message)
    } else {
        message.body.clone()
    };
    let mut head = BytesMut::with_capacity(1 + 5 + sent.len() + 5);
    head.put_u8(VERSION);
    put_chunk(&mut head, ENVELOPE, sent.len());
    head.extend_from_slice(&sent);
    if !body.is_empty() {
        put_chunk(&mut head, DATA, body.len());
    }
    (head.freeze(), body)
}

fn put_chunk(out: &mut BytesMut, kind: u8, length: usize) {
    out.put_u8(kind);
    // The message limit is far below 2 GiB.
    out.put_i32(i32::try_from(length).unwrap_or(i32::MAX));
}

/// An error's string as the object that PCP 1 has. Another agent's error may be any JSON.
fn error_data(message: &Message) -> Bytes {
    let description = match serde_json::from_slice::<String>(&message.body) {
        Ok(text) => text,
        Err(_) => match serde_json::from_slice::<&RawValue>(&message.body) {
            Ok(json) => json.get().to_owned(),
            Err(_) => String::new(),
        },
    };
    json(&ErrorData {
        id: message.envelope.in_reply_to.map(|id| id.to_string()),
        description,
    })
}

fn json<T: Serialize + ?Sized>(value: &T) -> Bytes {
    // Strings alone, so that it cannot fail.
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}

/// Whether a text has the form `YYYY-MM-DDThh:mm:ss` with what ISO 8601 allows behind it. The time
/// itself means nothing any more.
fn is_time(text: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00";
    let text = text.as_bytes();
    let Some((head, tail)) = text.split_at_checked(FORM.len()) else {
        return false;
    };
    let fits = head.iter().zip(FORM).all(|(byte, form)| {
        if form.is_ascii_digit() {
            byte.is_ascii_digit()
        } else {
            byte == form
        }
    });
    fits && tail.len() <= 16
        && tail
            .iter()
            .all(|b| b.is_ascii_digit() || b".,:+-Z".contains(b))
}

fn wrong(problem: &'static str) -> Undecodable {
    Undecodable {
        version: 1,
        problem,
    }
}
