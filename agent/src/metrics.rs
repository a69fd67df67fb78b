//! The agent's metrics, for Prometheus. An agent listens on nothing, so it writes them into a file that
//! node_exporter's textfile collector reads (`metrics-file`). The names are described in the agent's
//! README.
//!
//! What is counted is counted for the whole process, in [`counts`]: nothing decides by it.

use std::fmt;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daemon::metrics::{Labels, Process, Sheet};
use identity::Current;
use pcp_client::{ClientHandle, State};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::disk::{Disk, Room, measure};
use crate::transaction::Outcome;

/// How often the file is written: as often as Prometheus commonly looks.
const INTERVAL: Duration = Duration::from_secs(15);

/// Whoever collects is another user than the agent.
const FILE_MODE: u32 = 0o644;

/// The upper bounds, in seconds, of the buckets for what runs on a node: from a short script to a long
/// Puppet run.
const SECONDS: [f64; 12] = [
    0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1200.0, 3600.0,
];

/// What has happened since the start.
#[derive(Debug)]
pub struct Counts {
    requests: Family<Labels<1>, Counter>,
    transactions: Family<Labels<1>, Histogram, fn() -> Histogram>,
    connections: Counter,
}

static COUNTS: LazyLock<Counts> = LazyLock::new(|| Counts {
    requests: Family::default(),
    transactions: Family::new_with_constructor(|| Histogram::new(SECONDS)),
    connections: Counter::default(),
});

/// The counts of this process.
#[must_use]
pub fn counts() -> &'static Counts {
    &COUNTS
}

impl Counts {
    /// A session with a broker was opened.
    pub fn connected(&self) {
        self.connections.inc();
    }

    /// The policy lets a request pass.
    pub fn allowed(&self) {
        self.request("allowed");
    }

    /// The policy does not.
    pub fn refused(&self) {
        self.request("refused");
    }

    /// Its sender is none of our controllers.
    pub fn not_a_controller(&self) {
        self.request("not_a_controller");
    }

    fn request(&self, outcome: &'static str) {
        self.requests.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// A transaction has ended, so long after it was accepted.
    pub fn ended(&self, outcome: &Outcome, took: Duration) {
        let outcome = match outcome {
            Outcome::Ran(ran) if ran.exitcode == 0 => "succeeded",
            Outcome::Ran(_) => "failed",
            Outcome::Failed(_) => "not_run",
        };
        let transactions = self.transactions.get_or_create(&[("outcome", outcome)]);
        transactions.observe(took.as_secs_f64());
    }
}

/// Writes metrics into a file.
#[derive(Debug)]
pub struct Writer {
    /// The file.
    pub file: PathBuf,
    /// The connection to the broker.
    pub client: ClientHandle,
    /// Our certificate.
    pub identity: Arc<Current>,
    /// Where transactions lie.
    pub spool: PathBuf,
    /// Where task files lie.
    pub cache: PathBuf,
    /// Where blocking work is done.
    pub disk: Disk,
}

impl Writer {
    /// Writes again and again until the shutdown, and then once more.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = false;
        loop {
            let end = tokio::select! {
                biased;
                () = shutdown.cancelled() => true,
                _ = ticks.tick() => false,
            };
            let written = self.write(!end).await;
            match written {
                Err(error) if !told => {
                    told = true;
                    tracing::warn!(file = %self.file.display(), %error, "metrics cannot be written");
                }
                Err(_) => {}
                Ok(()) => told = false,
            }
            if end {
                return;
            }
        }
    }

    async fn write(&self, running: bool) -> io::Result<()> {
        let connected = matches!(*self.client.state().borrow(), State::Connected { .. });
        let identity = self.identity.get();
        let moment = Moment {
            connected: running && connected,
            spool: self.spool.clone(),
            cache: self.cache.clone(),
            not_after: identity.not_after(),
            crl_next_update: identity.crl_next_update(),
        };
        let file = self.file.clone();
        let work = move || write(&file, &text(moment));
        self.disk.run(work).await.map_err(io::Error::other)?
    }
}

/// All metrics. Blocks.
fn text(moment: Moment) -> String {
    let counts = counts();
    let mut registry = Registry::default();
    // node_exporter has metrics of these names of its own, so ours have a prefix.
    let own = registry.sub_registry_with_prefix("pxp_agent");
    own.register_collector(Box::new(Process));
    let help = "Sessions with a broker that were opened.";
    own.register("connections", help, counts.connections.clone());
    let help = "Requests to run something, by what was decided.";
    own.register("requests", help, counts.requests.clone());
    let help = "From the acceptance of a transaction to its end, in seconds, by how it ended.";
    own.register(
        "transaction_duration_seconds",
        help,
        counts.transactions.clone(),
    );
    own.register_collector(Box::new(moment));
    daemon::metrics::text(&registry)
}

/// What is so just now.
#[derive(Debug)]
struct Moment {
    connected: bool,
    spool: PathBuf,
    cache: PathBuf,
    not_after: u64,
    crl_next_update: Option<u64>,
}

impl Collector for Moment {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut sheet = Sheet::new(encoder);
        let help = "1, with the version of this agent.";
        let version = [("version", daemon::VERSION)];
        sheet.gauges("build_info", help, [(version, 1u64)])?;
        let help = "1 while the agent has a session with a broker, else 0.";
        sheet.gauge("connected", help, u64::from(self.connected))?;
        let help =
            "When this was written, in seconds since 1970: an agent that is dead writes no more.";
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        sheet.gauge(
            "written_timestamp_seconds",
            help,
            now.unwrap_or_default().as_secs(),
        )?;
        let help = "What transactions take on the disk.";
        sheet.gauge("spool_bytes", help, measure(&self.spool).0)?;
        let help = "What task files take on the disk.";
        sheet.gauge("task_cache_bytes", help, measure(&self.cache).0)?;
        if let Ok(room) = Room::of(&self.spool) {
            let help = "What is free on the disk of the spool.";
            sheet.gauge("spool_free_bytes", help, room.bytes)?;
        }
        let help = "When the agent's certificate ends, in seconds since 1970.";
        sheet.gauge("certificate_expiry_timestamp_seconds", help, self.not_after)?;
        let Some(next) = self.crl_next_update else {
            return Ok(());
        };
        let help = "When the first revocation list is out of date, in seconds since 1970.";
        sheet.gauge("crl_next_update_timestamp_seconds", help, next)
    }
}

/// Puts a whole file in the place of the one before. The collector reads files of this ending only, so it
/// never sees half of one.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let part = file.with_extension("part");
    let mut output = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(&part)?;
    output.write_all(text.as_bytes())?;
    // Whatever the agent's umask takes away.
    output.set_permissions(Permissions::from_mode(FILE_MODE))?;
    fs::rename(&part, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(dir: &Path) -> Moment {
        Moment {
            connected: true,
            spool: dir.to_owned(),
            cache: dir.to_owned(),
            not_after: 7,
            crl_next_update: None,
        }
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_readable_for_all() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pxp-agent.prom");
        for _ in 0..2 {
            write(&file, &text(moment(dir.path()))).unwrap();
        }
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, FILE_MODE);
        let text = fs::read_to_string(&file).unwrap();
        for line in [
            "pxp_agent_connected 1",
            "# TYPE pxp_agent_connections_total counter",
            "pxp_agent_certificate_expiry_timestamp_seconds 7",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}: {text}");
        }
        // node_exporter knows these types and no others.
        for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
            let kind = line.rsplit(' ').next().unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        assert!(write(Path::new("/no/such/directory/x.prom"), "").is_err());
    }
}
