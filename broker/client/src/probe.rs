//! Whether a broker can be reached, without a session: for `doctor` commands. A session would take the
//! place of the one that the agent or broker of the same certificate has; a handshake disturbs nobody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use identity::{Current, Identity};
use pcp::{Certname, ClientType};

use crate::address::BrokerAddress;
use crate::config::ClientConfig;
use crate::dial::{DialError, Dialler};

/// A broker that has shown its certificate and has nothing against ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Who it is, by its certificate.
    pub broker: Certname,
    /// Where it is.
    pub address: SocketAddr,
    /// How long the handshake took, name resolution included.
    pub took: Duration,
}

/// Why a broker was not reached, with all causes: a line for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotReached(String);

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
    let told = |error: DialError| NotReached(daemon::error_chain(&error));
    let mut dialler = Dialler::default();
    let (address, broker) = dialler.shake_hands(broker, &config).await.map_err(told)?;
    let took = start.elapsed();
    dialler.wait_idle().await;
    Ok(Reached {
        broker,
        address,
        took,
    })
}
