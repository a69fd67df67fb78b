//! What holds for a key that is not written, each with its reason.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// All addresses of this host, at the port that brokers have always had.
pub(super) const LISTEN: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    pcp::DEFAULT_PORT,
);

/// What a controller may say that the broker dials: the original's list, and that an outcome has
/// arrived.
pub(super) const CONTROLLER_ALLOWLIST: [&str; 4] = [
    "http://puppetlabs.com/inventory_request",
    "http://puppetlabs.com/rpc_blocking_request",
    "http://puppetlabs.com/rpc_non_blocking_request",
    "http://puppetlabs.com/rpc_outcome_acknowledgement",
];

/// The original broker's limit, and the original agent's.
pub(super) const MAX_MESSAGE: u64 = 64 * 1024 * 1024;

/// Below this not even a request with many parameters would pass.
pub(super) const LEAST_MAX_MESSAGE: u64 = 64 * 1024;

/// Four messages of the largest size may be in memory at a time: more than this is no message.
pub(super) const MOST_MAX_MESSAGE: u64 = 1024 * 1024 * 1024;

/// The original broker's.
pub(super) const GRACE_PERIOD: Duration = Duration::from_secs(90);

/// The original broker's `idle-timeout`: three missed pings of an agent with the default settings.
pub(super) const WEBSOCKET_IDLE: Duration = Duration::from_secs(360);

/// What one core does (half a millisecond each): a broker has two threads, and those who are in keep
/// the other.
pub(super) const HANDSHAKES_PER_SECOND: u32 = 2000;

/// Ten thousand agents are told in ten seconds, and a service manager waits for ninety.
pub(super) const DRAIN_TIME: Duration = Duration::from_secs(30);

/// Below the state directory that the service manager makes for a broker.
pub(super) const CONTENT_CACHE_DIR: &str = "/var/lib/pcp-broker/content";

/// The files of thousands of tasks, most of which have some kilobytes, and a few archives.
pub(super) const CONTENT_CACHE_SIZE: u64 = 1024 * 1024 * 1024;

/// What a disk needs for its other users: a cache is worth least of all that is on it.
pub(super) const CONTENT_CACHE_RESERVE: u64 = 1024 * 1024 * 1024;
