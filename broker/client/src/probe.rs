//! Whether a broker can be reached, without a session: for `doctor` commands. A session would take the
//! place of the one that the agent or broker of the same certificate has; a handshake disturbs nobody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::header;
use identity::{Current, Identity};
use pcp::{Certname, ClientType};
use tokio::time::timeout;

use crate::address::BrokerAddress;
use crate::config::ClientConfig;
use crate::dial::{DialError, Dialler};
use crate::http;
use crate::proxy::Proxy;
use crate::session::OtherWay as _;
use crate::tcp;

/// How long a broker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What brokers have, and Puppet Servers.
pub const STATUS: &str = "/status/v1/simple";

/// A broker that has shown its certificate and has nothing against ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Who it is, by its certificate.
    pub broker: Certname,
    /// Where it is.
    pub address: SocketAddr,
    /// How long the handshake took, name resolution included.
    pub took: Duration,
    /// The time there, as the header `Date` of HTTP says it; nothing over QUIC.
    pub date: Option<String>,
}

/// Why a broker was not reached, with all causes: a line for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotReached(String);

impl NotReached {
    pub(crate) fn because(error: &dyn std::error::Error) -> Self {
        Self(daemon::error_chain(error))
    }
}

/// Shakes hands with a broker over QUIC, and leaves.
///
/// # Errors
/// [`NotReached`].
pub async fn quic(broker: &BrokerAddress, identity: Identity) -> Result<Reached, NotReached> {
    let start = Instant::now();
    let config = ClientConfig::new(
        vec![broker.clone()],
        Arc::new(Current::fixed(identity)),
        ClientType::agent(),
        daemon::software("doctor"),
    );
    let told = |error: DialError| NotReached::because(&error);
    let mut dialler = Dialler::default();
    let reached = dialler.reach_over_quic(broker, &config).await;
    let reached = reached.map_err(told)?;
    let found = Reached {
        broker: reached.broker.clone(),
        address: reached.address,
        took: reached.shaken.saturating_duration_since(start),
        date: None,
    };
    reached.leave();
    dialler.wait_idle().await;
    Ok(found)
}

/// Asks a broker for its state over HTTPS, on the port on which it takes WebSockets. Any answer will do.
///
/// # Errors
/// [`NotReached`].
pub async fn https(
    broker: &BrokerAddress,
    proxy: Option<&Proxy>,
    identity: &Identity,
) -> Result<Reached, NotReached> {
    let start = Instant::now();
    let told = NotReached::because;
    let connected = tcp::connect(broker, proxy, identity).await;
    let (address, stream) = connected.map_err(|error| told(&error))?;
    let certificates = tcp::peer_certificates(&stream);
    let certname = identity::peer_certname(&certificates).map_err(|error| told(&error))?;
    // A server of TLS 1.3 refuses our certificate only when we speak.
    let question = http::question(&broker.to_string(), STATUS);
    let question = question.ok_or_else(|| NotReached(format!("{broker} has no status")))?;
    let asking = http::ask(stream, question);
    let answered = timeout(ANSWER_TIMEOUT, asking).await.map_err(|_| {
        NotReached(format!(
            "no answer from {address} (TCP) in {} s",
            ANSWER_TIMEOUT.as_secs()
        ))
    })?;
    let (head, _) = answered.map_err(|error| told(&error))?;
    let date = head.headers.get(header::DATE);
    Ok(Reached {
        broker: certname,
        address,
        took: start.elapsed(),
        date: date.and_then(|date| Some(date.to_str().ok()?.to_owned())),
    })
}
