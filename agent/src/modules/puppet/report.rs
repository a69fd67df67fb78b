//! What is read of Puppet's last run report: a few lines of a YAML file that Puppet wrote, and that may
//! have a hundred megabytes of logs and resources around them. It is read as a stream and never held.
//!
//! No YAML in general: the keys of the report begin in the first column, and nothing else does but the
//! items of a list that is one of their values (`- `) and the marks of a document. That is how Puppet's
//! YAML library writes every document, whatever stands in it. Ruby's tags (`!ruby/object:…`) are passed
//! over.

use std::io::{self, BufRead, Read};

use serde_json::{Map, Number, Value};

/// The longest line that is kept. The values that count are far shorter; the rest of a longer line is
/// passed over.
const MAX_LINE: usize = 4096;

/// The largest report that is read. Puppet itself needs gigabytes of memory for a larger one.
const MAX_REPORT: u64 = 1 << 30;

/// The most metrics that are taken. There are nine.
const MAX_METRICS: usize = 64;

/// What counts of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// When the run began.
    pub time: String,
    /// The run's id.
    pub transaction_uuid: String,
    /// The environment that it ran in.
    pub environment: String,
    /// `changed`, `unchanged` or `failed`.
    pub status: String,
    /// The job that it was asked for by, if it says so.
    pub job_id: Option<String>,
    /// How many resources were changed, failed and so on.
    pub metrics: Map<String, Value>,
}

/// Why a report cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It is too large.
    #[error("it has more than {MAX_REPORT} bytes")]
    TooLarge,
    /// What must be there is not.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// A value is not written as Puppet writes it.
    #[error("the value of {key} in line {line} cannot be read")]
    Value {
        /// The key.
        key: &'static str,
        /// Counted from 1.
        line: usize,
    },
}

/// Reads a report.
///
/// # Errors
/// [`ReportError`] when it is none.
pub fn read(source: impl Read) -> Result<Report, ReportError> {
    let mut lines = Lines::new(source);
    let mut found = Found::default();
    while let Some((number, line)) = lines.next()? {
        found.line(number, line)?;
    }
    let Found { texts, metrics, .. } = found;
    let [time, transaction_uuid, environment, status, job_id] = texts;
    let needed = |text: Option<String>, key| text.ok_or(ReportError::Missing(key));
    Ok(Report {
        time: needed(time, "time")?,
        transaction_uuid: needed(transaction_uuid, "transaction_uuid")?,
        environment: needed(environment, "environment")?,
        status: needed(status, "status")?,
        job_id,
        metrics,
    })
}

/// The texts of the first column that count.
const KEYS: [&str; 5] = [
    "time",
    "transaction_uuid",
    "environment",
    "status",
    "job_id",
];

/// Where a line stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    #[default]
    Elsewhere,
    /// Below `metrics`.
    Metrics,
    /// Below `resources` of it.
    Resources,
    /// Below `values` of that.
    Values,
}

#[derive(Default)]
struct Found {
    texts: [Option<String>; 5],
    metrics: Map<String, Value>,
    place: Place,
    /// The elements of a metric so far: its name, its label.
    metric: Vec<String>,
}

impl Found {
    fn line(&mut self, number: usize, line: &str) -> Result<(), ReportError> {
        let text = line.trim_start_matches(' ');
        match (line.len() - text.len(), self.place) {
            (0, _) if text.is_empty() || text.starts_with("- ") => Ok(()),
            (0, _) => self.key(number, text),
            (2, Place::Metrics | Place::Resources | Place::Values) => {
                self.place = match key_of(text) {
                    Some(("resources", _)) => Place::Resources,
                    _ => Place::Metrics,
                };
                Ok(())
            }
            (4, Place::Resources | Place::Values) if !text.starts_with('-') => {
                self.place = match key_of(text) {
                    Some(("values", _)) => Place::Values,
                    _ => Place::Resources,
                };
                Ok(())
            }
            (_, Place::Values) => self.metric(number, text),
            _ => Ok(()),
        }
    }

    fn key(&mut self, number: usize, text: &str) -> Result<(), ReportError> {
        self.place = Place::Elsewhere;
        let Some((key, value)) = key_of(text) else {
            return Ok(());
        };
        if key == "metrics" {
            self.place = Place::Metrics;
        }
        for (known, place) in KEYS.iter().zip(&mut self.texts) {
            if key == *known && !matches!(value, "" | "null" | "~") {
                let text = scalar(value).ok_or(ReportError::Value {
                    key: known,
                    line: number,
                })?;
                *place = Some(text);
            }
        }
        Ok(())
    }

