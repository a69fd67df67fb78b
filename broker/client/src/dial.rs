//! From a broker's address to an open session: resolve the host, try its addresses, shake hands, say
//! hello. Every step has its time-out, so that an attempt always ends.

mod race;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use identity::{Identity, IdentityError};
use pcp::frame::{self, MAX_SESSION_PAYLOAD};
use pcp::{
    Certname, ClientEvent, ClientSession, ClientType, Frame, Goodbye, Hello, PeerMisbehaved, Retry,
    Welcome,
};
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig};
use quinn::{
    ConnectError, Connection, ConnectionError, Endpoint, EndpointConfig, SendStream, TokioRuntime,
    WriteError,
};
use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};

use crate::address::BrokerAddress;
use crate::config::ClientConfig;
use crate::stream::{FrameStream, StreamError};
use crate::transport::{self, Buffers};

/// How long the resolver may take: its own time-outs add up to more when a server is down.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long QUIC's handshake may take. Its packets are sent again after 1, 3 and 7 seconds, and a
/// broker under a reconnect storm answers late rather than never.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the broker may take to answer the hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long after its handshake a broker may take to refuse our certificate: one round trip, and what
/// a busy broker needs to look at it.
const SECOND_THOUGHTS: Duration = Duration::from_millis(500);

/// How much later the next address of the same host is tried while the one before has not answered:
/// the value of RFC 8305.
const HEAD_START: Duration = Duration::from_millis(250);

/// The most addresses of one host that are tried.
const MAX_ADDRESSES: usize = 8;

/// The sockets that we dial from, one for each family, bound when first needed.
#[derive(Debug)]
pub(crate) struct Dialler {
    ipv4: Option<Endpoint>,
    ipv6: Option<Endpoint>,
    /// [`transport::bind`]; in tests, a host that lacks a family.
    bind: fn(SocketAddr, Option<usize>) -> io::Result<(UdpSocket, Buffers)>,
}

impl Default for Dialler {
    fn default() -> Self {
        Self {
            ipv4: None,
            ipv6: None,
            bind: transport::bind,
        }
    }
}

/// A session that the broker has welcomed us to.
#[derive(Debug)]
pub(crate) struct Welcomed {
    pub(crate) broker: Certname,
    pub(crate) address: SocketAddr,
    pub(crate) welcome: Welcome,
    pub(crate) connection: Connection,
    /// By which the broker's certificate was verified.
    pub(crate) identity: Arc<Identity>,
    pub(crate) session: ClientSession,
    pub(crate) frames: FrameStream,
    pub(crate) send: SendStream,
}

