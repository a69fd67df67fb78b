//! One link to another broker: what it has announced, and whether it may say what it says.

/// A broker on a link broke the rules of announcing: the link is to be closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaved {
    /// A delta that does not continue a complete snapshot of its epoch.
    #[error("a delta of epoch {0} came without its snapshot")]
    DeltaWithoutSnapshot(u64),
    /// A primary sent a snapshot to a compiler, which only takes deltas about superseded sessions.
    #[error("a snapshot may not be sent down a link")]
    SnapshotFromAbove,
    /// A snapshot says of a client that it is gone.
    #[error("a snapshot names a client that is gone")]
    GoneInSnapshot,
    /// A broker was announced as a client.
    #[error("a broker may not be announced as a client")]
    BrokerAsClient,
    /// More clients than the configured limit.
    #[error("a link may announce at most {0} clients")]
    TooManyClients(usize),
}
