//! WebSocket's frames (RFC 6455) as values, for either end and without sockets.
//!
//! Written here rather than taken from a crate for the sake of memory: what a peer *announces* is told
//! before a byte is set aside ([`Incoming::Announced`]), so that the broker's budget decides first;
//! and an idle connection holds no buffer at all.

use bytes::{BufMut, Bytes, BytesMut};

/// The longest payload of a ping, pong or close.
pub const MAX_CONTROL_PAYLOAD: usize = 125;

/// The most bytes of a frame's header: two, eight of length, four of mask.
pub const MAX_HEADER: usize = 14;

/// A message of at most so many bytes needs no [`Reader::grant`]: it is small enough to be taken from
/// everybody.
pub const UNANNOUNCED: usize = 32 * 1024;

/// The most frames of one message. A message of the largest size in pieces of 1 KiB; more is a peer
/// that wants us to work.
const MAX_FRAGMENTS: usize = 64 * 1024;

/// Which end of the connection we are. A client masks what it sends; a server does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// We have accepted the connection.
    Server,
    /// We have dialled.
    Client,
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// Goes on with the message begun before.
    Continuation,
    /// A message of UTF-8.
    Text,
    /// A message of bytes.
    Binary,
    /// The end.
    Close,
    /// Wants a pong with the same payload.
    Ping,
    /// The answer.
    Pong,
}

/// What has come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A message above [`UNANNOUNCED`] is on its way and may take so many bytes: call
    /// [`Reader::grant`] when there is room, and nothing is read before.
    Announced(usize),
    /// A whole message of text.
    Text(Bytes),
    /// A whole message of bytes.
    Binary(Bytes),
    /// Answer it with a pong of the same payload.
    Ping(Bytes),
    /// An answer to a ping of ours, or to none.
    Pong(Bytes),
    /// The peer ends the connection: nothing comes behind it.
    Close {
        /// Why, as a number; nothing when the peer gave none.
        code: Option<u16>,
        /// Why, for a person.
        reason: String,
    },
}

/// Why the peer's bytes are no WebSocket frames. The connection cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    /// A frame breaks the rules of RFC 6455.
    #[error("the peer broke the WebSocket protocol: {0}")]
    Protocol(&'static str),
    /// A text message or a close reason is not UTF-8.
    #[error("the peer sent a text that is not UTF-8")]
    Utf8,
    /// The message is above the limit.
    #[error("a message of at least {announced} bytes is above the limit of {limit}")]
    TooLarge {
        /// Its size as far as it is known.
        announced: usize,
        /// What is allowed.
        limit: usize,
    },
}

/// Collects received bytes and gives back whole messages and control frames.
#[derive(Debug)]
pub struct Reader {
    side: Side,
    limit: usize,
    buffer: BytesMut,
    frame: Option<Frame>,
    message: Option<Message>,
}

/// A frame whose header was read.
#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: Opcode,
    last: bool,
    mask: Option<[u8; 4]>,
    /// Bytes of payload that were taken, and those that are still to come.
    taken: usize,
    left: usize,
}

/// A message that was begun.
#[derive(Debug)]
struct Message {
    text: bool,
    payload: BytesMut,
    fragments: usize,
    /// Up to which size it may grow.
    granted: usize,
}

impl WebSocketError {
    /// The close code that says so.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::Utf8 => 1007,
            Self::TooLarge { .. } => 1009,
        }
    }
}

impl Reader {
    /// A reader for messages of at most `limit` bytes.
    #[must_use]
    pub fn new(side: Side, limit: usize) -> Self {
        Self {
            side,
            limit,
            buffer: BytesMut::new(),
            frame: None,
            message: None,
        }
    }

