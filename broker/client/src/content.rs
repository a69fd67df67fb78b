//! Files over the mesh: asking the peer for one by its digest, and answering such a question. Each
//! file has a bidirectional stream of its own, so it holds up no message, and QUIC's flow control is
//! all the buffering there is. A client on WebSocket asks its broker over HTTPS instead.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use hyper::StatusCode;
use identity::Current;
use pcp::frame::{self, MAX_CONTENT_PAYLOAD};
use pcp::{ContentError, ContentErrorCode, Digest, Frame};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt, WriteError};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::address::BrokerAddress;
use crate::http::{self, GetError, HttpBody, HttpError};
use crate::proxy::Proxy;
use crate::stream::{FrameStream, StreamError};
use crate::tcp::{self, Stream, TcpError};

/// How long the answer to a content request may take: the question may go up to the orchestrator,
/// which may have to ask Puppet Server.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a file may stand still on its way before its transfer counts as failed.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a peer that opened a content stream may take to say which content it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of a file is read ahead of the network: what one write hands to QUIC.
const COPY_BUFFER: usize = 64 * 1024;

/// The code of a content stream whose source failed in the middle.
const CUT_OFF: VarInt = VarInt::from_u32(3);

/// The code of a content stream that broke the protocol.
const REFUSED: VarInt = VarInt::from_u32(4);

/// Where a broker's files are asked for while the session is a WebSocket.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) address: BrokerAddress,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) identity: Arc<Current>,
}

/// A file on its way to us.
#[derive(Debug)]
pub struct Content {
    /// Its size in bytes, as the source says. The receiver checks it against its own limit first.
    pub size: u64,
    /// Exactly so many bytes, or an error. Whether they are the right ones tells the digest, which
    /// the receiver must compute.
    pub reader: ContentReader,
}

/// Reads the bytes of a file: ends after exactly the announced number, and fails when there are fewer
/// or more, or when nothing comes for [`STALL_TIMEOUT`].
#[derive(Debug)]
pub struct ContentReader {
    start: Bytes,
    stream: Source,
    left: u64,
    stalled: Pin<Box<Sleep>>,
}

