//! Frames on QUIC streams: reading them one by one, and sending a large message on a stream of its
//! own.

use bytes::{Buf as _, Bytes, BytesMut};
use pcp::frame::{self, FrameError, HEADER, max_message_payload};
use pcp::message::MAX_ENVELOPE;
use pcp::{Envelope, Frame, FrameReader, Message, PeerMisbehaved};
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};

/// The most bytes taken from a stream at once. As large as the largest frame of a session, so that a
/// burst is decoded with few wake-ups.
const READ: usize = 64 * 1024;

/// A stream that carries frames towards us.
#[derive(Debug)]
pub struct FrameStream {
    stream: RecvStream,
    frames: FrameReader,
    limit: usize,
}

/// Why no further frame can be read.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The stream or its connection has ended before its time.
    #[error("the stream was cut")]
    Read(#[source] ReadError),
    /// The bytes are not a frame that may stand here.
    #[error("the peer sent what is not a frame")]
    Frame(#[source] FrameError),
    /// The frame may not come now.
    #[error("the peer broke the protocol")]
    Misbehaved(#[source] PeerMisbehaved),
    /// Another frame was due on this stream, or none.
    #[error("the peer sent an unexpected frame")]
    Unexpected,
}

/// Why a large message did not leave.
#[derive(Debug, thiserror::Error)]
pub enum LargeError {
    /// No stream could be opened: the connection is gone.
    #[error("the stream could not be opened")]
    Open(#[source] ConnectionError),
    /// The stream was cut while it was written.
    #[error("the stream was cut")]
    Write(#[source] WriteError),
}

impl StreamError {
    /// Whether this is the peer's fault, rather than the network's.
    #[must_use]
    pub fn is_misbehaviour(&self) -> bool {
        !matches!(self, Self::Read(_) | Self::Frame(FrameError::Incomplete))
    }
}

impl FrameStream {
    /// Reads frames whose payload has at most `limit` bytes.
    #[must_use]
    pub fn new(stream: RecvStream, limit: usize) -> Self {
        Self {
            stream,
            frames: FrameReader::new(limit),
            limit,
        }
    }

    /// The next frame, or nothing when the stream has ended in good order. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// [`StreamError`]; nothing more can be read then.
    pub async fn next(&mut self) -> Result<Option<Frame>, StreamError> {
        loop {
            if let Some(frame) = self.frames.next_frame().map_err(StreamError::Frame)? {
                return Ok(Some(frame));
            }
            if !self.fill().await? {
                self.frames.finish().map_err(StreamError::Frame)?;
                return Ok(None);
            }
        }
    }

    /// How many bytes the next frame takes, known as soon as its header is here: so that memory can
    /// be set aside for it, or the frame refused, before it is read.
    ///
    /// # Errors
    /// [`StreamError`], also when the frame is above the limit of this stream.
    pub async fn announced(&mut self) -> Result<usize, StreamError> {
        loop {
            if let Some((header, _)) = self.frames.buffer().split_first_chunk::<HEADER>() {
                let [a, b, c, d, _] = *header;
                let announced = u32::from_be_bytes([a, b, c, d]);
                let announced = usize::try_from(announced).unwrap_or(usize::MAX);
                if announced > self.limit {
                    return Err(StreamError::Frame(FrameError::TooLarge {
                        announced,
                        limit: self.limit,
                    }));
                }
                return Ok(announced);
            }
            if !self.fill().await? {
                return Err(StreamError::Frame(FrameError::Incomplete));
            }
        }
    }

    /// The envelope at the head of a message that is too large to be read, so that its sender can be
    /// told. Nothing can be read behind it.
    ///
    /// # Errors
    /// [`StreamError`], also when it is no message.
    pub async fn envelope(mut self) -> Result<Envelope, StreamError> {
        while self.frames.buffer().len() < HEADER + MAX_ENVELOPE {
            if !self.fill().await? {
                break;
            }
        }
        let mut head = self.frames.into_rest().freeze();
        head.advance(HEADER.min(head.len()));
        let message = Message::decode(head)
            .map_err(|error| StreamError::Frame(FrameError::Message(error)))?;
        self.stream.stop(MESSAGE_REFUSED).unwrap_or_default();
        Ok(message.envelope)
    }

    /// Tells the peer that nothing more is read here.
    pub fn stop(&mut self, code: VarInt) {
        // The stream may have ended already; then there is nobody to tell.
        drop(self.stream.stop(code));
    }

    /// What is behind the last frame, and the rest of the stream.
    #[must_use]
    pub fn into_rest(self) -> (Bytes, RecvStream) {
        (self.frames.into_rest().freeze(), self.stream)
    }

    /// Reads some bytes; `false` at the end of the stream.
    async fn fill(&mut self) -> Result<bool, StreamError> {
        if self.frames.buffer().is_empty() {
            // An idle stream keeps no buffer: it would stay as large as the largest burst was.
            *self.frames.buffer() = BytesMut::new();
        }
        let chunk = self.stream.read_chunk(READ, true).await;
        match chunk.map_err(StreamError::Read)? {
            Some(chunk) => {
                self.frames.buffer().extend_from_slice(&chunk.bytes);
                Ok(true)
            }
            None => Ok(false),
        }
    }
}

/// Reads the one message of a unidirectional stream, of at most `max_message` bytes of body.
///
/// # Errors
/// [`StreamError`].
pub async fn read_message(stream: RecvStream, max_message: usize) -> Result<Message, StreamError> {
    let mut frames = FrameStream::new(stream, max_message_payload(max_message));
    let result = only_message(&mut frames).await;
    if result.is_err() {
        frames.stop(MESSAGE_REFUSED);
    }
    result
}

/// Reads a message and the end of the stream behind it.
///
/// # Errors
/// [`StreamError`].
pub async fn only_message(frames: &mut FrameStream) -> Result<Message, StreamError> {
    let Some(Frame::Message(message)) = frames.next().await? else {
        return Err(StreamError::Unexpected);
    };
    match frames.next().await? {
        None => Ok(message),
        Some(_) => Err(StreamError::Unexpected),
    }
}

/// Sends a message on a stream of its own. Resolves when all of it is handed to QUIC; the stream that
/// is given back tells when all of it has arrived ([`SendStream::stopped`]).
///
/// # Errors
/// [`LargeError`].
pub async fn send_message(
    connection: &Connection,
    message: Message,
) -> Result<SendStream, LargeError> {
    let mut stream = connection.open_uni().await.map_err(LargeError::Open)?;
    let bytes = frame::to_bytes(&Frame::Message(message));
    stream.write_chunk(bytes).await.map_err(LargeError::Write)?;
    // Finishing fails only when the peer has stopped the stream: it has refused the message.
    drop(stream.finish());
    Ok(stream)
}

/// The code of a stream whose message we do not take.
pub const MESSAGE_REFUSED: VarInt = VarInt::from_u32(2);
