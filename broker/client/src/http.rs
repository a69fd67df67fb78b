//! The little HTTP that a client speaks: asking for another protocol on a connection, and for a file.

use std::io;
use std::pin::Pin;
use std::str::FromStr as _;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, Connection, Parts};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::response;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most bytes of an answer's head.
const MAX_HEAD: usize = 16 * 1024;

/// The most headers of an answer.
const MAX_HEADERS: usize = 64;

/// The longest text of a refusal that is passed on to people, in bytes.
const MAX_REASON: usize = 256;

/// Why HTTP did not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The peer does not speak HTTP, or is gone.
    #[error("the HTTP exchange failed")]
    Exchange(#[source] hyper::Error),
    /// The connection ended before the answer.
    #[error("the connection ended before an answer came")]
    Ended,
    /// The peer answers something else than was asked for.
    #[error("the answer is {status}")]
    Status {
        /// Its status.
        status: StatusCode,
        /// After how many seconds it wants to be asked again.
        retry_after: Option<u32>,
    },
    /// The peer spoke first in a protocol where it must not.
    #[error("the peer said something that nobody had asked for")]
    Early,
    /// No request can have this path.
    #[error("the path cannot be asked for")]
    Path,
    /// The answer does not say how long it is.
    #[error("the answer does not say its length")]
    NoLength,
}

/// A connection that speaks another protocol from now on.
#[derive(Debug)]
pub(crate) struct Switched<S> {
    pub(crate) headers: HeaderMap,
    pub(crate) io: S,
    /// What came behind the answer already.
    pub(crate) early: Bytes,
}

/// Sets a header whose value we have made.
pub(crate) fn set(request: &mut Request<String>, name: HeaderName, value: &str) {
    // It fails only for control characters.
    if let Ok(value) = HeaderValue::from_str(value) {
        request.headers_mut().insert(name, value);
    }
}

/// Sends a CONNECT or an upgrade, and gives the connection back when the peer agrees.
pub(crate) async fn switch<S>(io: S, request: Request<String>) -> Result<Switched<S>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let wanted = if request.method() == Method::CONNECT {
        StatusCode::OK
    } else {
        StatusCode::SWITCHING_PROTOCOLS
    };
    let (mut sender, connection) = handshake(io).await?;
    let mut connection = Box::pin(connection.without_shutdown());
    let mut asking = Box::pin(async move { sender.send_request(request).await });
    let mut parts: Option<Parts<TokioIo<S>>> = None;
    let answer: Response<Incoming> = tokio::select! {
        biased;
        answer = &mut asking => answer.map_err(HttpError::Exchange)?,
        ended = &mut connection => {
            parts = Some(ended.map_err(HttpError::Exchange)?);
            asking.await.map_err(HttpError::Exchange)?
        }
    };
    if answer.status() != wanted {
        return Err(refusal(&answer));
    }
    let Parts { io, read_buf, .. } = match parts {
        Some(parts) => parts,
        None => connection.await.map_err(HttpError::Exchange)?,
    };
    Ok(Switched {
        headers: answer.headers().clone(),
        io: io.into_inner(),
        early: read_buf,
    })
}

/// The body of an answer, read as bytes. It drives its connection while it is read.
#[derive(Debug)]
pub(crate) struct HttpBody<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    connection: Connection<TokioIo<S>, String>,
    connected: bool,
    body: Incoming,
    piece: Bytes,
}

/// A GET of this path, which names no host but this one; nothing for a path that cannot be asked for.
pub(crate) fn question(host: &str, path: &str) -> Option<Request<String>> {
    let mut request = Request::new(String::new());
    *request.uri_mut() = Uri::from(PathAndQuery::from_str(path).ok()?);
    set(&mut request, header::HOST, host);
    Some(request)
}

/// Asks for something: the head of the answer, whatever it says, and the bytes behind it.
pub(crate) async fn ask<S>(
    io: S,
    request: Request<String>,
) -> Result<(response::Parts, HttpBody<S>), HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, mut connection) = handshake(io).await?;
    let mut asking = Box::pin(async move { sender.send_request(request).await });
    let mut connected = true;
    let answer = tokio::select! {
        biased;
        answer = &mut asking => answer,
        ended = &mut connection => {
            ended.map_err(HttpError::Exchange)?;
            connected = false;
            // A peer that answers and hangs up may have done both by now.
            asking.await
        }
    };
    let answer = answer.map_err(|error| {
        if error.is_canceled() || error.is_incomplete_message() {
            HttpError::Ended
        } else {
            HttpError::Exchange(error)
        }
    })?;
    let (head, body) = answer.into_parts();
    let body = HttpBody {
        connection,
        connected,
        body,
        piece: Bytes::new(),
    };
    Ok((head, body))
}

/// Asks for a file: its size, and its bytes.
pub(crate) async fn get<S>(io: S, host: &str, path: &str) -> Result<(u64, HttpBody<S>), GetError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = question(host, path).ok_or(GetError::Http(HttpError::Path))?;
    let (head, mut body) = ask(io, request).await.map_err(GetError::Http)?;
    let status = head.status;
    if status != StatusCode::OK {
        let reason = reason(&mut body).await;
        return Err(GetError::Refused { status, reason });
    }
    let size = body.size().ok_or(GetError::Http(HttpError::NoLength))?;
    Ok((size, body))
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> HttpBody<S> {
    /// How many bytes there are, where the peer says it.
    pub(crate) fn size(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }
}

/// Why there is no file.
#[derive(Debug)]
pub(crate) enum GetError {
    /// The peer says no.
    Refused { status: StatusCode, reason: String },
    /// It did not get as far as an answer.
    Http(HttpError),
}

