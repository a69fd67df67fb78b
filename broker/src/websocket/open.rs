//! The beginning of a session over WebSocket: who it is, and whether it may be here. The refusals and
//! their order are the original's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use identity::Identity;
use pcp::frame::{self, max_message_payload};
use pcp::websocket::{Incoming, Opcode, Side};
use pcp::{ClientType, Frame, FrameReader, ServerEvent, ServerSession, Uri, v1, v2};
use pcp_client::websocket::{WebSocketFault, WebSocketReader, WebSocketWriter};
use pcp_mesh::SessionId;
use rustls_pki_types::CertificateDer;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::goodbye::close;
use super::{Reader, farewell, split};
use crate::authorize::{Kind, Refused};
use crate::context::Context;
use crate::context::wall_clock;
use crate::gate::ALL_CONTROLLERS_LOST;
use crate::gate::Door;
use crate::http::Upgraded;
use crate::outbox::{AGENT_BYTES, AGENT_LARGE, CONTROLLER_BYTES, CONTROLLER_LARGE, Outbox};
use crate::refusals::Cause;
use crate::tally::Counted;
use crate::version::Version;

/// How long one of our own clients may take to say hello.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);

/// A client that was let in.
pub(super) struct Opened<S> {
    pub(super) session: SessionId,
    pub(super) uri: Uri,
    pub(super) started: u64,
    pub(super) software: String,
    pub(super) version: Version,
    pub(super) reader: WebSocketReader<ReadHalf<S>>,
    pub(super) writer: WebSocketWriter<WriteHalf<S>>,
    pub(super) native: Native,
    pub(super) outbox: Arc<Outbox>,
    pub(super) address: SocketAddr,
    /// The chain that the client has shown, and by whom it was verified.
    pub(super) certificates: Arc<[CertificateDer<'static>]>,
    pub(super) identity: Arc<Identity>,
    /// Its place among the connections of its certificate; a controller that we dial needs none.
    pub(super) counted: Option<Counted>,
}

/// The session's own state when it carries QUIC's frames.
#[derive(Debug)]
pub(super) struct Native {
    pub(super) state: ServerSession,
    pub(super) frames: FrameReader,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("the client has no certificate, or one without a certname")]
    NoCertificate,
    #[error("all controllers are lost")]
    NoControllers,
    #[error("{certname}: {client_type:?} is no client type")]
    ClientType {
        certname: pcp::Certname,
        client_type: String,
    },
    #[error("{uri} may not be here")]
    Refused {
        uri: Uri,
        #[source]
        source: Refused,
    },
    #[error("{0}: links between brokers of this product need QUIC")]
    Link(Uri),
    #[error("{0} has too many connections")]
    Crowded(pcp::Certname),
    #[error("{0} did not say hello")]
    Hello(Uri, #[source] Option<WebSocketFault>),
    #[error("{0} did not take its welcome")]
    Welcome(Uri),
}

impl OpenError {
    /// Why, as it is counted.
    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::NoCertificate => Cause::NoCertificate,
            Self::NoControllers => Cause::NoControllers,
            Self::ClientType { .. } => Cause::ClientType,
            Self::Refused { source, .. } => (*source).into(),
            Self::Link(_) => Cause::Protocol,
            Self::Crowded(_) => Cause::Crowded,
            Self::Hello(..) | Self::Welcome(_) => Cause::Hello,
        }
    }

    /// Who it was, as far as the certificate has told.
    pub(super) fn who(&self) -> Option<&dyn std::fmt::Display> {
        match self {
            Self::NoCertificate | Self::NoControllers => None,
            Self::ClientType { certname, .. } | Self::Crowded(certname) => Some(certname),
            Self::Refused { uri, .. } | Self::Link(uri) | Self::Hello(uri, _) => Some(uri),
            Self::Welcome(uri) => Some(uri),
        }
    }

    /// How the client is told.
    fn close(&self) -> (u16, &'static str) {
        match self {
            Self::NoCertificate => (4003, "No client certificate."),
            Self::NoControllers => (1011, ALL_CONTROLLERS_LOST),
            Self::ClientType { .. } | Self::Refused { .. } | Self::Link(_) => {
                (4002, "Association unsuccessful.")
            }
            Self::Crowded(_) => (1013, "Too many connections of this certificate."),
            Self::Hello(..) | Self::Welcome(_) => (1002, "no hello"),
        }
    }
}

