//! The beginning of a session: the handshake, the hello, and whether the rules let it in. Every step
//! has its deadline, so that a half-open connection goes away by itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use identity::{Identity, IdentityError};
use pcp::frame::{self, MAX_SESSION_PAYLOAD};
use pcp::{
    Frame, Goodbye, GoodbyeCode, Hello, PeerMisbehaved, Retry, ServerEvent, ServerSession, Uri,
};
use pcp_client::FEATURE_CONTENT;
use pcp_client::stream::{FrameStream, StreamError};
use pcp_client::transport::{self, CONNECTION_WINDOW, CONTENT_STREAMS};
use pcp_mesh::SessionId;
use quinn::{Connection, ConnectionError, Incoming, SendStream, WriteError};
use tokio::time::timeout;

use super::{FAREWELL, farewell, unboxed};
use crate::authorize::{Kind, Refused};
use crate::context::{Context, wall_clock};
use crate::gate::ALL_CONTROLLERS_LOST;
use crate::gate::Door;
use crate::outbox::{AGENT_BYTES, AGENT_LARGE, CONTROLLER_BYTES, CONTROLLER_LARGE, Outbox};
use crate::refusals::Cause;
use crate::tally::{self, Counted};

/// How long the handshake may take, from the first packet that we have seen.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// How long a client may take to say hello, and to take our answer.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);

/// Large messages that a controller or broker may have on their way to us at the same time.
const CONTROLLER_MESSAGES: u32 = 16;