    /// A line of a list of lists: `- - total`, `  - Total`, `  - 9`.
    fn metric(&mut self, number: usize, text: &str) -> Result<(), ReportError> {
        let wrong = || ReportError::Value {
            key: "metrics",
            line: number,
        };
        let element = match text.strip_prefix("- - ") {
            Some(first) => {
                self.metric.clear();
                first
            }
            None => text.strip_prefix("- ").ok_or_else(wrong)?,
        };
        let element = scalar(element).ok_or_else(wrong)?;
        match self.metric.as_slice() {
            [name, _label] => {
                if self.metrics.len() >= MAX_METRICS {
                    return Err(wrong());
                }
                let value = element.parse::<u64>().ok().map(Number::from);
                let value = value.or_else(|| Number::from_f64(element.parse().ok()?));
                let value = value.ok_or_else(wrong)?;
                self.metrics.insert(name.clone(), Value::Number(value));
                self.metric.clear();
            }
            _ => self.metric.push(element),
        }
        Ok(())
    }
}

/// `key: value`, without a tag before the value.
fn key_of(text: &str) -> Option<(&str, &str)> {
    let (key, value) = text.split_once(':')?;
    let value = value.trim();
    let value = match value.strip_prefix('!') {
        Some(tagged) => tagged.split_once(' ').map_or("", |(_, value)| value),
        None => value,
    };
    // A Ruby symbol where other versions have a text.
    Some((key.trim_matches(['"', '\'']), value))
}

/// A scalar of one line; nothing when it is not one.
fn scalar(text: &str) -> Option<String> {
    let text = text.trim();
    match text.as_bytes() {
        []
        | [
            b'|' | b'>' | b'&' | b'*' | b'[' | b'{' | b'%' | b'@' | b'`',
            ..,
        ] => None,
        [b'\'', inner @ .., b'\''] => {
            let inner = str::from_utf8(inner).ok()?;
            Some(inner.replace("''", "'"))
        }
        // What JSON does not know of YAML's escapes is in none of these values.
        [b'"', ..] => serde_json::from_str(text).ok(),
        [b'\'', ..] => None,
        // A symbol, in reports of older versions.
        [b':', ..] => text.strip_prefix(':').map(str::to_owned),
        _ => Some(text.to_owned()),
    }
}

/// Lines of bounded length from a source of bounded length.
struct Lines<R: Read> {
    source: io::BufReader<io::Take<R>>,
    line: Vec<u8>,
    text: String,
    number: usize,
}

impl<R: Read> Lines<R> {
    fn new(source: R) -> Self {
        Self {
            source: io::BufReader::with_capacity(64 * 1024, source.take(MAX_REPORT)),
            line: Vec::new(),
            text: String::new(),
            number: 0,
        }
    }

    fn next(&mut self) -> Result<Option<(usize, &str)>, ReportError> {
        self.line.clear();
        let mut any = false;
        loop {
            let chunk = match self.source.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ReportError::Read(error)),
            };
            if chunk.is_empty() {
                break;
            }
            any = true;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let piece = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            let room = MAX_LINE.saturating_sub(self.line.len());
            self.line
                .extend_from_slice(piece.get(..room).unwrap_or(piece));
            let taken = end.map_or(chunk.len(), |end| end + 1);
            self.source.consume(taken);
            if end.is_some() {
                break;
            }
        }
        if !any {
            let cut_off = self.source.get_ref().limit() == 0;
            return if cut_off {
                Err(ReportError::TooLarge)
            } else {
                Ok(None)
            };
        }
        self.number += 1;
        self.text = String::from_utf8_lossy(&self.line).into_owned();
        Ok(Some((self.number, self.text.trim_end_matches('\r'))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            read(bytes.as_slice()).ok();
        }

        #[test]
        fn a_damaged_report_is_read_or_refused_and_what_is_read_is_not_more_than_was_written(
            at in 0..REPORT.len(), cut in 0..40_usize,
            insert in "[-:'\"a0 \n|>&*!\\[{]{0,12}",
        ) {
            let mut bytes = REPORT.as_bytes().to_vec();
            bytes.splice(at..(at + cut).min(REPORT.len()), insert.bytes());
            if let Ok(report) = read(bytes.as_slice()) {
                prop_assert!(report.metrics.len() <= MAX_METRICS);
                for text in [&report.time, &report.transaction_uuid, &report.environment] {
                    prop_assert!(text.len() <= bytes.len());
                }
            }
        }
    }

    /// What Puppet 7.23 wrote, shortened; the texts of logs are chosen to mislead.
    const REPORT: &str = r#"--- !ruby/object:Puppet::Transaction::Report
