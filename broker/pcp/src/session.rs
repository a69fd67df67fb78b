//! The session: who says what first, and what may follow.
//!
//! ```text
//! client                       broker
//!   | -- hello ----------------> |      client type, software, features
//!   | <- welcome --------------- |      or retry (come back later), or goodbye (refused)
//!   | <- messages -------------> |      in order, either way
//!   | <- goodbye --------------> |      why it ends
//! ```
//! Both ends are values: they take frames and say what they mean, and hold no socket. The certname
//! never stands in a frame: it is the CN of the verified certificate.

use serde::{Deserialize, Serialize};

use crate::frame::Frame;
use crate::link::LinkFrame;
use crate::message::Message;
use crate::uri::{Certname, ClientType};
use crate::wire::line;

/// The client's first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What kind of client this is; `server` for a broker, which the broker's rules must allow.
    pub client_type: ClientType,
    /// Product and version, for an operator's eyes.
    #[serde(deserialize_with = "line")]
    pub software: String,
    /// Protocol features beyond the basis that the client understands.
    #[serde(default)]
    pub features: Vec<String>,
    /// Orders the sessions of one client: milliseconds of its own clock when it dialled, and at
    /// least one more than in its session before. The newer session supersedes the older.
    pub started: u64,
}

/// The broker's answer that opens the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The broker's certname, as in its certificate.
    pub broker: Certname,
    /// Product and version.
    #[serde(deserialize_with = "line")]
    pub software: String,
    /// Protocol features that both sides understand.
    #[serde(default)]
    pub features: Vec<String>,
    /// The largest message body in bytes that the broker takes.
    pub max_message: u64,
    /// The broker's clock in milliseconds since 1970, so that a client can see its own skew.
    pub server_time: u64,
}

/// The broker's answer that asks the client to come back later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Why, for a person.
    #[serde(deserialize_with = "line")]
    pub reason: String,
    /// How many seconds to wait, at least.
    pub seconds: u32,
}

/// The last frame of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    /// What a program decides by.
    pub code: GoodbyeCode,
    /// What a person reads.
    #[serde(deserialize_with = "line")]
    pub reason: String,
}

/// Why a session ends. The numbers are PCP's WebSocket close codes where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u32", from = "u32")]
pub enum GoodbyeCode {
    /// 1000: the peer is done.
    Normal,
    /// 1001: the peer is being stopped or restarted; another broker may serve.
    GoingAway,
    /// 1002: the other side broke the protocol.
    ProtocolError,
    /// 1011: the broker cannot serve clients just now.
    Unavailable,
    /// 4000: a newer session of the same client has taken its place.
    Superseded,
    /// 4002: this certname may not have a session of this client type.
    Unauthorized,
    /// A code that this version does not know.
    Unknown(u32),
}

/// The peer broke the protocol: the session ends, and it is the peer's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerMisbehaved {
    /// A frame that does not belong in this state.
    #[error("a {frame} frame may not come {state}")]
    OutOfOrder {
        /// What came.
        frame: &'static str,
        /// When.
        state: &'static str,
    },
    /// A peer that is no broker sent a broker's frame.
    #[error("only brokers may send link frames")]
    LinkFromClient,
}

/// The broker's end.
#[derive(Debug)]
pub struct ServerSession(ServerState);

#[derive(Debug)]
enum ServerState {
    ExpectHello,
    Open { is_server: bool },
    Closed,
}

/// What a frame means to the broker.
#[derive(Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// The client says who it is. Answer with welcome, retry or goodbye.
    Hello(Hello),
    /// A message, to be authorised and routed.
    Message(Message),
    /// News of another broker's clients.
    Link(LinkFrame),
    /// The client leaves.
    Goodbye(Goodbye),
}

/// The client's end.
#[derive(Debug)]
pub struct ClientSession(ClientState);

#[derive(Debug)]
enum ClientState {
    ExpectWelcome { is_server: bool },
    Open { is_server: bool },
    Closed,
}

/// What a frame means to the client.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// The session is open.
    Welcome(Welcome),
    /// Come back later.
    Retry(Retry),
    /// A message for this client.
    Message(Message),
    /// News of another broker's clients (on links only).
    Link(LinkFrame),
    /// The broker ends the session.
    Goodbye(Goodbye),
}

impl Default for ServerSession {
    fn default() -> Self {
        Self(ServerState::ExpectHello)
    }
}

