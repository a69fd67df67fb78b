//! Reports of Puppet runs: what became of a run that an agent calls by its transaction.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{PuppetDb, PuppetDbError, Query};

/// How often a report is looked for that is not there yet: it reaches PuppetDB through a queue,
/// mostly within a second after the run.
const PAUSE: Duration = Duration::from_millis(500);

/// The longest pause, for a queue that is long.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The report of a Puppet run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Report {
    /// Its name in PuppetDB.
    pub(crate) hash: String,
    /// `changed`, `unchanged` or `failed`.
    pub(crate) status: Option<String>,
    /// Whether the run was a noop run.
    pub(crate) noop: Option<bool>,
    /// Whether it left changes to be made.
    pub(crate) noop_pending: Option<bool>,
    /// Where the catalog came from.
    pub(crate) environment: Option<String>,
    /// Which state of the code the catalog was made of.
    pub(crate) configuration_version: Option<String>,
    /// The job that it is part of.
    pub(crate) job_id: Option<String>,
    /// Counts of resources by what became of them.
    #[serde(rename = "metrics", default, deserialize_with = "resources")]
    pub(crate) resources: BTreeMap<String, u64>,
}

impl PuppetDb {
    /// The report of a run; nothing while there is none.
    ///
    /// # Errors
    /// [`PuppetDbError`].
    pub(crate) async fn report(
        &self,
        transaction_uuid: &str,
    ) -> Result<Option<Report>, PuppetDbError> {
        let fields = [
            "hash",
            "status",
            "noop",
            "noop_pending",
            "environment",
            "configuration_version",
            "job_id",
            "metrics",
        ];
        let tree = json!([
            "from",
            "reports",
            [
                "extract",
                fields,
                ["=", "transaction_uuid", transaction_uuid]
            ]
        ]);
        let mut found = None;
        self.rows(&Query::Ast(tree), |report: Report| {
            found = Some(report);
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// The report of a run that has just ended: looked for until it is there or `patience` is over.
    /// A PuppetDB that does not answer meanwhile is asked again.
    ///
    /// # Errors
    /// [`PuppetDbError`] when the last look failed.
    pub(crate) async fn wait_for_report(
        &self,
        transaction_uuid: &str,
        patience: Duration,
    ) -> Result<Option<Report>, PuppetDbError> {
        let end = Instant::now() + patience;
        let mut pause = PAUSE;
        loop {
            let found = self.report(transaction_uuid).await;
            match found {
                Ok(None) | Err(PuppetDbError::Service(_)) if Instant::now() + pause < end => {
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                found => return found,
            }
        }
    }
}

/// The metrics of the category `resources`. PuppetDB wraps them in `{data, href}`.
fn resources<'de, D>(deserializer: D) -> Result<BTreeMap<String, u64>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let value = Value::deserialize(deserializer)?;
    let list = value.get("data").unwrap_or(&value).as_array();
    let metric = |metric: &Value| {
        let resource = metric.get("category")? == "resources";
        let name = metric.get("name")?.as_str()?.to_owned();
        let count = metric.get("value")?;
        // Some versions write whole numbers as floats.
        let count = count
            .as_u64()
            .or_else(|| format!("{:.0}", count.as_f64()?).parse().ok())?;
        resource.then_some((name, count))
    };
    Ok(list.into_iter().flatten().filter_map(metric).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_resources() {
        let report: Report = serde_json::from_value(json!({
            "hash": "2e60", "status": "changed", "noop": false, "noop_pending": null,
            "environment": "production", "configuration_version": "17", "job_id": null,
            "metrics": {"data": [
                {"name": "changed", "value": 1, "category": "resources"},
                {"name": "total", "value": 8.0, "category": "resources"},
                {"name": "total", "value": 1.5, "category": "time"},
            ], "href": "/pdb"},
        }))
        .unwrap();
        let expected = [("changed".to_owned(), 1), ("total".to_owned(), 8)];
        assert_eq!(report.resources, BTreeMap::from(expected));
    }
}