/// A client that was let in and welcomed.
pub(super) struct Opened {
    pub(super) session: SessionId,
    pub(super) uri: Uri,
    pub(super) kind: Kind,
    pub(super) started: u64,
    pub(super) software: String,
    pub(super) offers_content: bool,
    pub(super) address: SocketAddr,
    /// As it was when the handshake began: the peer was verified by this one, or by a later one.
    pub(super) identity: Arc<Identity>,
    pub(super) connection: Connection,
    pub(super) counted: Counted,
    pub(super) state: ServerSession,
    pub(super) frames: FrameStream,
    pub(super) send: SendStream,
    pub(super) outbox: Arc<Outbox>,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("the handshake failed")]
    Handshake(#[source] ConnectionError),
    #[error("the handshake was not finished in {s} s", s = HANDSHAKE_DEADLINE.as_secs())]
    HandshakeTimedOut,
    #[error("the client's certificate has no certname")]
    Certname(#[source] IdentityError),
    #[error("the client opened no session")]
    NoStream(#[source] ConnectionError),
    #[error("there was no hello in {s} s", s = HELLO_DEADLINE.as_secs())]
    HelloTimedOut,
    #[error("the hello of {certname} cannot be read", certname = .0)]
    Hello(pcp::Certname, #[source] StreamError),
    #[error("the client left before its hello")]
    Left,
    #[error("the client broke the protocol")]
    Misbehaved(#[source] PeerMisbehaved),
    #[error("{uri} may not be here")]
    Refused {
        uri: Uri,
        #[source]
        source: Refused,
    },
    #[error("{0} has too many connections")]
    Crowded(Uri),
    #[error("{0} is not let in: no controller is there")]
    NoControllers(Uri),
    #[error("the welcome could not be sent")]
    Welcome(#[source] WriteError),
}

impl OpenError {
    /// Why, as it is counted.
    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::Handshake(ConnectionError::TransportError(error)) => {
                // A fault of TLS is its alert, above 0x100.
                let code = u64::from(error.code).checked_sub(TLS_ALERTS);
                let alert = code.and_then(|code| u8::try_from(code).ok());
                alert.map_or(Cause::Handshake, Cause::of_alert)
            }
            Self::Handshake(_) | Self::NoStream(_) => Cause::Handshake,
            Self::HandshakeTimedOut | Self::HelloTimedOut => Cause::Slow,
            Self::Certname(_) => Cause::NoCertificate,
            Self::Hello(..) | Self::Left | Self::Welcome(_) => Cause::Hello,
            Self::Misbehaved(_) => Cause::Protocol,
            Self::Refused { source, .. } => (*source).into(),
            Self::Crowded(_) => Cause::Crowded,
            Self::NoControllers(_) => Cause::NoControllers,
        }
    }

    /// Who it was, as far as the certificate has told.
    pub(super) fn who(&self) -> Option<&dyn std::fmt::Display> {
        match self {
            Self::Hello(certname, _) => Some(certname),
            Self::Refused { uri, .. } | Self::Crowded(uri) | Self::NoControllers(uri) => Some(uri),
            _ => None,
        }
    }
}

/// Where QUIC's error codes for alerts of TLS begin (RFC 9001, section 4.8).
const TLS_ALERTS: u64 = 0x100;

/// Takes a connection as far as its welcome.
pub(super) async fn open(incoming: Box<Incoming>, context: &Context) -> Result<Opened, OpenError> {
    let identity = context.identity.get();
    let begun = Instant::now();
    let connecting = unboxed(incoming)
        .accept_with(context.server.get())
        .map_err(OpenError::Handshake)?;
    let connected = timeout(HANDSHAKE_DEADLINE, connecting)
        .await
        .map_err(|_| OpenError::HandshakeTimedOut)
        .and_then(|connected| connected.map_err(OpenError::Handshake));
    let good = connected.is_ok();
    context
        .counts
        .handshakes
        .ended("quic", good, begun.elapsed());
    let connection = connected?;
    let opened = timeout(HELLO_DEADLINE, greet(&connection, context, identity)).await;
    let opened = opened.unwrap_or(Err(OpenError::HelloTimedOut));
    if let Err(error) = &opened {
        let code = match error {
            OpenError::Misbehaved(_) | OpenError::Hello(..) => transport::MISBEHAVED,
            _ => transport::CLOSED,
        };
        connection.close(code, b"");
    }
    opened
}

async fn greet(
    connection: &Connection,
    context: &Context,
    identity: Arc<Identity>,
) -> Result<Opened, OpenError> {
    let certificates = transport::peer_certificates(connection);
    let certname = identity::peer_certname(&certificates).map_err(OpenError::Certname)?;
    let counted = context.tally.count(&certname);
    let (mut send, receive) = connection.accept_bi().await.map_err(OpenError::NoStream)?;
    // It fails only when the stream has been stopped, which writing tells.
    drop(send.set_priority(transport::SESSION_PRIORITY));
    let mut frames = FrameStream::new(receive, MAX_SESSION_PAYLOAD);
    let frame = match frames.next().await {
        Ok(Some(frame)) => frame,
        Ok(None) => return Err(OpenError::Left),
        Err(error) => return Err(OpenError::Hello(certname, error)),
    };
    let mut state = ServerSession::default();
    let hello: Hello = match state.handle(frame).map_err(OpenError::Misbehaved)? {
        ServerEvent::Hello(hello) => hello,
        ServerEvent::Message(_) | ServerEvent::Link(_) | ServerEvent::Goodbye(_) => {
            return Err(OpenError::Left);
        }
    };
    let uri = Uri::new(certname, hello.client_type.clone());
    let Some(counted) = counted else {
        context.counts.crowded_out.add();
        let retry = frame::to_bytes(&Frame::Retry(Retry {
            reason: "this certificate has too many connections".to_owned(),
            seconds: tally::COME_BACK,
        }));
        drop(timeout(FAREWELL, farewell(&mut send, retry)).await);
        return Err(OpenError::Crowded(uri));
    };
    let kind = match context.rules.hello(uri.certname(), uri.client_type()) {
        Ok(kind) => kind,
        Err(source) => {
            let goodbye = frame::to_bytes(&Frame::Goodbye(Goodbye {
                code: GoodbyeCode::Unauthorized,
                reason: source.to_string(),
            }));
            drop(timeout(FAREWELL, farewell(&mut send, goodbye)).await);
            return Err(OpenError::Refused { uri, source });
        }
    };
    // A controller that comes by itself is one; brokers must find each other in any case.
    let waits = matches!(
        context.gate.door(),
        Door::Starting | Door::Grace | Door::Shut
    );
    if kind == Kind::Agent && waits {
        let goodbye = frame::to_bytes(&Frame::Goodbye(Goodbye {
            code: GoodbyeCode::Unavailable,
            reason: ALL_CONTROLLERS_LOST.to_owned(),
        }));
        drop(timeout(FAREWELL, farewell(&mut send, goodbye)).await);
        return Err(OpenError::NoControllers(uri));
    }
    let outbox = match kind {
        Kind::Agent => Outbox::new(AGENT_BYTES, AGENT_LARGE),
        Kind::Controller | Kind::Broker => {
            // They are few, and stand for many.
            connection.set_max_concurrent_bi_streams(CONTENT_STREAMS.into());
            connection.set_max_concurrent_uni_streams(CONTROLLER_MESSAGES.into());
            connection.set_receive_window(CONNECTION_WINDOW.into());
            connection.set_send_window(CONNECTION_WINDOW.into());
            Outbox::new(CONTROLLER_BYTES, CONTROLLER_LARGE)
        }
    };
    let offered = hello.features.iter().any(|f| f == FEATURE_CONTENT);
    let offers_content = offered && kind == Kind::Controller;
    let welcome = frame::to_bytes(&Frame::Welcome(pcp::Welcome {
        broker: context.certname.clone(),
        software: context.software.clone(),
        features: if offers_content {
            vec![FEATURE_CONTENT.to_owned()]
        } else {
            Vec::new()
        },
        max_message: u64::try_from(context.max_message).unwrap_or(u64::MAX),
        server_time: wall_clock(),
    }));
    send.write_chunk(welcome)
        .await
        .map_err(OpenError::Welcome)?;
    Ok(Opened {
        session: context.ids.next(),
        uri,
        kind,
        started: hello.started,
        software: hello.software,
        offers_content,
        address: connection.remote_address(),
        identity,
        connection: connection.clone(),
        counted,
        state,
        frames,
        send,
        outbox: Arc::new(outbox),
    })
}
