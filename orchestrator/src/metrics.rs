//! The orchestrator's metrics, for Prometheus. Who may read them is decided in `http/metrics.rs`; the names
//! are described in the orchestrator's README.
//!
//! What is counted is counted for the whole process, in [`crate::counts`].

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use daemon::metrics::{Process, Sheet};
use identity::Identity;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;

use crate::counts::counts;
use crate::dispatch::Status;

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
