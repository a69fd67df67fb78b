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

use crate::frame::Frame;
use crate::greeting::{Goodbye, Hello, Retry, Welcome};
use crate::link::LinkFrame;
use crate::message::Message;
use crate::uri::ClientType;

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