/// Takes a WebSocket as far as an open session.
pub(super) async fn open(
    upgraded: Box<Upgraded>,
    context: &Context,
) -> Result<Opened<TlsStream<TcpStream>>, OpenError> {
    let Upgraded {
        stream,
        early,
        certname,
        certificates,
        identity,
        address,
        version,
        client_type,
    } = *upgraded;
    let overhead = match version {
        Version::One => v1::OVERHEAD,
        Version::Two => v2::OVERHEAD,
        Version::Native => pcp::message::MAX_ENVELOPE + frame::HEADER,
    };
    let limit = context.max_message.saturating_add(overhead);
    let (read, mut writer) = split(stream);
    let mut reader = WebSocketReader::new(read, Side::Server, limit, &early);
    let begun = begin(
        certname,
        version,
        client_type,
        context,
        &mut reader,
        &mut writer,
    )
    .await;
    let Begun {
        uri,
        kind,
        started,
        software,
        native,
        counted,
    } = match begun {
        Ok(begun) => begun,
        Err(error) => {
            let (code, reason) = error.close();
            close(&mut writer, code, reason).await;
            farewell(&mut reader, writer).await;
            return Err(error);
        }
    };
    let (bytes, large) = match kind {
        Kind::Agent => (AGENT_BYTES, AGENT_LARGE),
        Kind::Controller | Kind::Broker => (CONTROLLER_BYTES, CONTROLLER_LARGE),
    };
    let outbox = match version {
        Version::Native => Outbox::new(bytes, large),
        Version::One | Version::Two => Outbox::of_messages(bytes, large),
    };
    Ok(Opened {
        session: context.ids.next(),
        uri,
        started,
        software,
        version,
        reader,
        writer,
        native,
        outbox: Arc::new(outbox),
        address,
        certificates,
        identity,
        counted: Some(counted),
    })
}

/// What is known of a client that may come in.
struct Begun {
    uri: Uri,
    kind: Kind,
    started: u64,
    software: String,
    native: Native,
    counted: Counted,
}

async fn begin(
    certname: Option<pcp::Certname>,
    version: Version,
    client_type: String,
    context: &Context,
    reader: &mut Reader,
    writer: &mut WebSocketWriter<WriteHalf<TlsStream<TcpStream>>>,
) -> Result<Begun, OpenError> {
    let Some(certname) = certname else {
        return Err(OpenError::NoCertificate);
    };
    let Some(counted) = context.tally.count(&certname) else {
        context.counts.crowded_out.add();
        return Err(OpenError::Crowded(certname));
    };
    if context.gate.door() != Door::Open {
        return Err(OpenError::NoControllers);
    }
    let Ok(kind) = ClientType::parse(&client_type) else {
        return Err(OpenError::ClientType {
            certname,
            client_type,
        });
    };
    let uri = Uri::new(certname, kind);
    let kind = match context.rules.hello(uri.certname(), uri.client_type()) {
        Ok(Kind::Broker) => return Err(OpenError::Link(uri)),
        Ok(kind) => kind,
        Err(source) => return Err(OpenError::Refused { uri, source }),
    };
    let mut native = Native {
        state: ServerSession::default(),
        frames: FrameReader::new(max_message_payload(context.max_message)),
    };
    let (started, software) = match version {
        Version::One => (
            context.starts.next_start(),
            "PCP 1 over WebSocket".to_owned(),
        ),
        Version::Two => (
            context.starts.next_start(),
            "PCP 2 over WebSocket".to_owned(),
        ),
        Version::Native => {
            let hello = timeout(HELLO_DEADLINE, hello(&uri, &mut native, reader)).await;
            let hello = hello.unwrap_or(Err(OpenError::Hello(uri.clone(), None)))?;
            welcome(&uri, context, writer).await?;
            (hello.started, hello.software)
        }
    };
    Ok(Begun {
        uri,
        kind,
        started,
        software,
        native,
        counted,
    })
}

async fn hello(
    uri: &Uri,
    native: &mut Native,
    reader: &mut Reader,
) -> Result<pcp::Hello, OpenError> {
    let missing = |fault| OpenError::Hello(uri.clone(), fault);
    loop {
        let bytes = match reader.next(HELLO_DEADLINE).await {
            Ok(Incoming::Binary(bytes)) => bytes,
            Ok(Incoming::Ping(_) | Incoming::Pong(_)) => continue,
            Ok(_) => return Err(missing(None)),
            Err(fault) => return Err(missing(Some(fault))),
        };
        native.frames.buffer().extend_from_slice(&bytes);
        match native.frames.next_frame() {
            Ok(None) => {}
            Ok(Some(frame)) => {
                return match native.state.handle(frame) {
                    Ok(ServerEvent::Hello(hello)) if hello.client_type == *uri.client_type() => {
                        Ok(hello)
                    }
                    _ => Err(missing(None)),
                };
            }
            Err(_) => return Err(missing(None)),
        }
    }
}

async fn welcome(
    uri: &Uri,
    context: &Context,
    writer: &mut WebSocketWriter<WriteHalf<TlsStream<TcpStream>>>,
) -> Result<(), OpenError> {
    let welcome = frame::to_bytes(&Frame::Welcome(pcp::Welcome {
        broker: context.certname.clone(),
        software: context.software.clone(),
        features: Vec::new(),
        max_message: u64::try_from(context.max_message).unwrap_or(u64::MAX),
        server_time: wall_clock(),
    }));
    let mut out = BytesMut::new();
    pcp::websocket::push_frame(&mut out, Opcode::Binary, &[&welcome], None);
    let sent = writer.write(&out.freeze()).await;
    sent.map_err(|_| OpenError::Welcome(uri.clone()))
}
