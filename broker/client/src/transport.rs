//! How QUIC is set up: time-outs, stream limits, windows and socket buffers. The numbers come from
//! measurements (10,000 connections on two cores); the broker uses the same ones for its end.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use pcp::ClientType;
use quinn::{
    Connection, ConnectionError, IdleTimeout, TransportConfig, TransportErrorCode, VarInt,
};
use rustls_pki_types::CertificateDer;
use socket2::{Domain, Protocol, Socket, Type};

/// A connection on which nothing was heard for this long is dead: five keep-alives.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// How often an agent shows that it is alive, at least, and so the longest time after a broker's restart
/// until it hears that its session is gone. Only the client sends: with eight seconds for all, ten thousand
/// idle agents cost a broker some four per cent of a core, so by reckoning some six with [`OFTEN`].
pub const KEEP_ALIVE: Duration = Duration::from_secs(8);

/// How often at most. Each connection has an interval of chance between the two: a fleet that was asked
/// something in one moment hears of a restart over several seconds, and comes back as fast as it is let in.
const OFTEN: Duration = Duration::from_secs(2);

/// The same for links between brokers and for controllers: they are few, and much waits for them.
pub const LINK_IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// See [`LINK_IDLE_TIMEOUT`]: a link is open again within a moment of the other broker's restart.
pub const LINK_KEEP_ALIVE: Duration = Duration::from_secs(2);

/// How many messages above the inline limit a peer may have on their way to us at the same time.
pub const LARGE_MESSAGES: u32 = 4;

/// How many files brokers may ask a content source for at the same time.
pub const CONTENT_STREAMS: u32 = 64;

/// How many bytes a peer may have on their way to us on one stream. An agent's link need not be
/// faster than this many bytes a round trip.
pub const STREAM_WINDOW: u32 = 1024 * 1024;

/// The same for all streams of a connection together; this bounds what a stalled reader holds.
pub const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;

/// The UDP buffers to ask for where many peers may send at once. The kernel's default of 208 KiB
/// loses most of a burst of ten thousand packets, and costs eight times the time.
pub const SOCKET_BUFFER: usize = 8 * 1024 * 1024;

/// The priority of the session stream, above that of large messages and files (0): a short message
/// never waits behind them, not even for a packet.
pub const SESSION_PRIORITY: i32 = 1;

/// The code of a connection that is closed in good order, behind a goodbye. What the session ends
/// for is in the goodbye; QUIC's own code says nothing more.
pub const CLOSED: VarInt = VarInt::from_u32(0);

/// The code of a connection that is closed because the peer broke the protocol.
pub const MISBEHAVED: VarInt = VarInt::from_u32(1);

/// In how many seconds to come back to a broker that refuses the connection itself, before any
/// handshake: more arrive than it can take, or it is being stopped. A number of its own would cost it
/// what it has not got.
pub const REFUSED_SECONDS: u32 = 2;

/// Whether a broker has refused the connection itself, see [`REFUSED_SECONDS`].
#[must_use]
pub fn is_refused(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::ConnectionClosed(close)
        if close.error_code == TransportErrorCode::CONNECTION_REFUSED)
}

/// What the kernel gave of the buffers that were asked for, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffers {
    /// For datagrams that arrive.
    pub receive: usize,
    /// For datagrams that leave.
    pub send: usize,
}

/// Settings that both ends share. Keep-alives are the client's, so there are none here.
#[must_use]
pub fn common() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(idle(IDLE_TIMEOUT)))
        .max_concurrent_uni_streams(LARGE_MESSAGES.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(CONNECTION_WINDOW.into())
        .datagram_receive_buffer_size(None);
    transport
}

/// The settings of a client of this type.
#[must_use]
pub fn client(client_type: &ClientType, offers_content: bool) -> TransportConfig {
    let mut transport = common();
    let files = if offers_content { CONTENT_STREAMS } else { 0 };
    transport.max_concurrent_bidi_streams(files.into());
    if *client_type == ClientType::agent() {
        // Probing for a larger packet size costs a broker 30 % of a handshake and pays only for
        // bulk, of which an agent has little.
        transport
            .keep_alive_interval(Some(interval(fastrand::f64())))
            .mtu_discovery_config(None);
    } else {
        transport
            .keep_alive_interval(Some(LINK_KEEP_ALIVE))
            .max_idle_timeout(Some(idle(LINK_IDLE_TIMEOUT)));
    }
    transport
}

/// Binds a UDP socket, with buffers of `buffer` bytes where that is given: by force where we may
/// (root), else as much as `net.core.rmem_max` and `wmem_max` allow.
///
/// # Errors
/// What the operating system says about the address.
pub fn bind(address: SocketAddr, buffer: Option<usize>) -> io::Result<(UdpSocket, Buffers)> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if let Some(bytes) = buffer {
        if setsockopt(&socket, sockopt::RcvBufForce, &bytes).is_err() {
            socket.set_recv_buffer_size(bytes)?;
        }
        if setsockopt(&socket, sockopt::SndBufForce, &bytes).is_err() {
            socket.set_send_buffer_size(bytes)?;
        }
    }
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    // The kernel reports twice what it gives: the other half is for its own bookkeeping.
    let buffers = Buffers {
        receive: socket.recv_buffer_size()? / 2,
        send: socket.send_buffer_size()? / 2,
    };
    Ok((socket.into(), buffers))
}

/// The certificates that the peer of a connection has shown, its own first.
#[must_use]
pub fn peer_certificates(connection: &Connection) -> Vec<CertificateDer<'static>> {
    connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .map(|certificates| *certificates)
        .unwrap_or_default()
}

/// An agent's keep-alive; `random` is uniform in `0.0..1.0`.
fn interval(random: f64) -> Duration {
    OFTEN + (KEEP_ALIVE - OFTEN).mul_f64(random)
}

fn idle(time: Duration) -> IdleTimeout {
    let milliseconds = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    IdleTimeout::from(VarInt::from_u32(milliseconds))
}