    /// Where the driver puts what it has read.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Whether bytes of an unfinished frame or message are held.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.buffer.is_empty() && self.frame.is_none() && self.message.is_none()
    }

    /// There is room for what was announced.
    pub fn grant(&mut self) {
        if let Some(message) = &mut self.message {
            let bytes = announced(&message.payload, self.frame, self.limit);
            message.granted = bytes;
            message.payload.reserve(bytes - message.payload.len());
        }
    }

    /// What has come in next, or nothing when more bytes are needed.
    ///
    /// # Errors
    /// [`WebSocketError`]: close the connection with its code.
    pub fn next_incoming(&mut self) -> Result<Option<Incoming>, WebSocketError> {
        loop {
            let Some(frame) = self.frame else {
                if !self.read_header()? {
                    if self.buffer.is_empty() {
                        // An idle connection keeps no buffer.
                        self.buffer = BytesMut::new();
                    }
                    return Ok(None);
                }
                continue;
            };
            if matches!(frame.opcode, Opcode::Close | Opcode::Ping | Opcode::Pong) {
                if self.buffer.len() < frame.left {
                    return Ok(None);
                }
                let mut payload = self.buffer.split_to(frame.left);
                unmask(&mut payload, frame.mask, 0);
                self.frame = None;
                return control(frame.opcode, payload.freeze()).map(Some);
            }
            let Some(message) = &mut self.message else {
                return Err(WebSocketError::Protocol("a frame belongs to no message"));
            };
            let size = message.payload.len() + frame.left;
            if size > message.granted {
                let bytes = announced(&message.payload, self.frame, self.limit);
                return Ok(Some(Incoming::Announced(bytes)));
            }
            let here = frame.left.min(self.buffer.len());
            let mut piece = self.buffer.split_to(here);
            unmask(&mut piece, frame.mask, frame.taken);
            if message.payload.is_empty() && here == frame.left {
                message.payload = piece;
            } else {
                message.payload.extend_from_slice(&piece);
            }
            if here < frame.left {
                self.frame = Some(Frame {
                    taken: frame.taken + here,
                    left: frame.left - here,
                    ..frame
                });
                return Ok(None);
            }
            self.frame = None;
            if frame.last
                && let Some(message) = self.message.take()
            {
                return whole(message).map(Some);
            }
        }
    }

    /// Reads a header; false when it is not all there.
    fn read_header(&mut self) -> Result<bool, WebSocketError> {
        let Some(([first, second], rest)) = self.buffer.split_first_chunk::<2>() else {
            return Ok(false);
        };
        if first & 0x70 != 0 {
            return Err(WebSocketError::Protocol("a reserved bit is set"));
        }
        let last = first & 0x80 != 0;
        let opcode = Opcode::from_bits(first & 0x0f)?;
        let masked = second & 0x80 != 0;
        if masked != (self.side == Side::Server) {
            return Err(WebSocketError::Protocol(if masked {
                "a server's frame is masked"
            } else {
                "a client's frame is not masked"
            }));
        }
        let (length, rest, size) = match second & 0x7f {
            126 => match rest.split_first_chunk::<2>() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest, 4),
                None => return Ok(false),
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest, 10),
                None => return Ok(false),
            },
            short => (u64::from(short), rest, 2),
        };
        let (mask, size) = match (masked, rest.first_chunk::<4>()) {
            (false, _) => (None, size),
            (true, Some(mask)) => (Some(*mask), size + 4),
            (true, None) => return Ok(false),
        };
        let left = usize::try_from(length).unwrap_or(usize::MAX);
        self.begin(opcode, last, left)?;
        drop(self.buffer.split_to(size));
        self.frame = Some(Frame {
            opcode,
            last,
            mask,
            taken: 0,
            left,
        });
        Ok(true)
    }

    /// Checks that this frame may come now, and that its message stays below the limit.
    fn begin(&mut self, opcode: Opcode, last: bool, length: usize) -> Result<(), WebSocketError> {
        match (opcode, &mut self.message) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => {
                if !last || length > MAX_CONTROL_PAYLOAD {
                    return Err(WebSocketError::Protocol(
                        "a control frame is long or in pieces",
                    ));
                }
                return Ok(());
            }
            (Opcode::Continuation, Some(message)) => {
                message.fragments += 1;
                if message.fragments > MAX_FRAGMENTS {
                    return Err(WebSocketError::Protocol("a message in too many pieces"));
                }
            }
            (Opcode::Continuation, None) => {
                return Err(WebSocketError::Protocol("a continuation of nothing"));
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(WebSocketError::Protocol("a message inside a message"));
            }
            (Opcode::Text | Opcode::Binary, None) => {
                self.message = Some(Message {
                    text: opcode == Opcode::Text,
                    payload: BytesMut::new(),
                    fragments: 1,
                    granted: UNANNOUNCED,
                });
            }
        }
        let before = self.message.as_ref().map_or(0, |m| m.payload.len());
        let announced = before.saturating_add(length);
        if announced > self.limit {
            return Err(WebSocketError::TooLarge {
                announced,
                limit: self.limit,
            });
        }
        Ok(())
    }
}

