//! The orchestrator's metrics, for Prometheus. Who may read them is decided in `http/metrics.rs`; the names
//! are described in the orchestrator's README.
//!
//! What is counted is counted for the whole process, in [`counts`]: nothing decides by it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use daemon::metrics::{Labels, Process, SECONDS, Sheet};
use identity::Identity;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::dispatch::Status;
use crate::estate::service::ServiceError;
use crate::store::{Change, StoreError};

type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

/// The labels of a request to the API. The path is that of the endpoint, with names in the place of values.
type Request = [(&'static str, String); 3];

/// What has happened since the start.
#[derive(Debug)]
pub(crate) struct Counts {
    nodes: Family<Labels<1>, Counter>,
    jobs: Family<Labels<1>, Counter>,
    changes: Counter,
    writes: Durations<Labels<1>>,
    services: Durations<Labels<2>>,
    requests: Durations<Request>,
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
    pub(crate) fn asked<T>(
        &self,
        service: &'static str,
        took: Duration,
        result: &Result<T, ServiceError>,
    ) {
        let outcome = match result {
            Ok(_) => "answered",
            Err(ServiceError::Unreachable { .. }) => "unreachable",
            Err(ServiceError::Refused { .. }) => "refused",
            Err(ServiceError::Status { .. }) => "error",
            Err(ServiceError::Answer { .. }) => "unusable",
        };
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

/// All metrics, with what is so just now.
pub(crate) fn text(status: Status, identity: &Identity, database: &Path) -> String {
    let counts = counts();
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Process));
    let own = registry.sub_registry_with_prefix("pxp_orchestrator");
    let help = "Node runs that have ended, by how.";
    own.register("node_runs", help, counts.nodes.clone());
    let help = "Jobs, by each state that they have entered.";
    own.register("jobs", help, counts.jobs.clone());
    let help = "Changes of jobs and nodes that were written to the database; most are events.";
    own.register("changes_written", help, counts.changes.clone());
    let help = "How long the database took for a batch of changes, in seconds.";
    own.register(
        "database_write_duration_seconds",
        help,
        counts.writes.clone(),
    );
    let help = "How long services of the estate took to answer, in seconds; each try counts.";
    own.register(
        "service_request_duration_seconds",
        help,
        counts.services.clone(),
    );
    let help = "How long requests to the API took to be answered, in seconds; streams until their first byte.";
    own.register(
        "http_request_duration_seconds",
        help,
        counts.requests.clone(),
    );
    own.register_collector(Box::new(Moment {
        status,
        not_after: identity.not_after(),
        crl_next_update: identity.crl_next_update(),
        database: database.to_owned(),
    }));
    daemon::metrics::text(&registry)
}

/// What is so just now.
#[derive(Debug)]
struct Moment {
    status: Status,
    not_after: u64,
    crl_next_update: Option<u64>,
    database: PathBuf,
}

impl Collector for Moment {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut sheet = Sheet::new(encoder);
        let help = "1, with the version of this orchestrator.";
        let version = [("version", daemon::VERSION)];
        sheet.gauges("build_info", help, [(version, 1u64)])?;
        let counts = self.status.counts;
        let help = "1 while the orchestrator has a broker, else 0.";
        sheet.gauge("broker_connected", help, u64::from(counts.mesh))?;
        let help = "Nodes that are connected, as far as is known.";
        sheet.gauge("connected_nodes", help, counts.connected)?;
        sheet.gauge("active_jobs", "Jobs that have not ended.", counts.jobs)?;
        let state = |state| [("state", state)];
        sheet.gauges(
            "active_node_runs",
            "Node runs of these jobs that have not ended: waiting for their turn, sent, running.",
            [
                (state("ready"), counts.ready),
                (state("waiting"), counts.waiting),
                (state("running"), counts.running),
            ],
        )?;
        let help = "1 while the database does not take what is decided, else 0.";
        let failing = u64::from(self.status.store_error.is_some());
        sheet.gauge("database_failing", help, failing)?;
        let help = "What the database takes on the disk, with its log.";
        sheet.gauge("database_bytes", help, bytes(&self.database))?;
        let help = "When the orchestrator's certificate ends, in seconds since 1970.";
        sheet.gauge("certificate_expiry_timestamp_seconds", help, self.not_after)?;
        let Some(next) = self.crl_next_update else {
            return Ok(());
        };
        let help = "When the first revocation list is out of date, in seconds since 1970.";
        sheet.gauge("crl_next_update_timestamp_seconds", help, next)
    }
}

/// A database in its file, and what is still in the log beside it.
fn bytes(database: &Path) -> u64 {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    [database, Path::new(&log)]
        .iter()
        .filter_map(|file| fs::metadata(file).ok())
        .map(|metadata| metadata.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_takes_what_its_file_and_its_log_take() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("orchestrator.db");
        assert_eq!(bytes(&database), 0);
        fs::write(&database, "12345").unwrap();
        assert_eq!(bytes(&database), 5);
        fs::write(dir.path().join("orchestrator.db-wal"), "123").unwrap();
        assert_eq!(bytes(&database), 8);
    }
}
