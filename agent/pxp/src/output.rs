//! `output read`: what a transaction's process has written, from an offset on, while it runs and
//! afterwards. An addition of ours. The requester pulls: an answer has at most [`MAX_CHUNK`] bytes a
//! stream, and the offset of the next question says what has arrived, so that nothing is lost by a
//! reconnect or by a restart of the agent. A question to which there is nothing to say yet may wait.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::id::TransactionId;
use crate::status::Status;

/// The most bytes of one stream in an answer.
pub const MAX_CHUNK: usize = 64 * 1024;

/// The parameters of `output read`. Offsets count the bytes that the process wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputRequest {
    /// The transaction asked about.
    pub transaction_id: TransactionId,
    /// From which byte of standard output on.
    #[serde(default)]
    pub stdout: u64,
    /// From which byte of standard error on.
    #[serde(default)]
    pub stderr: u64,
    /// How long the agent may wait for something to say, in milliseconds. It has its own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// The results of `output read`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputChunk {
    /// The transaction asked about.
    pub transaction_id: TransactionId,
    /// How far it is.
    pub status: Status,
    /// A piece of standard output.
    pub stdout: StreamChunk,
    /// A piece of standard error.
    pub stderr: StreamChunk,
    /// Whether the process has ended and nothing follows these pieces.
    pub end: bool,
}

/// A piece of one stream.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StreamChunk {
    /// Where it begins. Beyond the offset that was asked for when the bytes before it were not kept:
    /// above the output limit only the head and the tail of a stream are.
    pub offset: u64,
    /// The offset for the next question.
    pub next: u64,
    /// How many bytes the process has written so far, kept or not.
    pub total: u64,
    /// The bytes.
    pub data: Vec<u8>,
}

/// The piece on the wire: `data` as text where it is text, else as base64.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    offset: u64,
    next: u64,
    total: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

impl StreamChunk {
    /// Nothing, for a question at this offset.
    #[must_use]
    pub fn empty(offset: u64, total: u64) -> Self {
        Self {
            offset,
            next: offset,
            total,
            data: Vec::new(),
        }
    }
}

impl Serialize for StreamChunk {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let text = std::str::from_utf8(&self.data).ok();
        let written = Written {
            offset: self.offset,
            next: self.next,
            total: self.total,
            data: text.map(str::to_owned),
            data_base64: text.is_none().then(|| BASE64_STANDARD.encode(&self.data)),
        };
        written.serialize(s)
    }
}

impl<'de> Deserialize<'de> for StreamChunk {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(d)?;
        let data = match (written.data, written.data_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(text)) => BASE64_STANDARD.decode(text).map_err(de::Error::custom)?,
            _ => return Err(de::Error::custom("one of data and data_base64 is needed")),
        };
        let length = u64::try_from(data.len()).map_err(de::Error::custom)?;
        if written.offset.checked_add(length) != Some(written.next) || written.next > written.total
        {
            return Err(de::Error::custom("the offsets do not add up"));
        }
        Ok(Self {
            offset: written.offset,
            next: written.next,
            total: written.total,
            data,
        })
    }
}

/// Output may hold secrets and is never printed.
impl fmt::Debug for StreamChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamChunk")
            .field("offset", &self.offset)
            .field("next", &self.next)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}
