//! Frames: how values lie on a QUIC stream. `length (4 bytes, big endian) | kind (1 byte) | payload`,
//! where the length counts the payload alone.
//!
//! A session stream carries frames until it ends. A message above [`INLINE_LIMIT`] is one frame on a
//! unidirectional stream of its own. Content travels on a bidirectional stream: one
//! [`Frame::ContentRequest`], answered by [`Frame::ContentHeader`] and then the bare bytes, or by
//! [`Frame::ContentError`].
//!
//! [`INLINE_LIMIT`]: crate::message::INLINE_LIMIT

use std::fmt;
use std::mem;
use std::str::FromStr;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::greeting::{Goodbye, Hello, Retry, Welcome};
use crate::link::LinkFrame;
use crate::message::{DecodeError, MAX_ENVELOPE, Message};

/// The largest payload on a session stream: an inline message (16 KiB) fits with room to spare, and
/// so does a chunk of inventory. A peer that announces more is cut off before memory is taken.
pub const MAX_SESSION_PAYLOAD: usize = 64 * 1024;

/// The largest payload of the first frame on a content stream.
pub const MAX_CONTENT_PAYLOAD: usize = 1024;

/// The largest hello, welcome, retry or goodbye in bytes of JSON.
pub const MAX_CONTROL: usize = 8 * 1024;

/// Bytes before the payload: four of length, one of kind.
pub const HEADER: usize = 5;

/// The largest frame that carries a message of at most `max_message` bytes of body.
#[must_use]
pub fn max_message_payload(max_message: usize) -> usize {
    max_message.saturating_add(MAX_ENVELOPE)
}

/// The SHA-256 of a file's content: what content is asked for by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// Everything that may stand on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Client, first: who it is.
    Hello(Hello),
    /// Broker, in answer: the session is open.
    Welcome(Welcome),
    /// Broker, in answer: come back later.
    Retry(Retry),
    /// Either side, last: why the session ends.
    Goodbye(Goodbye),
    /// Either side: a PCP message.
    Message(Message),
    /// Broker to broker: what is connected where.
    Link(LinkFrame),
    /// First frame of a content stream: the file with this digest is wanted.
    ContentRequest(Digest),
    /// The answer: the file's size in bytes; the bytes follow without framing.
    ContentHeader(u64),
    /// The answer when it cannot be had.
    ContentError(ContentError),
}

/// Why content cannot be had from a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentError {
    /// What a program decides by.
    pub code: ContentErrorCode,
    /// What a person reads.
    #[serde(deserialize_with = "crate::wire::line")]
    pub message: String,
}

/// The kinds of content errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContentErrorCode {
    /// Nobody up the mesh has content of that digest.
    NotFound,
    /// The peer that might have it is not reachable just now; worth another try.
    Unavailable,
    /// A limit of the peer is reached; worth another try.
    Busy,
    /// The peer may not ask for content.
    Unauthorized,
}

/// Why bytes are not a frame. All but [`FrameError::Incomplete`] are the peer's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The announced payload is above the limit of this stream.
    #[error("a frame of {announced} bytes is above the limit of {limit}")]
    TooLarge {
        /// What the header says, in bytes.
        announced: usize,
        /// What is allowed here, in bytes.
        limit: usize,
    },
    /// The kind byte is not known.
    #[error("frame kind {0} is not known here")]
    Kind(u8),
    /// A control frame is not the JSON it should be, or above [`MAX_CONTROL`].
    #[error("a {0} frame is malformed")]
    Control(&'static str),
    /// A message's envelope is malformed.
    #[error("a message frame is malformed")]
    Message(#[source] DecodeError),
    /// A link frame is malformed.
    #[error("a link frame is malformed")]
    Link(#[source] DecodeError),
    /// The stream ended in the middle of a frame.
    #[error("the stream ended in the middle of a frame")]
    Incomplete,
}

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const WELCOME: u8 = 2;
    pub(super) const RETRY: u8 = 3;
    pub(super) const GOODBYE: u8 = 4;
    pub(super) const MESSAGE: u8 = 5;
    pub(super) const LINK: u8 = 6;
    pub(super) const CONTENT_REQUEST: u8 = 7;
    pub(super) const CONTENT_HEADER: u8 = 8;
    pub(super) const CONTENT_ERROR: u8 = 9;
}

/// Collects received bytes and gives back whole frames.
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    limit: usize,
}

/// Appends frames to a buffer, so that all that is ready goes out in one write.
#[derive(Debug, Default)]
pub struct FrameWriter {
    buffer: BytesMut,
}

impl FrameReader {
    /// A reader for a stream whose payloads may have at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            limit,
        }
    }

    /// Where the driver puts what it has read. Nothing is reserved ahead: the driver decides how
    /// much it reads at a time.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole frame, or nothing when more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError`]: the peer misbehaves, and the stream cannot be read on.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((header, _)) = self.buffer.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [a, b, c, d, kind] = *header;
        let announced = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if announced > self.limit {
            return Err(FrameError::TooLarge {
                announced,
                limit: self.limit,
            });
        }
        if self.buffer.len() < HEADER + announced {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        decode(kind, self.buffer.split_to(announced).freeze()).map(Some)
    }

    /// The bytes behind the last frame: the beginning of content that follows a header.
    #[must_use]
    pub fn into_rest(self) -> BytesMut {
        self.buffer
    }

    /// Checks that the stream did not end inside a frame.
    ///
    /// # Errors
    /// [`FrameError::Incomplete`] when bytes are left over.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.buffer.is_empty() {
            Ok(())
        } else {
            Err(FrameError::Incomplete)
        }
    }
}

