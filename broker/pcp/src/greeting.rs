//! What the frames say that open and end a session.

use serde::{Deserialize, Serialize};

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
