//! The ways to a broker: QUIC, and WebSocket where UDP does not get through.

use std::fmt;
use std::str::FromStr;

/// What carries a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// QUIC, over UDP.
    Quic,
    /// WebSocket, over TLS and TCP.
    WebSocket,
}

/// Which ways a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ways {
    /// QUIC where it gets through, else WebSocket; back to QUIC as soon as it gets through again.
    #[default]
    Auto,
    /// This one alone.
    Only(Transport),
}

/// The text is none of `auto`, `quic` and `websocket`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not auto, quic or websocket")]
pub struct WaysError(String);

impl Ways {
    /// Whether a client may go this way.
    #[must_use]
    pub fn allow(self, transport: Transport) -> bool {
        self == Self::Auto || self == Self::Only(transport)
    }
}

impl FromStr for Ways {
    type Err = WaysError;

    fn from_str(text: &str) -> Result<Self, WaysError> {
        Ok(match text {
            "auto" => Self::Auto,
            "quic" => Self::Only(Transport::Quic),
            "websocket" => Self::Only(Transport::WebSocket),
            other => return Err(WaysError(other.to_owned())),
        })
    }
}

/// As configurations have it.
impl fmt::Display for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Only(Transport::Quic) => "quic",
            Self::Only(Transport::WebSocket) => "websocket",
        })
    }
}

/// As people read it.
impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "QUIC",
            Self::WebSocket => "WebSocket",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_words_and_no_others() {
        for text in ["auto", "quic", "websocket"] {
            let ways: Ways = text.parse().expect(text);
            assert_eq!(ways.to_string(), text);
        }
        assert!("QUIC".parse::<Ways>().is_err());
        assert!("tcp".parse::<Ways>().is_err());
    }

    #[test]
    fn allows_what_it_names() {
        assert!(Ways::Auto.allow(Transport::Quic) && Ways::Auto.allow(Transport::WebSocket));
        assert!(!Ways::Only(Transport::Quic).allow(Transport::WebSocket));
    }
}
