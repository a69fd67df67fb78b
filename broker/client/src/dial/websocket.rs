//! Dialling over WebSocket: TLS, upgrade, hello. A broker of ours speaks the frames of QUIC over it
//! ([`SUBPROTOCOL`]); the original knows PCP 2, in which there is no hello: the connection is the
//! session.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use hyper::header::{self, HeaderMap};
use hyper::{Request, StatusCode};
use identity::Identity;
use pcp::frame::{self, HEADER, max_message_payload};
use pcp::message::MAX_ENVELOPE;
use pcp::websocket::{Incoming, Opcode, Side, push_frame};
use pcp::{
    Certname, ClientSession, Frame, FrameReader, Goodbye, GoodbyeCode, Retry, Uri, Welcome, v2,
};
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;

use super::{DialError, HANDSHAKE_TIMEOUT, HELLO_TIMEOUT, Reached, ReachedBy, answer};
use crate::address::BrokerAddress;
use crate::config::ClientConfig;
use crate::http::{self, HttpError};
use crate::proxy::Proxy;
use crate::session::{Dialect, Line, WebSocketLine};
use crate::tcp::{self, Stream};
use crate::websocket::{
    SUBPROTOCOL, WebSocketFault, WebSocketReader, WebSocketWriter, accept_key, new_key, new_mask,
};

/// How long to stay away from a broker that is not taking clients and does not say for how long.
const UNAVAILABLE_SECONDS: u32 = 5;

/// Messages that may come before an original broker has answered our first ping. It does so at once.
const MAX_EARLY: usize = 16;

/// What our first ping to an original broker says.
const FIRST_PING: &[u8] = b"hello";

