//! WebSockets on a stream of bytes, for both ends: reading messages off it, and the few bytes of its
//! handshake that are not HTTP.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::ready;
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use bytes::BytesMut;
use pcp::websocket::{Incoming, Opcode, Reader, Side, WebSocketError, mask, push_header};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

/// The subprotocol of our own peers: after the handshake, binary messages carry the frames of a
/// session stream as QUIC would, hello first. What PCP 2 has no words for (acknowledgements, the order
/// of sessions, retry hints) is not lost on the way over TCP.
pub const SUBPROTOCOL: &str = "pcp-quic.1";

/// How much is taken from the stream at once: a TLS record.
const READ: usize = 16 * 1024;

/// How long a peer may take no byte while bytes wait.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// How much of a message is masked, in a copy, at a time.
const MASKED: usize = 64 * 1024;

/// What RFC 6455 adds to the key of a handshake.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The reading half of a WebSocket.
#[derive(Debug)]
pub struct WebSocketReader<R> {
    io: R,
    reader: Reader,
}

/// The writing half. It knows whether what was written so far ends with a whole frame: a close frame in
/// the middle of another would be read as its payload.
#[derive(Debug)]
pub struct WebSocketWriter<W> {
    io: W,
    side: Side,
    whole: bool,
}

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub enum WebSocketFault {
    /// The connection was lost.
    #[error("the connection was lost")]
    Read(#[source] io::Error),
    /// The peer takes nothing any more.
    #[error("nothing can be sent any more")]
    Write(#[source] io::Error),
    /// The connection ended without a close frame.
    #[error("the connection was cut")]
    Cut,
    /// Nothing came for too long.
    #[error("nothing came for {} s", .0.as_secs())]
    Silent(Duration),
    /// The peer broke the protocol.
    #[error("the peer misbehaves")]
    Misbehaved(#[source] WebSocketError),
}

impl<R: AsyncRead + Unpin> WebSocketReader<R> {
    /// Reads messages of at most `limit` bytes. `early` came behind the HTTP handshake.
    #[must_use]
    pub fn new(io: R, side: Side, limit: usize, early: &[u8]) -> Self {
        let mut reader = Reader::new(side, limit);
        reader.buffer().extend_from_slice(early);
        Self { io, reader }
    }

    /// What comes next. A silence of `patience` ends it. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`WebSocketFault`]; nothing more can be read then.
    pub async fn next(&mut self, patience: Duration) -> Result<Incoming, WebSocketFault> {
        loop {
            let incoming = self.reader.next_incoming();
            if let Some(incoming) = incoming.map_err(WebSocketFault::Misbehaved)? {
                return Ok(incoming);
            }
            match timeout(patience, self.fill()).await {
                Ok(Ok(0)) => return Err(WebSocketFault::Cut),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(WebSocketFault::Read(error)),
                Err(_) => return Err(WebSocketFault::Silent(patience)),
            }
        }
    }

    /// There is room for what was announced.
    pub fn grant(&mut self) {
        self.reader.grant();
    }

    /// Reads through a buffer on the stack, which is there only while bytes are: ten thousand idle
    /// connections hold none.
    async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|context| {
            let mut space = [MaybeUninit::uninit(); READ];
            let mut read = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut self.io).poll_read(context, &mut read))?;
            self.reader.buffer().extend_from_slice(read.filled());
            Ok(read.filled().len()).into()
        })
        .await
    }
}

impl<W: AsyncWrite + Unpin> WebSocketWriter<W> {
    /// A writer for this end of a connection.
    #[must_use]
    pub fn new(io: W, side: Side) -> Self {
        let whole = true;
        Self { io, side, whole }
    }

    /// What the next frame is to be masked with.
    #[must_use]
    pub fn key(&self) -> Option<[u8; 4]> {
        (self.side == Side::Client).then(new_mask)
    }

    /// Whether a frame may begin here.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Writes whole frames piece by piece, as the peer takes them.
    ///
    /// # Errors
    /// What the system says, or that the peer takes nothing for a minute. Nothing can be written then.
    pub async fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        if frames.is_empty() {
            return Ok(());
        }
        self.whole = false;
        self.piece(frames).await?;
        self.finish().await
    }

    /// Writes a message in one frame, without a copy of the whole.
    ///
    /// # Errors
    /// As [`WebSocketWriter::write`].
    pub async fn message(&mut self, opcode: Opcode, parts: &[&[u8]]) -> io::Result<()> {
        let length = parts.iter().map(|part| part.len()).sum();
        let key = self.key();
        let mut out = BytesMut::new();
        push_header(&mut out, opcode, length, key);
        self.whole = false;
        self.piece(&out).await?;
        let mut offset = 0;
        for part in parts {
            let Some(key) = key else {
                self.piece(part).await?;
                continue;
            };
            for chunk in part.chunks(MASKED) {
                out.clear();
                out.extend_from_slice(chunk);
                mask(&mut out, key, offset);
                offset += chunk.len();
                self.piece(&out).await?;
            }
        }
        self.finish().await
    }

    async fn piece(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = timeout(WRITE_DEADLINE, self.io.write(bytes)).await;
            let written = written.map_err(|_| io::ErrorKind::TimedOut)??;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        timeout(WRITE_DEADLINE, self.io.flush())
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        self.whole = true;
        Ok(())
    }

    /// Ends our side of the connection.
    pub async fn shutdown(&mut self) {
        // It fails only when the peer is gone.
        drop(self.io.shutdown().await);
    }
}

/// The answer to a `Sec-WebSocket-Key`, for `Sec-WebSocket-Accept`.
#[must_use]
pub fn accept_key(key: &str) -> String {
    let sum = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    base64(sum.as_ref())
}

/// Sixteen random bytes in the form of a `Sec-WebSocket-Key`.
#[must_use]
pub fn new_key() -> String {
    base64(&fastrand::u128(..).to_be_bytes())
}

/// A mask for a client's frame. It need not be secret: behind TLS no proxy reads along.
#[must_use]
pub fn new_mask() -> [u8; 4] {
    fastrand::u32(..).to_be_bytes()
}

/// Base64 as HTTP's headers have it.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut padded = [0; 4];
        for (to, from) in padded.iter_mut().skip(1).zip(chunk) {
            *to = *from;
        }
        let word = u32::from_be_bytes(padded);
        for place in 0..4 {
            if place > chunk.len() {
                text.push('=');
            } else {
                let index = usize::try_from(word >> (18 - 6 * place) & 0x3f).unwrap_or_default();
                text.push(ALPHABET.get(index).copied().map_or('=', char::from));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_s_example_in_rfc_6455() {
        let accepted = accept_key("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accepted, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(new_key().len(), 24);
    }

    #[test]
    fn base64_of_every_length() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
