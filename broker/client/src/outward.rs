//! A bare WebSocket that we dial, for brokers: the controllers of the original wait to be dialled, at a
//! path of their own, and speak PCP 2.

use std::net::SocketAddr;
use std::sync::Arc;

use identity::Identity;
use pcp::websocket::Side;
use rustls_pki_types::CertificateDer;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::address::BrokerAddress;
use crate::dial::{DialError, websocket};
use crate::probe::NotReached;
use crate::websocket::{WebSocketReader, WebSocketWriter};

/// The reading half.
pub type OutwardReader = WebSocketReader<ReadHalf<TlsStream<TcpStream>>>;

/// The writing half.
pub type OutwardWriter = WebSocketWriter<WriteHalf<TlsStream<TcpStream>>>;

/// A WebSocket that was taken.
#[derive(Debug)]
pub struct Outward {
    /// For messages of at most the limit that was given.
    pub reader: OutwardReader,
    /// It masks what it writes.
    pub writer: OutwardWriter,
    /// Where the peer is.
    pub address: SocketAddr,
    /// The chain that it has shown, which was verified, its host name too.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// Connects, and asks for a WebSocket at this path.
///
/// # Errors
/// [`NotReached`].
pub async fn open(
    address: &BrokerAddress,
    path: &str,
    identity: Arc<Identity>,
    limit: usize,
) -> Result<Outward, NotReached> {
    let told = |error: DialError| NotReached::because(&error);
    let dialled = websocket::dial(address, path, None, None, &identity);
    let dialled = dialled.await.map_err(told)?;
    let (read, write) = tokio::io::split(dialled.stream);
    Ok(Outward {
        reader: WebSocketReader::new(read, Side::Client, limit, &dialled.early),
        writer: WebSocketWriter::new(write, Side::Client),
        address: dialled.address,
        certificates: dialled.certificates,
    })
}
