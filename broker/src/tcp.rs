//! The TCP side of the broker's port: TLS for peers that speak HTTP and WebSocket. Each connection has
//! its deadlines from the first byte on.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use identity::{Current, Derived, Identity, TlsVersions};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Tls};
use crate::http::{self, Peer};
use crate::listener::ListenError;
use crate::places::Place;
use crate::refusals::Cause;
use crate::websocket;

/// How many connections the kernel keeps for us, so that a reconnect storm is not refused.
const BACKLOG: i32 = 4096;

/// How long the TLS handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// How long it may take to say that somebody may not come in.
const TELLING_DEADLINE: Duration = Duration::from_secs(10);

/// A client may come without a certificate, to be told so in words that it understands; existing
/// agents know TLS 1.2 only.
///
/// # Errors
/// [`ListenError`] when the certificates do not give a configuration.
pub(crate) fn server(identity: &Arc<Current>) -> Result<Tls, ListenError> {
    Derived::new(Arc::clone(identity), |identity| {
        let tls = identity.server_config_optional_client(&[], TlsVersions::Tls12And13);
        tls.map_err(ListenError::Identity)
    })
}

/// Binds a TCP socket.
///
/// # Errors
/// What the operating system says about the address.
pub(crate) fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Serves a connection to its end. `place` is held for the handshake, `request` until the client has
/// become a session.
pub(crate) async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    context: Arc<Context>,
    place: Place,
    request: OwnedSemaphorePermit,
    end: CancellationToken,
) {
    let arriving = async {
        // Boxed, so that the memory of the handshakes is not kept for the life of the session.
        let peer = Box::pin(shake_hands(stream, address, &context)).await;
        drop(place);
        Box::pin(http::serve(peer?, &context, None)).await
    };
    let arrived = tokio::select! {
        biased;
        () = end.cancelled() => None,
        arrived = arriving => arrived,
    };
    if let Some(upgraded) = arrived {
        Box::pin(websocket::serve(upgraded, context, request)).await;
    }
}

/// Shakes hands with somebody who may not come in just now, to say when to come back.
pub(crate) async fn turn_away(
    stream: TcpStream,
    address: SocketAddr,
    context: &Context,
    seconds: u32,
    end: CancellationToken,
) {
    let telling = async {
        if let Some(peer) = shake_hands(stream, address, context).await {
            // Nobody becomes a session here.
            drop(http::serve(peer, context, Some(seconds)).await);
        }
    };
    tokio::select! {
        biased;
        () = end.cancelled() => {}
        _ = timeout(TELLING_DEADLINE, telling) => {}
    }
}

async fn shake_hands(stream: TcpStream, address: SocketAddr, context: &Context) -> Option<Peer> {
    // Small messages must not wait for acknowledgements. It fails only for a socket that is gone.
    drop(stream.set_nodelay(true));
    let identity = context.identity.get();
    let acceptor = TlsAcceptor::from(context.tls.get());
    let begun = Instant::now();
    let accepted = timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await;
    let good = matches!(accepted, Ok(Ok(_)));
    context
        .counts
        .handshakes
        .ended("tls", good, begun.elapsed());
    let (cause, error) = match accepted {
        Ok(Ok(stream)) => return Some(known(stream, address, identity)),
        Ok(Err(error)) => (cause(&error), HandshakeError::Failed(error)),
        Err(_) => (Cause::Slow, HandshakeError::TimedOut),
    };
    let refusals = &context.refusals;
    refusals.connection(cause, None, address, &error);
    None
}

/// Why TLS could not begin.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("the TLS handshake failed")]
    Failed(#[source] io::Error),
    #[error("the TLS handshake was not finished in {s} s", s = HANDSHAKE_DEADLINE.as_secs())]
    TimedOut,
}

/// Why, as it is counted.
fn cause(error: &io::Error) -> Cause {
    let tls = error.get_ref().and_then(|error| error.downcast_ref());
    tls.map_or(Cause::Handshake, Cause::of_tls)
}

/// Who has finished its handshake.
fn known(stream: TlsStream<TcpStream>, address: SocketAddr, identity: Arc<Identity>) -> Peer {
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificates: Arc<[_]> = certificates
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect();
    let certname = match identity::peer_certname(&certificates) {
        Ok(certname) => Some(certname),
        Err(error) => {
            let error = daemon::error_chain(&error);
            tracing::debug!(%address, %error, "client without a certname");
            None
        }
    };
    Peer {
        stream,
        address,
        certname,
        certificates,
        identity,
    }
}
