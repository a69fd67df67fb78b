//! From a server's address to an encrypted TCP connection: straight, or through a proxy. Every step has
//! its time-out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use identity::{Identity, IdentityError};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::address::BrokerAddress;
use crate::http::{self, HttpError};
use crate::proxy::Proxy;
use crate::race;
use crate::resolve::{HEAD_START, ResolveError, resolve};

/// How long one address may take to accept a connection: SYNs are sent again after 1, 3 and 7 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a proxy may take to connect us.
const PROXY_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the TLS handshake may take.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// An encrypted connection to a broker, or to another server of the estate.
pub(crate) type Stream = TlsStream<TcpStream>;

/// Why there is no connection over TCP.
#[derive(Debug, thiserror::Error)]
pub enum TcpError {
    /// A host has no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Nobody listens, or the network is in the way.
    #[error("{address} cannot be reached over TCP")]
    Connect {
        /// The broker's, or the proxy's.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Nobody answers.
    #[error("no answer from {0} (TCP) in {s} s", s = CONNECT_TIMEOUT.as_secs())]
    ConnectTimedOut(SocketAddr),
    /// The proxy does not connect us.
    #[error("the proxy {proxy} does not connect us to {broker}: see {key}")]
    Proxy {
        /// Which proxy, without the password.
        proxy: String,
        /// The key of the configuration that names it.
        key: &'static str,
        /// To whom.
        broker: BrokerAddress,
        /// Why not.
        #[source]
        source: ProxyFault,
    },
    /// Our certificates do not give a TLS configuration.
    #[error("our certificates do not give a TLS configuration")]
    Identity(#[source] IdentityError),
    /// The broker's host cannot stand in a TLS handshake.
    #[error("{0:?} is no name for a TLS server")]
    ServerName(String),
    /// The TLS handshake failed.
    #[error("the TLS handshake with {address} failed")]
    Tls {
        /// With whom: the broker, or the proxy in between.
        address: SocketAddr,
        /// What TLS says.
        #[source]
        source: io::Error,
    },
    /// The TLS handshake is not over in time.
    #[error("the TLS handshake with {0} took longer than {s} s", s = TLS_TIMEOUT.as_secs())]
    TlsTimedOut(SocketAddr),
}

/// Why a proxy does not connect us.
#[derive(Debug, thiserror::Error)]
pub enum ProxyFault {
    /// It cannot be reached.
    #[error("it cannot be reached")]
    Unreachable(#[source] Box<TcpError>),
    /// It refuses.
    #[error("it answers {0}{hint}", hint = hint(*.0))]
    Refused(StatusCode),
    /// It does not speak HTTP.
    #[error("it does not answer as a proxy does")]
    Http(#[source] HttpError),
    /// It does not answer.
    #[error("it did not answer in {s} s", s = PROXY_TIMEOUT.as_secs())]
    TimedOut,
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => ": it wants another name and password",
        StatusCode::FORBIDDEN => ": it allows no connection to that host and port",
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            ": it cannot reach that host and port"
        }
        _ => "",
    }
}

/// Connects to a broker or another server, and verifies it. Gives also the address at the other end of the socket, which
/// is the proxy's where there is one.
pub(crate) async fn connect(
    broker: &BrokerAddress,
    proxy: Option<&Proxy>,
    identity: &Identity,
) -> Result<(SocketAddr, Stream), TcpError> {
    let (address, stream) = match proxy {
        None => dial(broker).await?,
        Some(proxy) => {
            let through = through(proxy, broker).await;
            through.map_err(|source| TcpError::Proxy {
                proxy: proxy.to_string(),
                key: proxy.key(),
                broker: broker.clone(),
                source,
            })?
        }
    };
    let tls = identity.client_config(&[]).map_err(TcpError::Identity)?;
    let name = ServerName::try_from(broker.host.clone())
        .map_err(|_| TcpError::ServerName(broker.host.clone()))?;
    let shaking = TlsConnector::from(tls).connect(name, stream);
    let stream = timeout(TLS_TIMEOUT, shaking)
        .await
        .map_err(|_| TcpError::TlsTimedOut(address))?
        .map_err(|source| TcpError::Tls { address, source })?;
    Ok((address, stream))
}

/// The certificates that the broker has shown, its own first.
pub(crate) fn peer_certificates(stream: &Stream) -> Arc<[CertificateDer<'static>]> {
    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
    shown.iter().map(|c| c.clone().into_owned()).collect()
}

/// A connection to the address that answers first.
async fn dial(host: &BrokerAddress) -> Result<(SocketAddr, TcpStream), TcpError> {
    let addresses = resolve(host).await?;
    let attempts = (0..).zip(addresses).map(|(number, address)| async move {
        sleep(HEAD_START * number).await;
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
            .await
            .map_err(|_| TcpError::ConnectTimedOut(address))?
            .map_err(|source| TcpError::Connect { address, source })?;
        // Small messages must not wait for acknowledgements. It fails only for a socket that is gone.
        drop(stream.set_nodelay(true));
        Ok((address, stream))
    });
    let first = race::first_success(attempts.collect()).await;
    first.unwrap_or_else(|| Err(ResolveError::NoAddress(host.host.clone()).into()))
}

/// The same through a proxy, which is told the broker's name and resolves it.
async fn through(
    proxy: &Proxy,
    broker: &BrokerAddress,
) -> Result<(SocketAddr, TcpStream), ProxyFault> {
    let dialled = dial(&proxy.address).await;
    let (address, stream) = dialled.map_err(|error| ProxyFault::Unreachable(Box::new(error)))?;
    let authority = broker.to_string();
    let mut request = Request::new(String::new());
    *request.method_mut() = Method::CONNECT;
    // A host and a port are always an authority.
    *request.uri_mut() = authority.parse().unwrap_or_default();
    http::set(&mut request, header::HOST, &authority);
    if let Some(authorization) = proxy.authorization()
        && let Ok(mut value) = HeaderValue::from_str(authorization)
    {
        value.set_sensitive(true);
        let headers = request.headers_mut();
        headers.insert(header::PROXY_AUTHORIZATION, value);
    }
    let switched = timeout(PROXY_TIMEOUT, http::switch(stream, request)).await;
    match switched.map_err(|_| ProxyFault::TimedOut)? {
        // TLS is ours to begin: a proxy that says something first is none.
        Ok(switched) if switched.early.is_empty() => Ok((address, switched.io)),
        Ok(_) => Err(ProxyFault::Http(HttpError::Early)),
        Err(HttpError::Status { status, .. }) => Err(ProxyFault::Refused(status)),
        Err(error) => Err(ProxyFault::Http(error)),
    }
}
