//! What has happened in this process since its start. Nothing is decided by it; `metrics` tells it.

use std::sync::LazyLock;
use std::time::Duration;

use daemon::metrics::{Labels, SECONDS};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use crate::store::{Change, StoreError};

type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

/// The labels of a request to the API. The path is that of the endpoint, with names in the place of values.
type Request = [(&'static str, String); 3];

/// What has happened since the start.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) nodes: Family<Labels<1>, Counter>,
    pub(crate) jobs: Family<Labels<1>, Counter>,
    pub(crate) changes: Counter,
    pub(crate) writes: Durations<Labels<1>>,
    pub(crate) services: Durations<Labels<2>>,
    pub(crate) requests: Durations<Request>,
}

static COUNTS: LazyLock<Counts> = LazyLock::new(|| Counts {
    nodes: Family::default(),
    jobs: Family::default(),
    changes: Counter::default(),
    writes: Family::new_with_constructor(histogram),
    services: Family::new_with_constructor(histogram),
    requests: Family::new_with_constructor(histogram),
});

fn histogram() -> Histogram {
    Histogram::new(SECONDS)
}

/// The counts of this process.
pub(crate) fn counts() -> &'static Counts {
    &COUNTS
}

impl Counts {
    /// Changes have been written to the database.
    pub(crate) fn written(&self, changes: &[Change]) {
        self.changes
            .inc_by(u64::try_from(changes.len()).unwrap_or(u64::MAX));
        for change in changes {
            match change {
                Change::NodeEnded { end, .. } => {
                    let labels = [("state", end.state.text())];
                    self.nodes.get_or_create(&labels).inc();
                }
                Change::JobEntered { state, .. } => {
                    let labels = [("state", state.text())];
                    self.jobs.get_or_create(&labels).inc();
                }
                Change::NodeStarted { .. }
                | Change::NodeAccepted { .. }
                | Change::NodeStopping { .. }
                | Change::NodeUnknown { .. }
                | Change::NodeLate { .. }
                | Change::NodesSeen { .. } => {}
            }
        }
    }

    /// The database has taken a batch, or has not.
    pub(crate) fn wrote(&self, took: Duration, result: &Result<(), StoreError>) {
        let outcome = if result.is_ok() { "written" } else { "failed" };
        let writes = self.writes.get_or_create(&[("outcome", outcome)]);
        writes.observe(took.as_secs_f64());
    }

    /// A service of the estate has answered, or has not.
    pub(crate) fn asked(&self, service: &'static str, outcome: &'static str, took: Duration) {
        let labels = [("service", service), ("outcome", outcome)];
        let services = self.services.get_or_create(&labels);
        services.observe(took.as_secs_f64());
    }

    /// A request to the API has got the head of its answer.
    pub(crate) fn answered(&self, method: &str, path: &str, status: u16, took: Duration) {
        let labels = [
            ("method", method.to_owned()),
            ("path", path.to_owned()),
            ("status", status.to_string()),
        ];
        let requests = self.requests.get_or_create(&labels);
        requests.observe(took.as_secs_f64());
    }
}