/// Why no session came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("host {host:?} cannot be resolved")]
    Resolve {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("host {0:?} cannot be resolved in {s} s", s = RESOLVE_TIMEOUT.as_secs())]
    ResolveTimedOut(String),
    #[error("host {0:?} has no address")]
    NoAddress(String),
    #[error("no socket to dial from")]
    Socket(#[source] io::Error),
    #[error("our certificates do not give a TLS configuration")]
    Identity(#[source] IdentityError),
    #[error("our TLS configuration does not fit QUIC")]
    Tls(#[source] NoInitialCipherSuite),
    #[error("{address} cannot be dialled")]
    Connect {
        address: SocketAddr,
        #[source]
        source: ConnectError,
    },
    #[error("the handshake with {address} failed")]
    Handshake {
        address: SocketAddr,
        #[source]
        source: ConnectionError,
    },
    #[error("no answer from {address} (UDP) in {s} s", s = HANDSHAKE_TIMEOUT.as_secs())]
    HandshakeTimedOut { address: SocketAddr },
    #[error("the broker's certificate has no certname")]
    Certname(#[source] IdentityError),
    #[error("the session could not be opened")]
    Open(#[source] ConnectionError),
    #[error("the hello could not be sent")]
    Hello(#[source] WriteError),
    #[error("the broker did not answer the hello")]
    Answer(#[source] StreamError),
    #[error("the broker did not answer the hello in {s} s", s = HELLO_TIMEOUT.as_secs())]
    HelloTimedOut,
    #[error("the broker closed the session before its welcome")]
    Closed,
    #[error("the broker broke the protocol")]
    Misbehaved(#[source] PeerMisbehaved),
    #[error("the broker says that it is {said}, its certificate says {certname}")]
    OtherCertname { said: Certname, certname: Certname },
    #[error("the broker asks to come back in {} s: {}", .0.seconds, .0.reason)]
    Retry(Retry),
    #[error("the broker refuses us: {}", .0.reason)]
    Refused(Goodbye),
}

impl Dialler {
    /// Dials a broker and says hello.
    pub(crate) async fn dial(
        &mut self,
        broker: &BrokerAddress,
        config: &ClientConfig,
        started: u64,
    ) -> Result<Welcomed, DialError> {
        let identity = config.identity.get();
        let (address, connection) = self.connection(broker, config, &identity).await?;
        let hello = hello(address, &connection, config, identity, started);
        let result = timeout(HELLO_TIMEOUT, hello).await;
        let result = result.unwrap_or(Err(DialError::HelloTimedOut));
        if result.is_err() {
            connection.close(transport::CLOSED, b"");
        }
        result
    }

    /// Dials a broker, sees that it has nothing against us, and leaves before any hello.
    pub(crate) async fn shake_hands(
        &mut self,
        broker: &BrokerAddress,
        config: &ClientConfig,
    ) -> Result<(SocketAddr, Certname), DialError> {
        let identity = config.identity.get();
        let (address, connection) = self.connection(broker, config, &identity).await?;
        let certname = peer(&connection)?;
        // In TLS 1.3 a client is done before the server has looked at its certificate.
        if let Ok(source) = timeout(SECOND_THOUGHTS, connection.closed()).await {
            return Err(DialError::Handshake { address, source });
        }
        connection.close(transport::CLOSED, b"");
        Ok((address, certname))
    }

    /// A connection to the address of the broker that answers first.
    async fn connection(
        &mut self,
        broker: &BrokerAddress,
        config: &ClientConfig,
        identity: &Identity,
    ) -> Result<(SocketAddr, Connection), DialError> {
        let addresses = resolve(broker).await?;
        let quic = quic_config(config, identity)?;
        let endpoints = self.endpoints(addresses, &config.client_type)?;
        let mut attempts = Vec::with_capacity(endpoints.len());
        for (number, (address, endpoint)) in (0..).zip(endpoints) {
            let connecting = connect(endpoint, quic.clone(), address, broker.host.clone());
            attempts.push(async move {
                sleep(HEAD_START * number).await;
                connecting.await
            });
        }
        let first = race::first_success(attempts).await;
        first.unwrap_or_else(|| Err(DialError::NoAddress(broker.host.clone())))
    }

    /// The addresses that can be dialled from here, each with its socket. A host that has no IPv6
    /// dials a broker's other addresses; only when no address can be dialled, that is an error.
    fn endpoints(
        &mut self,
        addresses: Vec<SocketAddr>,
        client_type: &ClientType,
    ) -> Result<Vec<(SocketAddr, Endpoint)>, DialError> {
        let mut endpoints = Vec::with_capacity(addresses.len());
        let mut failure = None;
        for address in addresses {
            match self.endpoint(address, client_type) {
                Ok(endpoint) => endpoints.push((address, endpoint)),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if endpoints.is_empty() => Err(error),
            _ => Ok(endpoints),
        }
    }

    /// The socket for an address. One whose driver has died (the network stack was taken away) is
    /// replaced.
    fn endpoint(
        &mut self,
        address: SocketAddr,
        client_type: &ClientType,
    ) -> Result<Endpoint, DialError> {
        let (slot, any) = if address.is_ipv4() {
            (&mut self.ipv4, IpAddr::from(Ipv4Addr::UNSPECIFIED))
        } else {
            (&mut self.ipv6, IpAddr::from(Ipv6Addr::UNSPECIFIED))
        };
        if let Some(endpoint) = slot {
            return Ok(endpoint.clone());
        }
        // An agent talks to one peer; controllers and links take what thousands send at once.
        let buffer = (*client_type != ClientType::agent()).then_some(transport::SOCKET_BUFFER);
        let (socket, _) =
            (self.bind)(SocketAddr::new(any, 0), buffer).map_err(DialError::Socket)?;
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            None,
            socket,
            Arc::new(TokioRuntime),
        );
        let endpoint = endpoint.map_err(DialError::Socket)?;
        *slot = Some(endpoint.clone());
        Ok(endpoint)
    }

    /// Forgets the sockets, so that the next attempt binds new ones.
    pub(crate) fn reset(&mut self) {
        (self.ipv4, self.ipv6) = (None, None);
    }

    /// Waits until what was closed is closed for the peers too.
    pub(crate) async fn wait_idle(&self) {
        for endpoint in [&self.ipv4, &self.ipv6].into_iter().flatten() {
            endpoint.wait_idle().await;
        }
    }
}

impl DialError {
    /// Whether new sockets may help.
    pub(crate) fn is_socket(&self) -> bool {
        matches!(
            self,
            Self::Connect {
                source: ConnectError::EndpointStopping,
                ..
            }
        )
    }
}

async fn resolve(broker: &BrokerAddress) -> Result<Vec<SocketAddr>, DialError> {
    let host = || broker.host.clone();
    let lookup = lookup_host((broker.host.as_str(), broker.port));
    let found = timeout(RESOLVE_TIMEOUT, lookup)
        .await
        .map_err(|_| DialError::ResolveTimedOut(host()))?
        .map_err(|source| DialError::Resolve {
            host: host(),
            source,
        })?;
    Ok(found.take(MAX_ADDRESSES).collect())
}

/// Built for each attempt, so that certificates that were replaced meanwhile are used.
fn quic_config(
    config: &ClientConfig,
    identity: &Identity,
) -> Result<quinn::ClientConfig, DialError> {
    let tls = identity.client_config(&[pcp::ALPN]);
    let tls = tls.map_err(DialError::Identity)?;
    let quic = QuicClientConfig::try_from(tls).map_err(DialError::Tls)?;
    let mut quic = quinn::ClientConfig::new(Arc::new(quic));
    let transport = transport::client(&config.client_type, config.offers_content());
    quic.transport_config(Arc::new(transport));
    Ok(quic)
}

async fn connect(
    endpoint: Endpoint,
    quic: quinn::ClientConfig,
    address: SocketAddr,
    host: String,
) -> Result<(SocketAddr, Connection), DialError> {
    let connecting = endpoint
        .connect_with(quic, address, &host)
        .map_err(|source| DialError::Connect { address, source })?;
    let connected = timeout(HANDSHAKE_TIMEOUT, connecting).await;
    let connection = connected
        .map_err(|_| DialError::HandshakeTimedOut { address })?
        .map_err(|source| DialError::Handshake { address, source })?;
    Ok((address, connection))
}

async fn hello(
    address: SocketAddr,
    connection: &Connection,
    config: &ClientConfig,
    identity: Arc<Identity>,
    started: u64,
) -> Result<Welcomed, DialError> {
    let broker = peer(connection)?;
    let (mut send, receive) = connection.open_bi().await.map_err(DialError::Open)?;
    // It fails only when the stream has been stopped, which writing tells.
    drop(send.set_priority(transport::SESSION_PRIORITY));
    let hello = frame::to_bytes(&Frame::Hello(Hello {
        client_type: config.client_type.clone(),
        software: config.software.clone(),
        features: config.features.clone(),
        started,
    }));
    let written = send.write_chunk(hello).await;
    let mut frames = FrameStream::new(receive, MAX_SESSION_PAYLOAD);
    let mut session = ClientSession::new(&config.client_type);
    // A broker that refuses our certificate closes the connection; reading tells why, and better
    // than the failed write.
    let answer = match (frames.next().await, written) {
        (Ok(Some(frame)), _) => frame,
        (Ok(None), Ok(())) => return Err(DialError::Closed),
        (Ok(None), Err(error)) => return Err(DialError::Hello(error)),
        (Err(error), _) => return Err(DialError::Answer(error)),
    };
    match session.handle(answer).map_err(DialError::Misbehaved)? {
        ClientEvent::Welcome(welcome) if welcome.broker != broker => {
            Err(DialError::OtherCertname {
                said: welcome.broker,
                certname: broker,
            })
        }
        ClientEvent::Welcome(welcome) => Ok(Welcomed {
            broker,
            address,
            welcome,
            connection: connection.clone(),
            identity,
            session,
            frames,
            send,
        }),
        ClientEvent::Retry(retry) => Err(DialError::Retry(retry)),
        ClientEvent::Goodbye(goodbye) => Err(DialError::Refused(goodbye)),
        ClientEvent::Message(_) | ClientEvent::Link(_) => Err(DialError::Closed),
    }
}

/// The certname in the broker's verified certificate.
fn peer(connection: &Connection) -> Result<Certname, DialError> {
    let certificates = transport::peer_certificates(connection);
    identity::peer_certname(&certificates).map_err(DialError::Certname)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_ipv6(
        address: SocketAddr,
        buffer: Option<usize>,
    ) -> io::Result<(UdpSocket, Buffers)> {
        if address.is_ipv6() {
            // What Linux says when it was started with ipv6.disable=1.
            return Err(io::Error::other("Address family not supported by protocol"));
        }
        transport::bind(address, buffer)
    }

    #[tokio::test]
    async fn a_host_without_ipv6_dials_a_broker_s_other_addresses() {
        let mut dialler = Dialler {
            bind: without_ipv6,
            ..Dialler::default()
        };
        let ipv6 = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 1);
        let ipv4 = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1);
        let agent = ClientType::agent();
        let endpoints = dialler.endpoints(vec![ipv6, ipv4], &agent).expect("IPv4");
        let addresses: Vec<_> = endpoints.iter().map(|(address, _)| *address).collect();
        assert_eq!(addresses, [ipv4]);
        let error = dialler.endpoints(vec![ipv6], &agent).expect_err("no way");
        assert!(matches!(error, DialError::Socket(_)), "{error}");
    }
}