/// The beginning of a refusal's text, as one line.
async fn reason<S>(body: &mut HttpBody<S>) -> String
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    use tokio::io::AsyncReadExt as _;
    let mut text = Vec::new();
    let limit = u64::try_from(MAX_REASON).unwrap_or(u64::MAX);
    // What cannot be read is not said.
    drop(body.take(limit).read_to_end(&mut text).await);
    let text = String::from_utf8_lossy(&text);
    text.trim().replace(char::is_control, " ")
}

async fn handshake<S>(
    io: S,
) -> Result<(http1::SendRequest<String>, Connection<TokioIo<S>, String>), HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shaking = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(io));
    shaking.await.map_err(HttpError::Exchange)
}

fn refusal(answer: &Response<Incoming>) -> HttpError {
    let after = answer.headers().get(header::RETRY_AFTER);
    HttpError::Status {
        status: answer.status(),
        retry_after: after.and_then(|value| value.to_str().ok()?.trim().parse().ok()),
    }
}

impl<S> AsyncRead for HttpBody<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.piece.is_empty() {
            if this.connected && Pin::new(&mut this.connection).poll(context).is_ready() {
                // What went wrong, if anything, the body tells.
                this.connected = false;
            }
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(frame)) => this.piece = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let length = this.piece.len().min(buffer.remaining());
        buffer.put_slice(this.piece.get(..length).unwrap_or_default());
        this.piece.advance(length);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    /// What a peer may answer, with what stands between the head and the end of its body.
    const ANSWERS: [&str; 4] = [
        "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nrunning",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\nrunning\r\n0\r\n\r\n",
        "HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\nno",
        "HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n\x07",
    ];

    /// Answers the first request with these bytes, and hangs up.
    async fn say(mut theirs: DuplexStream, answer: &[u8]) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(theirs.read_u8().await.expect("a request"));
        }
        // Whoever has heard enough reads no more.
        theirs.write_all(answer).await.ok();
    }

    /// Has a peer answer these bytes to a question for a file, and to a change of protocol. What came
    /// of both: how many bytes of a file, and how many of the other protocol.
    fn exchanged(answer: &[u8]) -> (Option<usize>, Option<usize>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(async {
            let (ours, theirs) = duplex(64 * 1024);
            let (asked, ()) =
                tokio::join!(get(ours, "broker:8142", "/content"), say(theirs, answer));
            let file = match asked {
                Ok((size, body)) => {
                    let mut bytes = Vec::new();
                    let read = body
                        .take(size.saturating_add(1))
                        .read_to_end(&mut bytes)
                        .await;
                    read.ok()
                }
                Err(GetError::Refused { reason, .. }) => {
                    assert!(reason.len() <= 3 * MAX_REASON, "{reason}");
                    assert!(!reason.contains(char::is_control), "{reason:?}");
                    None
                }
                Err(GetError::Http(_)) => None,
            };
            let (ours, theirs) = duplex(64 * 1024);
            let request = Request::new(String::new());
            let (switched, ()) = tokio::join!(switch(ours, request), say(theirs, answer));
            (file, switched.ok().map(|switched| switched.early.len()))
        })
    }

    #[test]
    fn the_answers_to_be_damaged_are_answers() {
        let came: Vec<_> = ANSWERS
            .iter()
            .map(|answer| exchanged(answer.as_bytes()))
            .collect();
        let nothing = (None, None);
        assert_eq!(came, [(Some(7), None), nothing, nothing, (None, Some(1))]);
    }

    #[test]
    fn a_head_without_an_end_is_refused_within_its_limit() {
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(2 * MAX_HEAD));
        assert_eq!(exchanged(endless.as_bytes()), (None, None));
        let many = "x: y\r\n".repeat(MAX_HEADERS + 1);
        let many = format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n");
        assert_eq!(exchanged(many.as_bytes()), (None, None));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            answer in prop::sample::select(&ANSWERS[..]),
            at in any::<prop::sample::Index>(), cut in 0..12_usize,
            insert in "(\r|\n|:| |,|content-length: |transfer-encoding: chunked\r\n|99999999999999999999|-1|7|é){0,4}",
        ) {
            let mut damaged = answer.as_bytes().to_vec();
            let at = at.index(damaged.len());
            damaged.splice(at..(at + cut).min(answer.len()), insert.bytes());
            for bytes in [bytes, damaged] {
                let (file, early) = exchanged(&bytes);
                prop_assert!(file.unwrap_or(0) <= bytes.len() && early.unwrap_or(0) <= bytes.len());
            }
        }
    }

    /// Asks a peer that answers this and hangs up in the same moment.
    async fn asked(answer: &'static str) -> Result<String, GetError> {
        let (ours, theirs) = duplex(4096);
        let asking = async {
            let (size, mut body) = get(ours, "broker:8142", "/content").await?;
            let mut text = String::new();
            body.read_to_string(&mut text).await.expect("a body");
            assert_eq!(u64::try_from(text.len()).ok(), Some(size));
            Ok(text)
        };
        tokio::join!(say(theirs, answer.as_bytes()), asking).1
    }

    #[tokio::test]
    async fn an_answer_counts_although_the_peer_hangs_up_at_once() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\nrunning";
        assert_eq!(asked(head).await.expect("an answer"), "running");
        let refused = "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno";
        let error = asked(refused).await.expect_err("a refusal");
        assert!(
            matches!(&error, GetError::Refused { reason, .. } if reason == "no"),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn a_peer_that_hangs_up_without_an_answer_is_told_as_that() {
        let error = asked("").await.expect_err("no answer");
        assert!(
            matches!(error, GetError::Http(HttpError::Ended)),
            "{error:?}"
        );
    }
}