/// Where the bytes come from.
#[derive(Debug)]
enum Source {
    Quic(RecvStream),
    Https(Box<HttpBody<Stream>>),
}

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no session just now; worth another try.
    #[error("not connected to a broker")]
    NotConnected,
    /// The peer says no.
    #[error("the content was refused: {}", .0.message)]
    Refused(ContentError),
    /// No answer came in [`ANSWER_TIMEOUT`].
    #[error("no answer to the content request in {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut,
    /// The connection was lost before the question was asked.
    #[error("the connection was lost")]
    Connection(#[source] ConnectionError),
    /// The question could not be sent.
    #[error("the content request could not be sent")]
    Request(#[source] WriteError),
    /// The answer cannot be read.
    #[error("the answer to the content request cannot be read")]
    Answer(#[source] StreamError),
    /// There is no connection for the question.
    #[error("the broker cannot be asked over HTTPS")]
    Tcp(#[source] TcpError),
    /// The broker does not answer over HTTPS.
    #[error("the broker does not answer the content request")]
    Http(#[source] HttpError),
}

/// Why a content request was not answered to its end.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The peer did not say which content it wants in time.
    #[error("no content request came in {} s", REQUEST_TIMEOUT.as_secs())]
    TimedOut,
    /// What came is no content request.
    #[error("the content request cannot be read")]
    Request(#[source] StreamError),
    /// The peer went away, or wants no more.
    #[error("the answer could not be written")]
    Write(#[source] WriteError),
    /// The peer takes nothing any more.
    #[error("the peer took nothing for {} s", STALL_TIMEOUT.as_secs())]
    Stalled,
    /// The source failed, or had fewer bytes than were announced.
    #[error("the content could not be sent to its end")]
    Copy(#[source] io::Error),
}

/// A peer asks for a file. Answer it with [`ContentQuery::found`] or [`ContentQuery::refuse`]; dropped
/// without an answer, the peer sees a cut stream.
#[derive(Debug)]
pub struct ContentQuery {
    /// Which file.
    pub digest: Digest,
    stream: SendStream,
}

/// Asks the peer of a connection for a file.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch(connection: &Connection, digest: Digest) -> Result<Content, FetchError> {
    let asked = ask(connection, digest);
    let answered = timeout(ANSWER_TIMEOUT, asked).await;
    answered.map_err(|_| FetchError::TimedOut)?
}

async fn ask(connection: &Connection, digest: Digest) -> Result<Content, FetchError> {
    let (mut send, receive) = connection.open_bi().await.map_err(FetchError::Connection)?;
    let request = frame::to_bytes(&Frame::ContentRequest(digest));
    send.write_chunk(request)
        .await
        .map_err(FetchError::Request)?;
    // Finishing fails only when the peer stopped the stream, which the answer then shows.
    drop(send.finish());
    let mut frames = FrameStream::new(receive, MAX_CONTENT_PAYLOAD);
    match frames.next().await.map_err(FetchError::Answer)? {
        Some(Frame::ContentHeader(size)) => {
            let (start, stream) = frames.into_rest();
            Ok(Content::new(size, start, Source::Quic(stream)))
        }
        Some(Frame::ContentError(error)) => Err(FetchError::Refused(error)),
        _ => Err(FetchError::Answer(StreamError::Unexpected)),
    }
}

/// Asks a broker for a file over HTTPS.
pub(crate) async fn fetch_over_https(
    origin: &Origin,
    digest: Digest,
) -> Result<Content, FetchError> {
    let asked = async {
        let identity = origin.identity.get();
        let connected = tcp::connect(&origin.address, origin.proxy.as_ref(), &identity).await;
        let (_, stream) = connected.map_err(FetchError::Tcp)?;
        let (host, path) = (origin.address.to_string(), format!("/content/{digest}"));
        match http::get(stream, &host, &path).await {
            Ok((size, body)) => Ok(Content::new(
                size,
                Bytes::new(),
                Source::Https(Box::new(body)),
            )),
            Err(GetError::Http(error)) => Err(FetchError::Http(error)),
            Err(GetError::Refused { status, reason }) => Err(FetchError::Refused(ContentError {
                code: code(status),
                message: reason,
            })),
        }
    };
    let answered = timeout(ANSWER_TIMEOUT, asked).await;
    answered.map_err(|_| FetchError::TimedOut)?
}

/// What a broker means by an HTTP status.
fn code(status: StatusCode) -> ContentErrorCode {
    match status {
        StatusCode::NOT_FOUND => ContentErrorCode::NotFound,
        StatusCode::TOO_MANY_REQUESTS => ContentErrorCode::Busy,
        StatusCode::FORBIDDEN => ContentErrorCode::Unauthorized,
        _ => ContentErrorCode::Unavailable,
    }
}

impl Content {
    fn new(size: u64, start: Bytes, stream: Source) -> Self {
        let reader = ContentReader {
            start,
            stream,
            left: size,
            stalled: Box::pin(sleep(STALL_TIMEOUT)),
        };
        Self { size, reader }
    }
}

/// Reads the question on a stream that the peer has opened.
///
/// # Errors
/// [`AnswerError`].
pub async fn question(send: SendStream, receive: RecvStream) -> Result<ContentQuery, AnswerError> {
    let mut frames = FrameStream::new(receive, MAX_CONTENT_PAYLOAD);
    let frame = timeout(REQUEST_TIMEOUT, frames.next())
        .await
        .map_err(|_| AnswerError::TimedOut)?
        .map_err(AnswerError::Request)?;
    if let Some(Frame::ContentRequest(digest)) = frame {
        let stream = send;
        Ok(ContentQuery { digest, stream })
    } else {
        frames.stop(REFUSED);
        Err(AnswerError::Request(StreamError::Unexpected))
    }
}

impl ContentQuery {
    /// Sends the file: `size` bytes of `source`. With fewer, the peer sees a cut stream.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub async fn found<R>(mut self, size: u64, source: R) -> Result<(), AnswerError>
    where
        R: AsyncRead + Unpin,
    {
        let header = frame::to_bytes(&Frame::ContentHeader(size));
        self.stream
            .write_chunk(header)
            .await
            .map_err(AnswerError::Write)?;
        let complete = copy(source, size, &mut self.stream).await;
        match complete {
            Ok(()) => drop(self.stream.finish()),
            Err(_) => drop(self.stream.reset(CUT_OFF)),
        }
        complete
    }

    /// Says why the file cannot be had.
    ///
    /// # Errors
    /// [`AnswerError::Write`] when the peer is gone.
    pub async fn refuse(mut self, error: ContentError) -> Result<(), AnswerError> {
        let bytes = frame::to_bytes(&Frame::ContentError(error));
        self.stream
            .write_chunk(bytes)
            .await
            .map_err(AnswerError::Write)?;
        drop(self.stream.finish());
        Ok(())
    }
}

/// Copies exactly `size` bytes. A receiver that takes nothing for [`STALL_TIMEOUT`] is given up: it
/// would hold its place among the transfers for as long as its connection lives.
async fn copy<R>(source: R, size: u64, stream: &mut SendStream) -> Result<(), AnswerError>
where
    R: AsyncRead + Unpin,
{
    let mut source = source.take(size);
    let mut buffer = BytesMut::new();
    let mut left = size;
    while left > 0 {
        buffer.reserve(COPY_BUFFER);
        let read = source
            .read_buf(&mut buffer)
            .await
            .map_err(AnswerError::Copy)?;
        if read == 0 {
            return Err(AnswerError::Copy(io::ErrorKind::UnexpectedEof.into()));
        }
        left = left.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
        timeout(STALL_TIMEOUT, stream.write_chunk(buffer.split().freeze()))
            .await
            .map_err(|_| AnswerError::Stalled)?
            .map_err(AnswerError::Write)?;
    }
    Ok(())
}

impl AsyncRead for ContentReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        if this.start.is_empty() {
            let read = match &mut this.stream {
                Source::Quic(stream) => Pin::new(stream).poll_read(context, buffer),
                Source::Https(body) => Pin::new(body).poll_read(context, buffer),
            };
            match read {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    ready!(this.stalled.as_mut().poll(context));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        } else {
            let take = this.start.len().min(buffer.remaining());
            this.start
                .copy_to_slice(buffer.initialize_unfilled_to(take));
            buffer.advance(take);
        }
        let read = u64::try_from(buffer.filled().len() - before).unwrap_or(u64::MAX);
        match (read, this.left.checked_sub(read)) {
            (0, _) if this.left > 0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            (_, None) => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            (_, Some(left)) => {
                this.left = left;
                this.stalled.as_mut().reset(Instant::now() + STALL_TIMEOUT);
                Poll::Ready(Ok(()))
            }
        }
    }
}
