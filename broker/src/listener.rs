//! The socket that clients and compilers dial: binds it, and sets QUIC up.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use identity::{Current, Derived, Identity, IdentityError, TlsVersions};
use pcp_client::transport::{self, SOCKET_BUFFER};
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicServerConfig};
use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig};

use crate::ids::Ids;

/// Streams that a client may have open towards us: the session, and three files at a time. QUIC sets
/// memory aside for each permitted stream of each connection.
const CLIENT_STREAMS: u32 = 4;

/// Bytes that may be on their way from one client. Controllers and brokers get more after hello.
const CLIENT_WINDOW: u32 = 2 * 1024 * 1024;

/// Bytes that may be on their way to one client before the broker waits for it.
const CLIENT_SEND_WINDOW: u64 = 1024 * 1024;

/// How soon after one "your connection is gone" the next may be sent: at once. After a restart ten thousand
/// clients must hear it at their next keep-alive, and many of those arrive in one batch, for which QUIC
/// reads the clock once. It multiplies nothing: what is sent is shorter than what caused it, and only
/// ids of our own making cause it.
const RESET_INTERVAL: Duration = Duration::ZERO;

/// How long to wait when the process has no descriptor left for another connection.
pub(crate) const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// Why the broker cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is taken, or not ours.
    #[error("cannot listen on {protocol} {address}")]
    Bind {
        /// UDP or TCP.
        protocol: &'static str,
        /// The address of the configuration.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The certificates do not give a TLS configuration.
    #[error("our certificates do not give a TLS configuration")]
    Identity(#[source] IdentityError),
    /// The TLS configuration lacks QUIC's first cipher.
    #[error("our TLS configuration does not fit QUIC")]
    Tls(#[source] NoInitialCipherSuite),
    /// The key file could be read a moment ago, and now it cannot.
    #[error("cannot read {path}")]
    Key {
        /// The key file.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// How connections are accepted, made anew when our certificates are replaced.
pub(crate) type Server = Derived<Arc<ServerConfig>>;

/// A bound socket and what QUIC needs beside it; nothing is answered yet.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) address: SocketAddr,
    socket: UdpSocket,
    endpoint: EndpointConfig,
}

impl Bound {
    /// Binds the address.
    ///
    /// # Errors
    /// [`ListenError`].
    pub(crate) fn new(address: SocketAddr, key: &Path) -> Result<Self, ListenError> {
        let endpoint = endpoint_config(key)?;
        let bind = |source| ListenError::Bind {
            protocol: "UDP",
            address,
            source,
        };
        let (socket, _) = transport::bind(address, Some(SOCKET_BUFFER)).map_err(bind)?;
        Ok(Self {
            address: socket.local_addr().map_err(bind)?,
            socket,
            endpoint,
        })
    }

    /// Starts QUIC on the socket. Must run inside the runtime.
    ///
    /// # Errors
    /// [`ListenError::Bind`] when the runtime cannot take the socket.
    pub(crate) fn listen(self, server: &Server) -> Result<Endpoint, ListenError> {
        let address = self.address;
        let runtime = Arc::new(TokioRuntime);
        let server = ServerConfig::clone(&server.get());
        Endpoint::new(self.endpoint, Some(server), self.socket, runtime).map_err(|source| {
            ListenError::Bind {
                protocol: "UDP",
                address,
                source,
            }
        })
    }
}

/// How connections are accepted over QUIC.
///
/// # Errors
/// [`ListenError`] when the certificates do not give a configuration.
pub(crate) fn server(identity: &Arc<Current>) -> Result<Server, ListenError> {
    let transport = Arc::new(transport_config());
    Derived::new(Arc::clone(identity), move |identity| {
        server_config(identity, &transport)
    })
}

fn server_config(
    identity: &Identity,
    transport: &Arc<TransportConfig>,
) -> Result<Arc<ServerConfig>, ListenError> {
    let tls = identity.server_config(&[pcp::ALPN], TlsVersions::Tls13);
    let quic = QuicServerConfig::try_from(tls.map_err(ListenError::Identity)?);
    let mut server = ServerConfig::with_crypto(Arc::new(quic.map_err(ListenError::Tls)?));
    server.transport_config(Arc::clone(transport));
    Ok(Arc::new(server))
}

fn transport_config() -> TransportConfig {
    let mut transport = transport::common();
    transport
        .max_concurrent_bidi_streams(CLIENT_STREAMS.into())
        .receive_window(CLIENT_WINDOW.into())
        .send_window(CLIENT_SEND_WINDOW)
        .mtu_discovery_config(None);
    transport
}

/// Keys that are the same after a restart, because they are derived from our private key. With them a
/// restarted broker can tell the peers of its former life, at their next packet, that their
/// connections are gone; they would else notice by the idle time-out only.
fn endpoint_config(key: &Path) -> Result<EndpointConfig, ListenError> {
    let secret = std::fs::read(key).map_err(|source| ListenError::Key {
        path: key.to_owned(),
        source,
    })?;
    let secret = hmac::Key::new(
        hmac::HMAC_SHA256,
        digest::digest(&digest::SHA256, &secret).as_ref(),
    );
    let reset = hmac::sign(&secret, b"pcp-quic stateless reset");
    let ids = hmac::sign(&secret, b"pcp-quic connection ids");
    let ids = hmac::Key::new(hmac::HMAC_SHA256, ids.as_ref());
    let mut config =
        EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, reset.as_ref())));
    config.min_reset_interval(RESET_INTERVAL);
    config.cid_generator(move || Box::new(Ids::new(ids.clone())));
    Ok(config)
}
