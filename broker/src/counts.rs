//! What the broker's shell has counted since its start, for metrics. What the mesh counts is
//! [`pcp_mesh::Counters`].

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn add(&self) {
        self.add_many(1);
    }

    /// So many more.
    pub fn add_many(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that is counted outside the mesh.
#[derive(Debug, Default)]
pub struct Counts {
    /// Sessions that were ended because their peer's certificate is not trusted any more.
    pub distrusted: Count,
    /// Handshakes that were begun.
    pub begun: Count,
    /// Connections that were turned away before any handshake, since too many came at once.
    pub turned_away: Count,
    /// Clients that were asked to come back later, since their certificate has too many connections.
    pub crowded_out: Count,
}