impl Opcode {
    fn from_bits(bits: u8) -> Result<Self, WebSocketError> {
        Ok(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return Err(WebSocketError::Protocol("an unknown kind of frame")),
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

/// How large a message may become: as its only frame says, or, in pieces, as large as any may be.
fn announced(so_far: &BytesMut, frame: Option<Frame>, limit: usize) -> usize {
    match frame {
        Some(frame) if frame.last => so_far.len() + frame.left,
        _ => limit,
    }
}

fn whole(message: Message) -> Result<Incoming, WebSocketError> {
    let payload = message.payload.freeze();
    if !message.text {
        return Ok(Incoming::Binary(payload));
    }
    match std::str::from_utf8(&payload) {
        Ok(_) => Ok(Incoming::Text(payload)),
        Err(_) => Err(WebSocketError::Utf8),
    }
}

fn control(opcode: Opcode, payload: Bytes) -> Result<Incoming, WebSocketError> {
    Ok(match opcode {
        Opcode::Ping => Incoming::Ping(payload),
        Opcode::Pong => Incoming::Pong(payload),
        _ => match payload.split_first_chunk::<2>() {
            None if payload.is_empty() => Incoming::Close {
                code: None,
                reason: String::new(),
            },
            None => return Err(WebSocketError::Protocol("half a close code")),
            Some((code, reason)) => {
                let reason = std::str::from_utf8(reason).map_err(|_| WebSocketError::Utf8)?;
                Incoming::Close {
                    code: Some(u16::from_be_bytes(*code)),
                    // It will stand in logs, where a peer must not write lines of its own.
                    reason: reason.replace(char::is_control, "\u{fffd}"),
                }
            }
        },
    })
}

fn unmask(bytes: &mut [u8], key: Option<[u8; 4]>, offset: usize) {
    if let Some(key) = key {
        mask(bytes, key, offset);
    }
}

/// Masks bytes that stand at `offset` in their frame's payload, or takes the mask off: both are the same.
pub fn mask(bytes: &mut [u8], mut mask: [u8; 4], offset: usize) {
    mask.rotate_left(offset % 4);
    let mut words = bytes.chunks_exact_mut(4);
    for word in &mut words {
        for (byte, key) in word.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask) {
        *byte ^= key;
    }
}

/// Appends the header of a frame that is a whole message, or a control frame. With a mask, the payload
/// behind it must be masked too ([`mask`]): [`push_frame`] does both.
pub fn push_header(out: &mut BytesMut, opcode: Opcode, length: usize, mask: Option<[u8; 4]>) {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    out.put_u8(0x80 | opcode.bits());
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => out.put_u8(masked | short),
        (_, Ok(medium)) => {
            out.put_u8(masked | 126);
            out.put_u16(medium);
        }
        _ => {
            out.put_u8(masked | 127);
            out.put_u64(u64::try_from(length).unwrap_or(u64::MAX));
        }
    }
    if let Some(mask) = mask {
        out.extend_from_slice(&mask);
    }
}

/// Appends a frame that is a whole message, or a control frame. A client gives a mask.
pub fn push_frame(out: &mut BytesMut, opcode: Opcode, payload: &[&[u8]], mask: Option<[u8; 4]>) {
    let length = payload.iter().map(|part| part.len()).sum();
    out.reserve(MAX_HEADER + length);
    push_header(out, opcode, length, mask);
    let start = out.len();
    for part in payload {
        out.extend_from_slice(part);
    }
    if let Some(payload) = out.get_mut(start..) {
        unmask(payload, mask, 0);
    }
}

/// The payload of a close frame. The reason is cut where it does not fit.
#[must_use]
pub fn close_payload(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(MAX_CONTROL_PAYLOAD - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = BytesMut::with_capacity(2 + end);
    payload.put_u16(code);
    payload.extend_from_slice(reason.get(..end).unwrap_or_default().as_bytes());
    payload.freeze()
}
