//! Names to addresses, in bounded time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::address::BrokerAddress;

/// How long the resolver may take: its own time-outs add up to more when a server is down.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The most addresses of one host that are tried.
const MAX_ADDRESSES: usize = 8;

/// How much later the next address of the same host is tried while the one before has not answered:
/// the value of RFC 8305.
pub(crate) const HEAD_START: Duration = Duration::from_millis(250);

/// Why a host has no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The resolver says so.
    #[error("host {host:?} cannot be resolved")]
    Failed {
        /// The name.
        host: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// The resolver does not answer.
    #[error("host {0:?} cannot be resolved in {s} s", s = RESOLVE_TIMEOUT.as_secs())]
    TimedOut(String),
    /// The resolver knows the host, and no address of it.
    #[error("host {0:?} has no address")]
    NoAddress(String),
}

/// The first addresses of a host: at least one.
pub(crate) async fn resolve(address: &BrokerAddress) -> Result<Vec<SocketAddr>, ResolveError> {
    let host = || address.host.clone();
    let lookup = lookup_host((address.host.as_str(), address.port));
    let found = timeout(RESOLVE_TIMEOUT, lookup)
        .await
        .map_err(|_| ResolveError::TimedOut(host()))?
        .map_err(|source| ResolveError::Failed {
            host: host(),
            source,
        })?;
    let addresses: Vec<_> = found.take(MAX_ADDRESSES).collect();
    if addresses.is_empty() {
        return Err(ResolveError::NoAddress(host()));
    }
    Ok(addresses)
}
