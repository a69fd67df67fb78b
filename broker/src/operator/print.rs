//! Rows for a person: sorted, in columns, with a line at the end that sums up, so that ten thousand of
//! them are still of use.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use pcp::Uri;

use super::{Client, Connection};
use crate::authorize::rules::Pattern;

/// Which rows are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Certnames that fit; all, when nothing is given.
    pub certname: Option<Pattern>,
    /// This client type; all, when nothing is given.
    pub client_type: Option<String>,
}

impl Filter {
    /// Whether a client is wanted.
    #[must_use]
    pub fn wants(&self, uri: &str) -> bool {
        let Ok(uri) = uri.parse::<Uri>() else {
            return true;
        };
        let certname = self.certname.as_ref();
        certname.is_none_or(|pattern| pattern.matches(uri.certname().as_str()))
            && self
                .client_type
                .as_ref()
                .is_none_or(|wanted| uri.client_type().as_str() == wanted)
    }
}

/// Connections as a table.
#[must_use]
pub fn connections(rows: &[Connection], now: Timestamp) -> String {
    let header = [
        "CLIENT", "FROM", "SINCE", "VIA", "PCP", "SOFTWARE", "RTT", "QUEUED", "RECEIVED", "SENT",
    ];
    let cells = rows.iter().map(|row| {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            short(&row.uri).to_owned(),
            row.address.clone().unwrap_or_else(|| "dialled".to_owned()),
            or_dash(row.since.map(|since| ago(since, now))),
            row.transport.clone(),
            row.pcp_version.clone(),
            or_dash(row.software.clone()),
            or_dash(row.round_trip_ms.map(|ms| format!("{ms:.1}ms"))),
            or_dash(row.queued_bytes.map(size)),
            amount(row.received_messages, row.received_bytes),
            amount(row.sent_messages, row.sent_bytes),
        ]
    });
    let mut text = table(header, cells.collect());
    let kinds = rows.iter().map(|row| {
        let kind = row.uri.rsplit('/').next().unwrap_or_default();
        format!("{kind} over {}", row.transport)
    });
    sum_up(&mut text, rows.len(), "connections", kinds);
    text
}

/// The inventory as a table.
#[must_use]
pub fn inventory(rows: &[Client], now: Timestamp) -> String {
    let cells = rows.iter().map(|row| {
        [
            short(&row.uri).to_owned(),
            row.broker.clone(),
            row.since
                .map_or_else(|| "-".to_owned(), |since| ago(since, now)),
        ]
    });
    let mut text = table(["CLIENT", "BROKER", "SINCE"], cells.collect());
    let brokers = rows.iter().map(|row| format!("at {}", row.broker));
    sum_up(&mut text, rows.len(), "clients", brokers);
    text
}

fn short(uri: &str) -> &str {
    uri.strip_prefix("pcp://").unwrap_or(uri)
}

fn table<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut widths = header.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let lines = std::iter::once(header.map(str::to_owned)).chain(rows);
    for cells in lines {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            // Writing to a string does not fail.
            write!(line, "{cell:<width$}  ").unwrap_or_default();
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `3 clients: 2 at primary, 1 at compiler-1`, the most frequent first.
fn sum_up(text: &mut String, count: usize, what: &str, kinds: impl Iterator<Item = String>) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for kind in kinds {
        *counts.entry(kind).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let counts: Vec<_> = counts
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    let colon = if counts.is_empty() { "" } else { ": " };
    writeln!(text, "{count} {what}{colon}{}", counts.join(", ")).unwrap_or_default();
}

/// In the two largest units: `3d 4h`, `5m 6s`.
fn ago(since: Timestamp, now: Timestamp) -> String {
    let past = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    let seconds = past.as_secs();
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m {rest}s"),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

fn amount(messages: u64, bytes: u64) -> String {
    format!("{messages} ({})", size(bytes))
}

fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, name) in UNITS {
        if bytes >= unit {
            return format!("{}.{}{name}", bytes / unit, bytes % unit * 10 / unit);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn connection(uri: &str) -> Connection {
        Connection {
            uri: uri.to_owned(),
            address: Some("10.0.0.1:4711".to_owned()),
            since: Some(at(1000)),
            transport: "quic".to_owned(),
            pcp_version: "quic/1".to_owned(),
            software: Some("pxp-agent/0.1.0".to_owned()),
            round_trip_ms: Some(0.25),
            queued_bytes: Some(1536),
            received_messages: 2,
            received_bytes: 800,
            sent_messages: 1,
            sent_bytes: 3 << 20,
        }
    }

    #[test]
    fn connections_stand_in_columns_and_are_summed_up() {
        let rows = [
            connection("pcp://a/agent"),
            connection("pcp://long-name/agent"),
        ];
        let text = connections(&rows, at(1000 + 3725));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[1],
            "a/agent          10.0.0.1:4711  1h 2m  quic  quic/1  pxp-agent/0.1.0  0.2ms  1.5KiB  \
             2 (800B)  1 (3.0MiB)"
        );
        assert_eq!(lines[0].find("FROM"), lines[1].find("10.0.0.1"));
        assert_eq!(lines[3], "2 connections: 2 agent over quic");
    }

    #[test]
    fn the_inventory_says_where_each_client_is() {
        let client = |name: &str, broker: &str| Client {
            uri: format!("pcp://{name}/agent"),
            broker: broker.to_owned(),
            since: Some(at(0)),
        };
        let rows = [client("a", "one"), client("b", "two"), client("c", "two")];
        let text = inventory(&rows, at(90_000));
        assert!(text.contains("\nb/agent  two     1d 1h\n"), "{text}");
        assert!(text.ends_with("3 clients: 2 at two, 1 at one\n"), "{text}");
        assert_eq!(inventory(&[], at(0)), "CLIENT  BROKER  SINCE\n0 clients\n");
    }

    #[test]
    fn rows_are_filtered_by_certname_and_type() {
        let filter = Filter {
            certname: Some("web*".parse().expect("a pattern")),
            client_type: Some("agent".to_owned()),
        };
        assert!(filter.wants("pcp://web1/agent"));
        assert!(!filter.wants("pcp://db1/agent"));
        assert!(!filter.wants("pcp://web1/controller"));
        assert!(Filter::default().wants("pcp://db1/agent"));
    }
}