impl FrameWriter {
    /// Adds a frame.
    pub fn push(&mut self, frame: &Frame) {
        if let Frame::Message(message) = frame {
            // All at once, and no more than it takes: it is a buffer's only frame more often than not.
            self.buffer.reserve(HEADER + message.size());
        }
        let start = self.buffer.len();
        self.buffer.put_bytes(0, HEADER);
        let kind = encode(frame, &mut self.buffer);
        let payload = self.buffer.len() - start - HEADER;
        // Every payload is bounded far below 4 GiB by the limits above.
        let [a, b, c, d] = u32::try_from(payload).unwrap_or(u32::MAX).to_be_bytes();
        if let Some(header) = self.buffer.get_mut(start..start + HEADER) {
            header.copy_from_slice(&[a, b, c, d, kind]);
        }
    }

    /// How many bytes wait to be written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing waits to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Takes everything out, to be written. Nothing is kept for what comes next: the buffer would stay as
    /// large as it ever was, and a buffer that is shared costs more than a new one.
    pub fn take(&mut self) -> Bytes {
        mem::take(&mut self.buffer).freeze()
    }
}

/// One frame as bytes.
#[must_use]
pub fn to_bytes(frame: &Frame) -> Bytes {
    let mut writer = FrameWriter::default();
    writer.push(frame);
    writer.take()
}

fn encode(frame: &Frame, out: &mut BytesMut) -> u8 {
    match frame {
        Frame::Hello(hello) => json(kind::HELLO, hello, out),
        Frame::Welcome(welcome) => json(kind::WELCOME, welcome, out),
        Frame::Retry(retry) => json(kind::RETRY, retry, out),
        Frame::Goodbye(goodbye) => json(kind::GOODBYE, goodbye, out),
        Frame::Message(message) => {
            message.encode(out);
            kind::MESSAGE
        }
        Frame::Link(link) => {
            link.encode(out);
            kind::LINK
        }
        Frame::ContentRequest(digest) => {
            out.extend_from_slice(&digest.0);
            kind::CONTENT_REQUEST
        }
        Frame::ContentHeader(size) => {
            out.put_u64(*size);
            kind::CONTENT_HEADER
        }
        Frame::ContentError(error) => json(kind::CONTENT_ERROR, error, out),
    }
}

/// Control frames are JSON: they are few, and a later version may add keys to them.
fn json<T: Serialize>(kind: u8, value: &T, out: &mut BytesMut) -> u8 {
    // These types have string keys and no maps of their own, so serialisation cannot fail; were it
    // to, the peer would get a truncated frame and report it as malformed.
    if let Ok(bytes) = serde_json::to_vec(value) {
        out.extend_from_slice(&bytes);
    }
    kind
}

fn decode(kind: u8, payload: Bytes) -> Result<Frame, FrameError> {
    Ok(match kind {
        kind::HELLO => Frame::Hello(control("hello", &payload)?),
        kind::WELCOME => Frame::Welcome(control("welcome", &payload)?),
        kind::RETRY => Frame::Retry(control("retry", &payload)?),
        kind::GOODBYE => Frame::Goodbye(control("goodbye", &payload)?),
        kind::MESSAGE => Frame::Message(Message::decode(payload).map_err(FrameError::Message)?),
        kind::LINK => Frame::Link(LinkFrame::decode(payload).map_err(FrameError::Link)?),
        kind::CONTENT_REQUEST => {
            let digest = <[u8; 32]>::try_from(&*payload);
            Frame::ContentRequest(Digest(
                digest.map_err(|_| FrameError::Control("content request"))?,
            ))
        }
        kind::CONTENT_HEADER => {
            let size = <[u8; 8]>::try_from(&*payload);
            let size = size.map_err(|_| FrameError::Control("content header"))?;
            Frame::ContentHeader(u64::from_be_bytes(size))
        }
        kind::CONTENT_ERROR => Frame::ContentError(control("content error", &payload)?),
        other => return Err(FrameError::Kind(other)),
    })
}

fn control<'a, T: Deserialize<'a>>(name: &'static str, payload: &'a [u8]) -> Result<T, FrameError> {
    if payload.len() > MAX_CONTROL {
        return Err(FrameError::Control(name));
    }
    serde_json::from_slice(payload).map_err(|_| FrameError::Control(name))
}

impl FromStr for Digest {
    type Err = FrameError;

    /// Reads 64 hexadecimal digits of either case.
    fn from_str(text: &str) -> Result<Self, FrameError> {
        let mut digest = [0; 32];
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(FrameError::Control("digest"));
        }
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).unwrap_or_default();
            *byte = u8::from_str_radix(pair, 16).map_err(|_| FrameError::Control("digest"))?;
        }
        Ok(Self(digest))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
