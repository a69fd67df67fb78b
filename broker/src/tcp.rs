//! The TCP side of the broker's port: TLS for peers that speak HTTP and WebSocket. Each connection has
//! its deadlines from the first byte on, and only so many may be on their way in at a time.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use identity::{Current, Derived, Identity, TlsVersions};
use pcp::Certname;
use rustls_pki_types::CertificateDer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::http;
use crate::listener::ListenError;
use crate::session::Context;
use crate::websocket;

/// How many connections may be between their first packet and their session at a time. Beyond that
/// new ones wait in the kernel's queue.
const MAX_ARRIVING: usize = 1024;

/// How many connections the kernel keeps for us, so that a reconnect storm is not refused.
const BACKLOG: i32 = 4096;

/// How long the TLS handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// How long to wait when the process has no descriptor left for another connection.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// A connection whose client is known, as far as it wants to be.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) stream: TlsStream<TcpStream>,
    pub(crate) address: SocketAddr,
    /// The CN of its verified certificate; nothing when it has shown none, or one without a certname.
    pub(crate) certname: Option<Certname>,
    /// Its verified chain.
    pub(crate) certificates: Arc<[CertificateDer<'static>]>,
    /// By whom it was verified.
    pub(crate) identity: Arc<Identity>,
}

/// How connections are accepted, made anew when our certificates are replaced.
pub(crate) type Tls = Derived<Arc<ServerConfig>>;

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

/// Serves each connection until the shutdown.
pub(crate) async fn accept(
    listener: StdListener,
    context: Arc<Context>,
    sessions: daemon::Tasks,
    shutdown: CancellationToken,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the TCP socket cannot be served"),
    };
    let places = Arc::new(Semaphore::new(MAX_ARRIVING));
    loop {
        let next = async {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            next = next => next,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Of a connection that ended before we took it, or for lack of descriptors.
                tracing::debug!(%error, "connection not accepted");
                sleep(OUT_OF_DESCRIPTORS).await;
                continue;
            }
        };
        let (context, tasks) = (Arc::clone(&context), sessions.shutdown_token());
        sessions.spawn("websocket", async move {
            let arriving = async {
                // Boxed, so that the memory of the handshakes is not kept for the life of the session.
                let peer = Box::pin(shake_hands(stream, address, &context)).await?;
                Box::pin(http::serve(peer, &context)).await
            };
            let arrived = tokio::select! {
                biased;
                () = tasks.cancelled() => None,
                arrived = arriving => arrived,
            };
            if let Some(upgraded) = arrived {
                Box::pin(websocket::serve(upgraded, context, place.ok())).await;
            }
        });
    }
}

async fn shake_hands(stream: TcpStream, address: SocketAddr, context: &Context) -> Option<Peer> {
    // Small messages must not wait for acknowledgements. It fails only for a socket that is gone.
    drop(stream.set_nodelay(true));
    let identity = context.identity.get();
    let acceptor = TlsAcceptor::from(context.tls.get());
    let stream = match timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let error = daemon::error_chain(&error);
            tracing::info!(%address, %error, "TLS handshake failed");
            return None;
        }
        Err(_) => {
            tracing::info!(%address, "TLS handshake not finished in time");
            return None;
        }
    };
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
    Some(Peer {
        stream,
        address,
        certname,
        certificates,
        identity,
    })
}
