//! Dialling over QUIC: sockets, addresses, handshake, hello.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use identity::Identity;
use pcp::frame::{self, MAX_SESSION_PAYLOAD};
use pcp::{Certname, ClientSession, ClientType, Frame, Welcome};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, EndpointConfig, Runtime as _, TokioRuntime};
use tokio::time::sleep;

use super::heard::{Heard, Since, Watched};
use super::{ANSWERED_TIMEOUT, DialError, HANDSHAKE_TIMEOUT, Reached, ReachedBy, answer};
use crate::address::BrokerAddress;
use crate::config::ClientConfig;
use crate::race;
use crate::resolve::{HEAD_START, ResolveError, resolve};
use crate::session::{Line, QuicLine};
use crate::stream::FrameStream;
use crate::transport::{self, Buffers};

/// The sockets that we dial from, one for each family, bound when first needed.
#[derive(Debug)]
pub(super) struct Sockets {
    ipv4: Option<Endpoint>,
    ipv6: Option<Endpoint>,
    heard: Heard,
    /// [`transport::bind`]; in tests, a host that lacks a family.
    bind: fn(SocketAddr, Option<usize>) -> io::Result<(UdpSocket, Buffers)>,
}

impl Default for Sockets {
    fn default() -> Self {
        Self {
            ipv4: None,
            ipv6: None,
            heard: Heard::default(),
            bind: transport::bind,
        }
    }
}

impl Sockets {
    /// Now, to ask later whether anything has arrived on these sockets since.
    pub(super) fn heard(&self) -> Since {
        self.heard.now()
    }

    /// A connection to the address of the broker that answers first.
    pub(super) async fn connect(
        &mut self,
        broker: &BrokerAddress,
        config: &ClientConfig,
        identity: Arc<Identity>,
    ) -> Result<Reached, DialError> {
        let addresses = resolve(broker).await?;
        let quic = quic_config(config, &identity)?;
        let endpoints = self.endpoints(addresses, &config.client_type)?;
        let mut attempts = Vec::with_capacity(endpoints.len());
        for (number, (address, endpoint)) in (0..).zip(endpoints) {
            let host = broker.host.clone();
            let connecting = connect(endpoint, quic.clone(), address, host, self.heard());
            attempts.push(async move {
                sleep(HEAD_START * number).await;
                connecting.await
            });
        }
        let first = race::first_success(attempts).await;
        let (address, connection) =
            first.unwrap_or_else(|| Err(ResolveError::NoAddress(broker.host.clone()).into()))?;
        Ok(Reached {
            address,
            broker: peer(&connection)?,
            shaken: Instant::now(),
            identity,
            way: ReachedBy::Quic(connection),
        })
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
        let socket = TokioRuntime
            .wrap_udp_socket(socket)
            .map_err(DialError::Socket)?;
        let endpoint = Endpoint::new_with_abstract_socket(
            EndpointConfig::default(),
            None,
            Watched::new(socket, self.heard.clone()),
            Arc::new(TokioRuntime),
        );
        let endpoint = endpoint.map_err(DialError::Socket)?;
        *slot = Some(endpoint.clone());
        Ok(endpoint)
    }

    pub(super) async fn wait_idle(&self) {
        for endpoint in [&self.ipv4, &self.ipv6].into_iter().flatten() {
            endpoint.wait_idle().await;
        }
    }
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
    since: Since,
) -> Result<(SocketAddr, Connection), DialError> {
    let connecting = endpoint
        .connect_with(quic, address, &host)
        .map_err(|source| DialError::Connect { address, source })?;
    tokio::select! {
        biased;
        connected = connecting => match connected {
            Ok(connection) => Ok((address, connection)),
            Err(source) => Err(DialError::Handshake { address, source }),
        },
        () = since.silence(HANDSHAKE_TIMEOUT) => Err(DialError::Silent { address }),
        () = sleep(ANSWERED_TIMEOUT) => Err(DialError::HandshakeTimedOut { address }),
    }
}

/// Opens the session stream and says hello on it.
pub(super) async fn greet(
    connection: &Connection,
    identity: Arc<Identity>,
    hello: Frame,
    config: &ClientConfig,
) -> Result<(Welcome, Line), DialError> {
    let (mut send, receive) = connection.open_bi().await.map_err(DialError::Open)?;
    // It fails only when the stream has been stopped, which writing tells.
    drop(send.set_priority(transport::SESSION_PRIORITY));
    let written = send.write_chunk(frame::to_bytes(&hello)).await;
    let mut frames = FrameStream::new(receive, MAX_SESSION_PAYLOAD);
    let mut state = ClientSession::new(&config.client_type);
    // A broker that refuses our certificate closes the connection; reading tells why, and better
    // than the failed write.
    let first = match (frames.next().await, written) {
        (Ok(Some(frame)), _) => frame,
        (Ok(None), Ok(())) => return Err(DialError::Closed),
        (Ok(None), Err(error)) => return Err(DialError::Hello(error)),
        (Err(error), _) => return Err(DialError::Answer(error)),
    };
    let welcome = answer(state.handle(first).map_err(DialError::Misbehaved)?)?;
    let line = Line::Quic(QuicLine {
        connection: connection.clone(),
        identity,
        state,
        frames,
        send,
    });
    Ok((welcome, line))
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
        let mut sockets = Sockets {
            bind: without_ipv6,
            ..Sockets::default()
        };
        let ipv6 = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 1);
        let ipv4 = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1);
        let agent = ClientType::agent();
        let endpoints = sockets.endpoints(vec![ipv6, ipv4], &agent).expect("IPv4");
        let addresses: Vec<_> = endpoints.iter().map(|(address, _)| *address).collect();
        assert_eq!(addresses, [ipv4]);
        let error = sockets.endpoints(vec![ipv6], &agent).expect_err("no way");
        assert!(matches!(error, DialError::Socket(_)), "{error}");
    }
}
