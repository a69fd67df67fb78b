//! The reports of Puppet runs: a task that looks for them, and hands on what it finds. Without a place
//! to look there is none, and runs are recorded with what their agents say.

use std::sync::Arc;
use std::time::Duration;

use daemon::Tasks;
use pxp::TransactionId;
use reqwest::Url;
use tokio::sync::{Semaphore, mpsc};

use crate::controller::REPORT;
use crate::outcome::FoundReport;
use crate::puppetdb::PuppetDb;

/// How many reports are looked for at once.
const LOOKUPS: usize = 32;

/// How many runs may wait for their reports to be looked for. More are recorded without.
const QUEUE: usize = 4096;

/// Where reports are found. Looks until the report is there, or until there is no use.
pub(crate) trait ReportSource: std::fmt::Debug + Send + Sync + 'static {
    /// The report of a run, by what the agent calls it.
    fn find(
        &self,
        transaction_uuid: String,
    ) -> std::pin::Pin<Box<dyn Future<Output = Option<FoundReport>> + Send + '_>>;
}

/// PuppetDB as the place where reports are.
#[derive(Debug)]
pub(crate) struct InPuppetDb {
    pub(crate) puppetdb: Arc<PuppetDb>,
    /// Its address, for links to reports.
    pub(crate) address: Option<Url>,
}

impl ReportSource for InPuppetDb {
    fn find(
        &self,
        transaction_uuid: String,
    ) -> std::pin::Pin<Box<dyn Future<Output = Option<FoundReport>> + Send + '_>> {
        Box::pin(async move {
            let patience = Duration::from_millis(REPORT);
            let found = self
                .puppetdb
                .wait_for_report(&transaction_uuid, patience)
                .await;
            let report = match found {
                Ok(report) => report?,
                Err(error) => {
                    let error = daemon::error_chain(&error);
                    tracing::warn!(transaction_uuid, error, "report not found");
                    return None;
                }
            };
            let query = format!(r#"["=","hash","{}"]"#, report.hash);
            let url = self.address.as_ref().and_then(|address| {
                let mut url = address.join("/pdb/query/v4/reports").ok()?;
                url.query_pairs_mut().append_pair("query", &query);
                Some(url.to_string())
            });
            Some(FoundReport {
                hash: report.hash,
                url,
                configuration_version: report.configuration_version,
                environment: report.environment,
                status: report.status,
            })
        })
    }
}

/// The two ends that the dispatcher holds.
#[derive(Debug)]
pub(crate) struct ReportPort {
    /// What is looked for.
    pub(crate) wanted: mpsc::Sender<(TransactionId, String)>,
    /// What has been found, or has not.
    pub(crate) found: mpsc::Receiver<(TransactionId, Option<FoundReport>)>,
}

/// Looks for reports until shutdown.
pub(crate) fn start(source: Arc<dyn ReportSource>, tasks: &Tasks) -> ReportPort {
    let (wanted, mut to_find) = mpsc::channel::<(TransactionId, String)>(QUEUE);
    let (answer, found) = mpsc::channel(QUEUE);
    let lookups = Arc::new(Semaphore::new(LOOKUPS));
    let children = tasks.clone();
    tasks.spawn("reports", async move {
        while let Some((transaction, uuid)) = to_find.recv().await {
            let Ok(permit) = Arc::clone(&lookups).acquire_owned().await else {
                return;
            };
            let (source, answer) = (Arc::clone(&source), answer.clone());
            children.spawn("report", async move {
                let limit = Duration::from_millis(REPORT);
                let report = tokio::time::timeout(limit, source.find(uuid)).await;
                // The dispatcher is gone when the process ends.
                drop(answer.send((transaction, report.unwrap_or(None))).await);
                drop(permit);
            });
        }
    });
    ReportPort { wanted, found }
}
