//! What one broker's node is told at its start: its name, its role and its limits.

use pcp::Certname;

/// The most clients of one broker. Far above what one machine's sockets and memory carry, and low
/// enough that a flood of certificates cannot grow the inventory without end.
pub const DEFAULT_MAX_CLIENTS: usize = 100_000;

/// The most clients that one link may announce: a large fleet, twice over.
pub const DEFAULT_MAX_ANNOUNCED: usize = 200_000;

/// How long a message waits at a compiler that has lost all its primaries, or for a controller that has
/// just gone, in milliseconds: the grace period for controllers of the original broker (90 s).
pub const DEFAULT_GRACE_PERIOD: u64 = 90_000;

/// How long a message waits for an agent that has just gone, in milliseconds. An agent that lost its
/// broker is with the next one in a second or two, and a compiler's ten thousand in ten; nobody who
/// waits for a node that is really gone minds so much.
pub const DEFAULT_RETURN_PERIOD: u64 = 10_000;

/// The most messages that wait for a primary, and the same for those that have just gone: a few for each of ten thousand agents.
pub const DEFAULT_GRACE_MESSAGES: usize = 32_768;

/// The most bytes that wait for a primary, bodies and envelopes: a quarter of a small compiler's
/// spare memory.
pub const DEFAULT_GRACE_BYTES: usize = 64 * 1024 * 1024;

/// What a broker is in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Knows the whole fleet; controllers connect here.
    Primary,
    /// Knows its own clients and its primaries.
    Compiler,
}

/// A node's name, role and limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// The broker's own certname.
    pub certname: Certname,
    /// Its role.
    pub role: Role,
    /// The most clients that may be connected to this broker at a time.
    pub max_clients: usize,
    /// The most clients that one link may announce.
    pub max_announced: usize,
    /// How long, in milliseconds, a message waits at a compiler that has no primary, or for a
    /// controller that has just gone.
    pub grace_period: u64,
    /// How long, in milliseconds, a message waits for an agent that has just gone.
    pub return_period: u64,
    /// How many messages may wait for a primary, and as many for clients that have gone.
    pub grace_messages: usize,
    /// How many bytes, bodies and envelopes, may wait for either.
    pub grace_bytes: usize,
}

impl NodeConfig {
    /// A node with the default limits.
    #[must_use]
    pub fn new(certname: Certname, role: Role) -> Self {
        Self {
            certname,
            role,
            max_clients: DEFAULT_MAX_CLIENTS,
            max_announced: DEFAULT_MAX_ANNOUNCED,
            grace_period: DEFAULT_GRACE_PERIOD,
            return_period: DEFAULT_RETURN_PERIOD,
            grace_messages: DEFAULT_GRACE_MESSAGES,
            grace_bytes: DEFAULT_GRACE_BYTES,
        }
    }
}