/// A WebSocket on which nothing has been said yet.
#[derive(Debug)]
pub(super) struct Upgraded {
    stream: Stream,
    early: Bytes,
    native: bool,
    certificates: Arc<[CertificateDer<'static>]>,
    address: BrokerAddress,
}

/// A WebSocket, whoever is at its other end.
#[derive(Debug)]
pub(crate) struct Dialled {
    pub(crate) stream: Stream,
    /// What came behind the handshake already.
    pub(crate) early: Bytes,
    /// Whether the peer speaks the subprotocol that was offered.
    native: bool,
    pub(crate) address: SocketAddr,
    pub(crate) certificates: Arc<[CertificateDer<'static>]>,
}

/// Connects to a broker, and asks for a WebSocket.
pub(super) async fn upgrade(
    broker: &BrokerAddress,
    config: &ClientConfig,
    identity: Arc<Identity>,
) -> Result<Reached, DialError> {
    // A client type has no character that a path could not have.
    let path = format!("/pcp2/{}", config.client_type);
    let proxy = config.proxy.as_ref();
    let dialled = dial(broker, &path, Some(SUBPROTOCOL), proxy, &identity).await?;
    let certname = identity::peer_certname(&dialled.certificates);
    Ok(Reached {
        address: dialled.address,
        broker: certname.map_err(DialError::Certname)?,
        shaken: Instant::now(),
        identity,
        way: ReachedBy::WebSocket(Box::new(Upgraded {
            stream: dialled.stream,
            early: dialled.early,
            native: dialled.native,
            certificates: dialled.certificates,
            address: broker.clone(),
        })),
    })
}

/// Connects, and asks for a WebSocket at this path.
pub(crate) async fn dial(
    host: &BrokerAddress,
    path: &str,
    subprotocol: Option<&'static str>,
    proxy: Option<&Proxy>,
    identity: &Identity,
) -> Result<Dialled, DialError> {
    let (address, stream) = tcp::connect(host, proxy, identity).await?;
    let certificates = tcp::peer_certificates(&stream);
    let key = new_key();
    let request = request(host, path, subprotocol, &key);
    let switching = http::switch(stream, request);
    let switched = match timeout(HANDSHAKE_TIMEOUT, switching).await {
        Ok(Ok(switched)) => switched,
        Ok(Err(HttpError::Status {
            status: status @ (StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS),
            retry_after,
        })) => {
            return Err(DialError::Retry(Retry {
                reason: format!("it answers {status}"),
                seconds: retry_after.unwrap_or(UNAVAILABLE_SECONDS),
            }));
        }
        Ok(Err(source)) => return Err(DialError::Upgrade { address, source }),
        Err(_) => return Err(DialError::UpgradeTimedOut(address)),
    };
    let Some(native) = protocol(&switched.headers, &key) else {
        return Err(DialError::NoWebSocket(address));
    };
    Ok(Dialled {
        stream: switched.io,
        early: switched.early,
        native,
        address,
        certificates,
    })
}

fn request(
    host: &BrokerAddress,
    path: &str,
    subprotocol: Option<&'static str>,
    key: &str,
) -> Request<String> {
    let mut request = Request::new(String::new());
    *request.uri_mut() = path.parse().unwrap_or_default();
    if let Some(subprotocol) = subprotocol {
        http::set(&mut request, header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    for (name, value) in [
        (header::HOST, host.to_string().as_str()),
        (header::UPGRADE, "websocket"),
        (header::CONNECTION, "Upgrade"),
        (header::SEC_WEBSOCKET_VERSION, "13"),
        (header::SEC_WEBSOCKET_KEY, key),
    ] {
        http::set(&mut request, name, value);
    }
    request
}

/// Whether the broker speaks our own subprotocol; nothing when it has not understood us at all.
fn protocol(headers: &HeaderMap, key: &str) -> Option<bool> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::SEC_WEBSOCKET_ACCEPT) != Some(accept_key(key).as_str()) {
        return None;
    }
    match text(header::SEC_WEBSOCKET_PROTOCOL) {
        None => Some(false),
        Some(SUBPROTOCOL) => Some(true),
        Some(_) => None,
    }
}

/// Opens the session.
pub(super) async fn greet(
    upgraded: Box<Upgraded>,
    identity: Arc<Identity>,
    broker: &Certname,
    hello: Frame,
    config: &ClientConfig,
) -> Result<(Welcome, Line), DialError> {
    let Upgraded {
        stream,
        early,
        native,
        certificates,
        address,
    } = *upgraded;
    let overhead = if native {
        MAX_ENVELOPE + HEADER
    } else {
        v2::OVERHEAD
    };
    let limit = config.max_message.saturating_add(overhead);
    let (read, write) = tokio::io::split(stream);
    let mut reader = WebSocketReader::new(read, Side::Client, limit, &early);
    let mut writer = WebSocketWriter::new(write, Side::Client);
    let (welcome, dialect) = if native {
        let mut state = ClientSession::new(&config.client_type);
        let mut frames = FrameReader::new(max_message_payload(config.max_message));
        write_frame(&mut writer, Opcode::Binary, &frame::to_bytes(&hello)).await?;
        let first = first_frame(&mut reader, &mut frames).await?;
        let welcome = answer(state.handle(first).map_err(DialError::Misbehaved)?)?;
        (welcome, Dialect::Native { state, frames })
    } else {
        write_frame(&mut writer, Opcode::Ping, FIRST_PING).await?;
        let early = first_pong(&mut reader).await?;
        let certname = config.identity.get().certname().clone();
        let own = Uri::new(certname, config.client_type.clone());
        let dialect = Dialect::Two {
            own,
            broker: Uri::new(broker.clone(), pcp::ClientType::server()),
            early,
        };
        (welcome_of(broker, config), dialect)
    };
    let line = Line::WebSocket(Box::new(WebSocketLine {
        reader,
        writer,
        dialect,
        identity,
        certificates,
        address,
    }));
    Ok((welcome, line))
}

async fn write_frame<W>(
    writer: &mut WebSocketWriter<W>,
    opcode: Opcode,
    payload: &[u8],
) -> Result<(), DialError>
where
    W: tokio::io::AsyncWrite + Unpin,
{
    let mut out = BytesMut::new();
    push_frame(&mut out, opcode, &[payload], Some(new_mask()));
    writer.write(&out).await.map_err(DialError::Write)
}

async fn first_frame<R>(
    reader: &mut WebSocketReader<R>,
    frames: &mut FrameReader,
) -> Result<Frame, DialError>
where
    R: tokio::io::AsyncRead + Unpin,
{
    loop {
        match reader.next(HELLO_TIMEOUT).await {
            Ok(Incoming::Binary(bytes)) => {
                frames.buffer().extend_from_slice(&bytes);
                let frame = frames
                    .next_frame()
                    .map_err(|error| DialError::Answer(crate::stream::StreamError::Frame(error)))?;
                if let Some(frame) = frame {
                    return Ok(frame);
                }
            }
            Ok(Incoming::Ping(_) | Incoming::Pong(_)) => {}
            Ok(Incoming::Close { code, reason }) => return Err(closed(code, reason)),
            Ok(Incoming::Text(_) | Incoming::Announced(_)) => return Err(DialError::Closed),
            Err(fault) => return Err(DialError::WebSocket(fault)),
        }
    }
}

/// An original broker answers a ping when it has let us in; before that it says why not.
async fn first_pong<R>(reader: &mut WebSocketReader<R>) -> Result<VecDeque<Bytes>, DialError>
where
    R: tokio::io::AsyncRead + Unpin,
{
    let mut early = VecDeque::new();
    loop {
        match reader.next(HELLO_TIMEOUT).await {
            Ok(Incoming::Pong(_)) => return Ok(early),
            Ok(Incoming::Text(text)) if early.len() < MAX_EARLY => early.push_back(text),
            Ok(Incoming::Announced(_)) => reader.grant(),
            Ok(Incoming::Ping(_)) => {}
            Ok(Incoming::Close { code, reason }) => return Err(closed(code, reason)),
            Ok(Incoming::Text(_) | Incoming::Binary(_)) => return Err(DialError::Closed),
            Err(WebSocketFault::Cut) => return Err(DialError::Closed),
            Err(fault) => return Err(DialError::WebSocket(fault)),
        }
    }
}

fn closed(code: Option<u16>, reason: String) -> DialError {
    let code = GoodbyeCode::from(u32::from(code.unwrap_or(1005)));
    DialError::Refused(Goodbye { code, reason })
}

/// What an original broker would say if it said anything.
fn welcome_of(broker: &Certname, config: &ClientConfig) -> Welcome {
    Welcome {
        broker: broker.clone(),
        software: "pcp-broker (PCP 2)".to_owned(),
        features: Vec::new(),
        max_message: u64::try_from(config.max_message).unwrap_or(u64::MAX),
        server_time: crate::clock::now(),
    }
}
