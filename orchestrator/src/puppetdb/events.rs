//! What Puppet runs did to resources: the events of reports that PuppetDB holds.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{PuppetDb, PuppetDbError, Query};

/// How many reports one query is about: its text stays below what servers take in one request.
const REPORTS: usize = 200;

/// How many events are handed on for all reports together. A run that changes everything has some
/// thousands.
const MAX_EVENTS: usize = 100_000;

/// What is told of an event.
const FIELDS: [&str; 13] = [
    "report",
    "timestamp",
    "status",
    "resource_type",
    "resource_title",
    "property",
    "name",
    "old_value",
    "new_value",
    "message",
    "corrective_change",
    "file",
    "line",
];

/// One event; what is not needed here stays as it came.
#[derive(Debug, Deserialize)]
struct Row {
    report: String,
    #[serde(flatten)]
    event: Map<String, Value>,
}

impl PuppetDb {
    /// The events of reports, by the reports' hashes.
    ///
    /// # Errors
    /// [`PuppetDbError`]; also when there are more than is handed on.
    pub(crate) async fn events(
        &self,
        reports: &[String],
    ) -> Result<HashMap<String, Vec<Value>>, PuppetDbError> {
        let mut events: HashMap<String, Vec<Value>> = HashMap::new();
        let mut count = 0;
        for some in reports.chunks(REPORTS) {
            let tree = json!([
                "from",
                "events",
                ["extract", FIELDS, ["in", "report", ["array", some]]],
                ["order_by", ["timestamp"]]
            ]);
            self.rows(&Query::Ast(tree), |row: Row| {
                count += 1;
                if count > MAX_EVENTS {
                    let msg = format!("the reports have more than {MAX_EVENTS} events");
                    return Err(PuppetDbError::Query(msg));
                }
                events
                    .entry(row.report)
                    .or_default()
                    .push(Value::Object(row.event));
                Ok(())
            })
            .await?;
        }
        Ok(events)
    }
}
