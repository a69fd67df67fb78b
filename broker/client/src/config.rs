//! What a client needs to know: who it is, where brokers are, and how patient it shall be.

use std::sync::Arc;
use std::time::Duration;

use identity::Current;
use pcp::ClientType;

use crate::address::BrokerAddress;
use crate::backoff::Backoff;
use crate::proxy::Proxy;
use crate::reprobe::PROBE_BASE;
use crate::way::Ways;

/// How much earlier than WebSocket QUIC is tried where it was the way the last time, or never yet. When
/// anything was heard within it UDP gets through, and a second handshake beside the first would only
/// double the work of a broker that is busy with ten thousand clients.
const QUIC_HEAD_START: Duration = Duration::from_secs(5);

/// Everything a client is started with.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Where brokers listen, the preferred one first. With none the client never connects.
    pub brokers: Vec<BrokerAddress>,
    /// Our certificate, key, roots and CRLs, as of now: each dial asks for them.
    pub identity: Arc<Current>,
    /// What kind of client this is; [`ClientType::server`] for a compiler's uplink.
    pub client_type: ClientType,
    /// Product and version, for an operator's eyes ([`daemon::software`]).
    pub software: String,
    /// Protocol features that we offer, such as [`crate::FEATURE_CONTENT`].
    pub features: Vec<String>,
    /// The largest message body in bytes that we take, and send. A broker may take less.
    pub max_message: usize,
    /// How long to wait between attempts.
    pub backoff: Backoff,
    /// Which ways to take.
    pub ways: Ways,
    /// A proxy on the way over WebSocket, and over HTTPS for files. QUIC never goes through it.
    pub proxy: Option<Proxy>,
    /// How much earlier QUIC is tried than WebSocket.
    pub head_start: Duration,
    /// About how long after a session over WebSocket has begun QUIC is tried again; later the pauses
    /// grow.
    pub probe_base: Duration,
    /// About how long the first broker must be back until a client that is connected to another one over
    /// QUIC returns to it; never where nothing is given.
    pub home_after: Option<Duration>,
}

impl ClientConfig {
    /// A configuration with the default backoff and message limit, both ways, and no features.
    #[must_use]
    pub fn new(
        brokers: Vec<BrokerAddress>,
        identity: Arc<Current>,
        client_type: ClientType,
        software: String,
    ) -> Self {
        Self {
            brokers,
            identity,
            client_type,
            software,
            features: Vec::new(),
            max_message: pcp::message::DEFAULT_MAX_MESSAGE,
            backoff: Backoff::default(),
            ways: Ways::Auto,
            proxy: None,
            head_start: QUIC_HEAD_START,
            probe_base: PROBE_BASE,
            home_after: None,
        }
    }

    /// Whether we answer content requests.
    pub(crate) fn offers_content(&self) -> bool {
        self.features.iter().any(|f| f == crate::FEATURE_CONTENT)
    }
}
