//! What the broker's shell has counted since its start, for metrics. What the mesh counts is
//! [`pcp_mesh::Counters`], who was refused is in `refusals`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use daemon::metrics::{Labels, SECONDS};
use pcp::ContentErrorCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

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
    /// What became of questions for files.
    pub(crate) content: ContentCounts,
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

/// Questions for files, and what was fetched for them.
#[derive(Debug, Default)]
pub(crate) struct ContentCounts {
    requests: Family<Labels<1>, Counter>,
    fetches: Counter,
    fetched_bytes: Counter,
}

impl ContentCounts {
    /// It was in the cache.
    pub(crate) fn cached(&self) {
        self.request("cached");
    }

    /// It is fetched into the cache.
    pub(crate) fn fetched(&self) {
        self.request("fetched");
    }

    /// Somebody else is having it fetched.
    pub(crate) fn joined(&self) {
        self.request("joined");
    }

    /// It is passed on without being kept.
    pub(crate) fn uncached(&self) {
        self.request("uncached");
    }

    /// It could not be had.
    pub(crate) fn refused(&self, code: ContentErrorCode) {
        self.request(match code {
            ContentErrorCode::NotFound => "not_found",
            ContentErrorCode::Unavailable => "unavailable",
            ContentErrorCode::Busy => "busy",
            ContentErrorCode::Unauthorized => "unauthorized",
        });
    }

    /// A source gives a file of so many bytes.
    pub(crate) fn taken(&self, size: u64) {
        self.fetches.inc();
        self.fetched_bytes.inc_by(size);
    }

    fn request(&self, outcome: &'static str) {
        self.requests.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Adds them to a registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Questions for files, by what became of them; one that could not be had counts twice: \
                    what was tried, and why it failed.";
        registry.register("content_requests", help, self.requests.clone());
        let help = "Files that a controller or another broker has begun to give.";
        registry.register("content_fetches", help, self.fetches.clone());
        let help = "The bytes of these files.";
        registry.register("content_fetched_bytes", help, self.fetched_bytes.clone());
    }
}
