//! Why no session came about.

use std::io;
use std::net::SocketAddr;

use identity::IdentityError;
use pcp::{Certname, Goodbye, PeerMisbehaved, Retry};
use quinn::crypto::rustls::NoInitialCipherSuite;
use quinn::{ConnectError, ConnectionError, WriteError};

use super::{ANSWERED_TIMEOUT, HANDSHAKE_TIMEOUT, HELLO_TIMEOUT};
use crate::http::HttpError;
use crate::resolve::ResolveError;
use crate::stream::StreamError;
use crate::tcp::TcpError;
use crate::transport;
use crate::websocket::WebSocketFault;

/// Why no session came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("there is no broker to dial")]
    NoBroker,
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
    Silent { address: SocketAddr },
    #[error(
        "{address} has answered (UDP), and did not shake hands in {s} s",
        s = ANSWERED_TIMEOUT.as_secs()
    )]
    HandshakeTimedOut { address: SocketAddr },
    #[error("over QUIC: {quic}; over WebSocket: {websocket}")]
    NoWay { quic: String, websocket: String },
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
    #[error(transparent)]
    Tcp(#[from] TcpError),
    #[error("{address} does not take us as a WebSocket")]
    Upgrade {
        address: SocketAddr,
        #[source]
        source: HttpError,
    },
    #[error("{0} did not take us as a WebSocket in {s} s", s = HANDSHAKE_TIMEOUT.as_secs())]
    UpgradeTimedOut(SocketAddr),
    #[error("{0} answers as no WebSocket server does")]
    NoWebSocket(SocketAddr),
    #[error("the hello could not be written")]
    Write(#[source] io::Error),
    #[error("the broker did not answer over WebSocket")]
    WebSocket(#[source] WebSocketFault),
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

    /// Whether this is the broker's own word, which is the same whichever way one comes.
    pub(super) fn is_the_broker_s_word(&self) -> bool {
        match self {
            Self::Retry(_) | Self::Refused(_) => true,
            Self::Handshake { source, .. } => {
                transport::is_refused(source)
                    || matches!(source, ConnectionError::ApplicationClosed(_))
            }
            _ => false,
        }
    }
}
