//! The listening socket: TLS 1.2 and 1.3, HTTP/1.1 and HTTP/2. Each connection is a task of its own,
//! from the first byte of its handshake on, so that nobody waits for a slow one.

use std::future::{pending, ready};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::map_request;
use axum::{Extension, Router};
use daemon::Tasks;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use identity::Derived;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::auth::Peer;

/// How many connections there may be at once; more wait in the kernel. Clients are people, scripts
/// and consoles, each with a handful.
const MAX_CONNECTIONS: usize = 1024;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a client may take to send the head of a request, which is also how long an HTTP/1.1
/// connection may idle: clients of the original keep theirs for 30 seconds. One of HTTP/2 that has
/// been silent for as long is asked whether it is still there.
const HEAD: Duration = Duration::from_secs(75);

/// How many requests one HTTP/2 connection may have at once.
const MAX_STREAMS: u32 = 100;

/// How long open requests have when the process ends. The longest wait for one write.
const DRAIN: Duration = Duration::from_secs(5);

/// How long to wait after the system refused to accept, which it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves until shutdown, each connection with the certificates that are in use when it comes.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Arc<Derived<Arc<ServerConfig>>>,
    router: Router,
    tasks: Tasks,
) {
    let shutdown = tasks.shutdown_token();
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                // Certificates may have been renewed since the last one.
                let acceptor = TlsAcceptor::from(tls.get());
                let router = router.clone();
                let shutdown = shutdown.clone();
                tasks.spawn("http-connection", async move {
                    connection(stream, acceptor, router, shutdown).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await;
    let permit = permit.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    router: Router,
    shutdown: CancellationToken,
) {
    let address = stream.peer_addr().ok();
    let peer = address.map(|peer| peer.to_string()).unwrap_or_default();
    // Without it, the last part of an answer may wait for the client's acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(peer, %error, "TCP_NODELAY not set");
    }
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(peer, %error, "TLS handshake failed");
            return;
        }
        Err(_) => {
            tracing::debug!(peer, "TLS handshake took too long");
            return;
        }
    };
    // Verified in the handshake if it was shown at all.
    let certificates = stream.get_ref().1.peer_certificates();
    let certname = certificates.and_then(|shown| identity::peer_certname(shown).ok());
    let router = router.layer(Extension(Peer { address, certname }));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD)
        .keep_alive_timeout(HANDSHAKE)
        .max_concurrent_streams(MAX_STREAMS);
    let asked = CancellationToken::new();
    let first = asked.clone();
    let router = router.layer(map_request(move |request: Request| {
        first.cancel();
        ready(request)
    }));
    let service = TowerToHyperService::new(router);
    let served = builder.serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = stays_silent(&asked) => {
            tracing::debug!(peer, "connection on which nothing was asked closed");
            return;
        }
        () = shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN, served).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer, error, "connection ended in an error");
    }
}

/// Ends when nothing has been asked in time. The limits of HTTP begin with the first bytes, and
/// whoever never sends any would keep the connection's place for ever.
async fn stays_silent(asked: &CancellationToken) {
    if let Ok(()) = tokio::time::timeout(HEAD, asked.cancelled()).await {
        pending().await
    }
}
