//! What the broker's shell has counted since its start, for metrics. What the mesh counts is
//! [`pcp_mesh::Counters`], who was refused is in `refusals`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use daemon::metrics::{Labels, SECONDS};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

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
    /// Handshakes that came to an end.
    pub(crate) handshakes: Handshakes,
}

/// Handshakes by transport and outcome, and how long they took in seconds.
#[derive(Debug, Clone)]
pub(crate) struct Handshakes(pub(crate) Family<Labels<2>, Histogram, fn() -> Histogram>);

impl Default for Handshakes {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new(SECONDS)))
    }
}

impl Handshakes {
    /// A handshake has ended.
    pub(crate) fn ended(&self, transport: &'static str, good: bool, took: Duration) {
        let outcome = if good { "completed" } else { "failed" };
        let labels = [("transport", transport), ("outcome", outcome)];
        self.0.get_or_create(&labels).observe(took.as_secs_f64());
    }
}