host: web1
time: '2026-11-29T07:58:51.307761610+00:00'
configuration_version: 1795939130
transaction_uuid: 3469c1ac-400b-4e46-90f6-0dac480c7fd0
job_id: '12'
report_format: 12
status: changed
noop: false
environment: production
logs:
- level: notice
  message: |
    status: failed
    metrics:

    transaction_uuid: other
  source: Puppet
- level: notice
  message: 'environment: "y" — é
    status: failed'
metrics:
  time:
    name: time
    values:
    - - total
      - Total
      - 5.7608e-05
  resources:
    name: resources
    label: Resources
    values:
    - - total
      - Total
      - 9
    - - failed_to_restart
      - "Failed to restart"
      - 0
  events:
    name: events
    values:
    - - total
      - Total
      - 2
resource_statuses:
  Notify[x]:
    title: x
    status: failed
corrective_change: false
"#;

    #[test]
    fn a_report_is_read_whatever_stands_around_what_counts() {
        let report = read(REPORT.as_bytes()).unwrap();
        assert_eq!(
            report,
            Report {
                time: "2026-11-29T07:58:51.307761610+00:00".to_owned(),
                transaction_uuid: "3469c1ac-400b-4e46-90f6-0dac480c7fd0".to_owned(),
                environment: "production".to_owned(),
                status: "changed".to_owned(),
                job_id: Some("12".to_owned()),
                metrics: json!({"total": 9, "failed_to_restart": 0})
                    .as_object()
                    .unwrap()
                    .clone(),
            }
        );
    }

    #[test]
    fn reports_of_older_versions_have_tags_symbols_and_plain_times() {
        let old = "--- !ruby/object:Puppet::Transaction::Report\nmetrics:\n  resources: \
                   !ruby/object:Puppet::Util::Metric\n    name: resources\n    values:\n    - - \
                   total\n      - Total\n      - 183\n    - - changed\n      - Changed\n      - \
                   1.5\nlogs:\n- !ruby/object:Puppet::Util::Log\n  level: :info\ntime: 2016-02-24 \
                   23:07:21.694017000 +00:00\ntransaction_uuid: 691f00ee\nenvironment: !ruby/sym \
                   dev\nstatus: :unchanged\njob_id:\n";
        let report = read(old.as_bytes()).unwrap();
        assert_eq!(report.time, "2016-02-24 23:07:21.694017000 +00:00");
        assert_eq!(report.environment, "dev");
        assert_eq!(report.status, "unchanged");
        assert_eq!(report.job_id, None);
        assert_eq!(
            Value::Object(report.metrics),
            json!({"total": 183, "changed": 1.5})
        );
    }

    #[test]
    fn what_is_no_report_is_an_error_that_says_what_is_missing() {
        let why = |text: &str| read(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(why(""), "it has no time");
        assert_eq!(why("\u{0}\u{1}\n---\n[]"), "it has no time");
        assert_eq!(
            why("time: [1, 2]"),
            "the value of time in line 1 cannot be read"
        );
        let cut = REPORT.split("environment").next().unwrap();
        assert_eq!(why(cut), "it has no environment");
        let metric = "metrics:\n  resources:\n    values:\n    - - total\n      - Total\n      - x";
        assert_eq!(why(metric), "the value of metrics in line 6 cannot be read");
        assert!(read(&b"time: \xff\xfe\nstatus: \"\\x\"\n"[..]).is_err());
    }

    #[test]
    fn a_huge_report_is_passed_over_without_being_held() {
        let mut text = REPORT.replace("title: x", &format!("title: {}", "x".repeat(3_000_000)));
        for index in 0..200_000 {
            text.push_str("  - changed: one more line of a resource\n");
            if index % 50_000 == 0 {
                text.push_str(&"y".repeat(100_000));
                text.push('\n');
            }
        }
        let mut lines = Lines::new(text.as_bytes());
        while lines.next().unwrap().is_some() {
            assert!(lines.line.len() <= MAX_LINE);
        }
        assert_eq!(read(text.as_bytes()).unwrap().status, "changed");
        let endless = io::repeat(b'\n');
        let mut lines = Lines::new(endless);
        lines.source = io::BufReader::new(io::repeat(b'\n').take(3));
        while let Ok(Some(_)) = lines.next() {}
        assert!(matches!(lines.next(), Err(ReportError::TooLarge)));
    }
}
