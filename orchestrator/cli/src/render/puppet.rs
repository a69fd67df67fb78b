//! A Puppet run's end in words, and its counts.

use orchestrator_api::Node;
use serde_json::{Map, Value, json};

use crate::printable::printable;

/// What became of the resources of a run: a resource is counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    total: u64,
    failed: u64,
    changed: u64,
    skipped: u64,
    /// What would have been changed.
    noop: u64,
}

impl Counts {
    /// Those of a result; nothing when it has no counts.
    pub(crate) fn of(result: &Map<String, Value>) -> Option<Self> {
        let metrics = result.get("metrics")?.as_object()?;
        if metrics.is_empty() {
            return None;
        }
        // Puppet writes some whole numbers as floats.
        let count = |name: &str| {
            let number = metrics.get(name)?;
            number
                .as_u64()
                .or_else(|| format!("{:.0}", number.as_f64()?).parse().ok())
        };
        let count = |name: &str| count(name).unwrap_or_default();
        let (failed, changed) = (count("failed"), count("changed"));
        Some(Self {
            total: count("total"),
            failed,
            changed,
            skipped: count("skipped"),
            noop: count("out_of_sync").saturating_sub(failed + changed),
        })
    }

    /// What needed nothing.
    fn unchanged(self) -> u64 {
        self.total
            .saturating_sub(self.failed + self.changed + self.skipped + self.noop)
    }

    /// The keys that programs around the original read.
    pub(crate) fn document(self) -> Value {
        json!({"failed": self.failed, "changed": self.changed, "skipped": self.skipped,
            "unchanged": self.unchanged(), "noop": self.noop})
    }

    fn words(self) -> String {
        let parts = [
            (self.failed, "failed"),
            (self.changed, "changed"),
            (self.noop, "noop"),
            (self.skipped, "skipped"),
            (self.unchanged(), "unchanged"),
        ];
        let parts: Vec<String> = parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        parts.join(", ")
    }
}

/// What a run came to, in one line: equal for nodes where the same happened.
pub(super) fn write_status(body: &mut String, result: &Map<String, Value>) {
    let status = result.get("status").and_then(Value::as_str);
    body.push_str(&format!(
        "  Status: {}\n",
        printable(status.unwrap_or("unknown"))
    ));
    if let Some(counts) = Counts::of(result) {
        body.push_str(&format!("  Resources: {}\n", counts.words()));
    }
}

/// What is a node's own: what to look the run up by.
pub(super) fn write_references(body: &mut String, node: &Node, result: &Map<String, Value>) {
    let text = |key: &str| result.get(key).and_then(Value::as_str);
    let report = node.details.get("report-url").and_then(Value::as_str);
    for (name, value) in [
        ("Environment", text("environment")),
        ("Configuration version", text("configuration_version")),
        ("Transaction", node.transaction_uuid.as_deref()),
        ("Report", report),
    ] {
        if let Some(value) = value {
            body.push_str(&format!("  {name}: {}\n", printable(value)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_resource_is_counted_once() {
        let result = json!({"metrics": {"total": 20, "changed": 2.0, "failed": 1, "skipped": 3,
            "out_of_sync": 7, "restarted": 9}});
        let counts = Counts::of(result.as_object().unwrap()).unwrap();
        assert_eq!(
            counts.document(),
            json!({"failed": 1, "changed": 2, "skipped": 3, "unchanged": 10, "noop": 4})
        );
        assert_eq!(
            counts.words(),
            "1 failed, 2 changed, 4 noop, 3 skipped, 10 unchanged"
        );
        for without in [json!({}), json!({"metrics": {}}), json!({"metrics": null})] {
            assert_eq!(Counts::of(without.as_object().unwrap()), None, "{without}");
        }
    }
}