impl ServerSession {
    /// Takes a frame of the session stream.
    ///
    /// # Errors
    /// [`PeerMisbehaved`] when the frame may not come now.
    pub fn handle(&mut self, frame: Frame) -> Result<ServerEvent, PeerMisbehaved> {
        match (&self.0, frame) {
            (ServerState::ExpectHello, Frame::Hello(hello)) => {
                self.0 = ServerState::Open {
                    is_server: hello.client_type.is_server(),
                };
                Ok(ServerEvent::Hello(hello))
            }
            (ServerState::Open { .. }, Frame::Message(message)) => {
                Ok(ServerEvent::Message(message))
            }
            (ServerState::Open { is_server: true }, Frame::Link(link)) => {
                Ok(ServerEvent::Link(link))
            }
            (ServerState::Open { .. }, Frame::Link(_)) => Err(PeerMisbehaved::LinkFromClient),
            (ServerState::Open { .. }, Frame::Goodbye(goodbye)) => {
                self.0 = ServerState::Closed;
                Ok(ServerEvent::Goodbye(goodbye))
            }
            (ServerState::ExpectHello, other) => Err(out_of_order(&other, "before hello")),
            (ServerState::Open { .. }, other) => Err(out_of_order(&other, "from a client")),
            (ServerState::Closed, other) => Err(out_of_order(&other, "after goodbye")),
        }
    }
}

impl ClientSession {
    /// The client has just sent its hello with this client type.
    #[must_use]
    pub fn new(client_type: &ClientType) -> Self {
        Self(ClientState::ExpectWelcome {
            is_server: client_type.is_server(),
        })
    }

    /// Takes a frame of the session stream.
    ///
    /// # Errors
    /// [`PeerMisbehaved`] when the frame may not come now.
    pub fn handle(&mut self, frame: Frame) -> Result<ClientEvent, PeerMisbehaved> {
        match (&self.0, frame) {
            (ClientState::ExpectWelcome { is_server }, Frame::Welcome(welcome)) => {
                self.0 = ClientState::Open {
                    is_server: *is_server,
                };
                Ok(ClientEvent::Welcome(welcome))
            }
            (ClientState::ExpectWelcome { .. }, Frame::Retry(retry)) => {
                self.0 = ClientState::Closed;
                Ok(ClientEvent::Retry(retry))
            }
            (ClientState::Closed, other) => Err(out_of_order(&other, "after the end")),
            (_, Frame::Goodbye(goodbye)) => {
                self.0 = ClientState::Closed;
                Ok(ClientEvent::Goodbye(goodbye))
            }
            (ClientState::Open { .. }, Frame::Message(message)) => {
                Ok(ClientEvent::Message(message))
            }
            (ClientState::Open { is_server: true }, Frame::Link(link)) => {
                Ok(ClientEvent::Link(link))
            }
            (ClientState::Open { .. }, Frame::Link(_)) => Err(PeerMisbehaved::LinkFromClient),
            (ClientState::ExpectWelcome { .. }, other) => {
                Err(out_of_order(&other, "before welcome"))
            }
            (ClientState::Open { .. }, other) => Err(out_of_order(&other, "from a broker")),
        }
    }
}

fn out_of_order(frame: &Frame, state: &'static str) -> PeerMisbehaved {
    let frame = match frame {
        Frame::Hello(_) => "hello",
        Frame::Welcome(_) => "welcome",
        Frame::Retry(_) => "retry",
        Frame::Goodbye(_) => "goodbye",
        Frame::Message(_) => "message",
        Frame::Link(_) => "link",
        Frame::ContentRequest(_) => "content request",
        Frame::ContentHeader(_) => "content header",
        Frame::ContentError(_) => "content error",
    };
    PeerMisbehaved::OutOfOrder { frame, state }
}

impl From<u32> for GoodbyeCode {
    fn from(code: u32) -> Self {
        match code {
            1000 => Self::Normal,
            1001 => Self::GoingAway,
            1002 => Self::ProtocolError,
            1011 => Self::Unavailable,
            4000 => Self::Superseded,
            4002 => Self::Unauthorized,
            other => Self::Unknown(other),
        }
    }
}

impl From<GoodbyeCode> for u32 {
    fn from(code: GoodbyeCode) -> Self {
        match code {
            GoodbyeCode::Normal => 1000,
            GoodbyeCode::GoingAway => 1001,
            GoodbyeCode::ProtocolError => 1002,
            GoodbyeCode::Unavailable => 1011,
            GoodbyeCode::Superseded => 4000,
            GoodbyeCode::Unauthorized => 4002,
            GoodbyeCode::Unknown(other) => other,
        }
    }
}
