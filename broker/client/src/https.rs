//! Questions to servers of the estate that are no brokers, Puppet Servers above all: over HTTPS, with our
//! certificate, each on a connection of its own. Redirections are not followed: they would take our
//! certificate to whoever they name.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::StatusCode;
use hyper::header;
use identity::Identity;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::timeout;

use crate::address::BrokerAddress;
use crate::http::{self, HttpBody, HttpError};
use crate::proxy::Proxy;
use crate::tcp::{self, Stream, TcpError};

/// Where a question goes, and who asks.
#[derive(Debug, Clone, Copy)]
pub struct Server<'a> {
    /// The server; its certificate must be valid for this host.
    pub address: &'a BrokerAddress,
    /// A proxy on the way.
    pub proxy: Option<&'a Proxy>,
    /// Our certificate.
    pub identity: &'a Identity,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
    /// What we call ourselves: product and version.
    pub software: &'a str,
}

/// What a server answers, whatever it is. Its body is still to be read.
#[derive(Debug)]
pub struct Answer {
    /// 200 for a file that is there.
    pub status: u16,
    /// The size of the body in bytes, where the server says it.
    pub size: Option<u64>,
    /// The bytes. A body that ends before its size is an error, not an end.
    pub body: Body,
}

/// The bytes of an answer, and the connection that they come on.
#[derive(Debug)]
pub struct Body(Box<HttpBody<Stream>>);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// There is no connection.
    #[error("there is no connection to it")]
    Connect(#[source] TcpError),
    /// Nor will there be one.
    #[error("there is no connection to it after {} s", .0.as_secs())]
    ConnectTimedOut(Duration),
    /// The path, or what we call ourselves, has a character that HTTP does not allow.
    #[error("the path cannot be asked for over HTTP")]
    Path,
    /// The server does not speak HTTP, or is gone.
    #[error("it does not answer as a server of HTTP does")]
    Http(#[source] HttpError),
}

/// Asks for a path, which begins with `/`, its query included. How long the answer may take is the
/// caller's to say.
///
/// # Errors
/// [`HttpsError`] when there is no answer.
pub async fn get(server: Server<'_>, path: &str) -> Result<Answer, HttpsError> {
    let Server {
        address,
        proxy,
        identity,
        connect_timeout,
        software,
    } = server;
    let mut request = http::question(&address.to_string(), path).ok_or(HttpsError::Path)?;
    // Puppet Server refuses who says nothing.
    for (name, value) in [(header::ACCEPT, "*/*"), (header::USER_AGENT, software)] {
        http::set(&mut request, name, value);
    }
    let connecting = tcp::connect(address, proxy, identity);
    let (_, stream) = timeout(connect_timeout, connecting)
        .await
        .map_err(|_| HttpsError::ConnectTimedOut(connect_timeout))?
        .map_err(HttpsError::Connect)?;
    let (head, body) = http::ask(stream, request).await.map_err(HttpsError::Http)?;
    Ok(Answer {
        status: head.status.as_u16(),
        size: body.size(),
        body: Body(Box::new(body)),
    })
}

impl Answer {
    /// Whether it is what was asked for.
    #[must_use]
    pub fn is_success(&self) -> bool {
        StatusCode::from_u16(self.status).is_ok_and(|status| status.is_success())
    }
}

impl AsyncRead for Body {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().0.as_mut()).poll_read(context, buffer)
    }
}
