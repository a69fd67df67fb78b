//! Metrics, as Prometheus reads them: text format 0.0.4, which node_exporter's textfile collector takes
//! too. A daemon counts in `prometheus-client`'s own types; what is a matter of the moment is written
//! down when somebody looks, through a [`Sheet`]. [`Process`] is what every daemon says of itself.

use std::fmt;
use std::fs;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, NoLabelSet,
    prometheus_text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// The `Content-Type` of [`text`].
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// Labels whose names and values are words of the program: what peers send never becomes one, so the
/// number of series is bounded.
pub type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The upper bounds, in seconds, of the buckets for anything that a network or a disk has to do with:
/// from half a millisecond to half a minute.
pub const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];

/// Everything that a registry holds, as text.
#[must_use]
pub fn text(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a string does not fail, and our own collectors do only if it does.
    prometheus_text::encode(&mut text, registry).unwrap_or_default();
    text
}

/// Metrics that are written at the moment of the look, one after the other.
#[derive(Debug)]
pub struct Sheet<'a>(DescriptorEncoder<'a>);

impl<'a> Sheet<'a> {
    /// A sheet of a [`Collector`].
    #[must_use]
    pub fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    /// A value of the moment.
    ///
    /// # Errors
    /// When it cannot be written, as of all these.
    pub fn gauge(
        &mut self,
        name: &str,
        help: &str,
        value: impl EncodeGaugeValue + Copy,
    ) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&value)
    }

    /// The same, for each of several labels.
    ///
    /// # Errors
    /// [`fmt::Error`].
    pub fn gauges<L, V>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result
    where
        L: EncodeLabelSet,
        V: EncodeGaugeValue,
    {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// A number that only grows. `_total` is added to its name.
    ///
    /// # Errors
    /// [`fmt::Error`].
    pub fn counter<V>(&mut self, name: &str, help: &str, value: V) -> fmt::Result
    where
        V: EncodeCounterValue + Copy,
    {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, V, u64>(&value, None)
    }

    /// The same, for each of several labels.
    ///
    /// # Errors
    /// [`fmt::Error`].
    pub fn counters<L, V>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result
    where
        L: EncodeLabelSet,
        V: EncodeCounterValue,
    {
        let mut family = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            let mut metric = family.encode_family(&labels)?;
            metric.encode_counter::<NoLabelSet, V, u64>(&value, None)?;
        }
        Ok(())
    }
}

/// The process itself, under the names that all of Prometheus's own clients use. What `/proc` does not
/// tell is left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut sheet = Sheet::new(encoder);
        if let Some(stat) = read("/proc/self/stat").as_deref().and_then(Stat::parse) {
            sheet.counter(
                "process_cpu_seconds",
                "CPU time of this process, user and system.",
                stat.cpu.as_secs_f64(),
            )?;
            if let Some(boot) = boot_time() {
                let start = (boot + stat.start).as_secs_f64();
                let help = "When this process started, in seconds since 1970.";
                sheet.gauge("process_start_time_seconds", help, start)?;
            }
        }
        if let Some(bytes) = read("/proc/self/status").as_deref().and_then(resident) {
            let help = "Memory of this process that is resident.";
            sheet.gauge("process_resident_memory_bytes", help, bytes)?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            let help = "File descriptors that are open.";
            // One of them is the look itself.
            let open = open.count().saturating_sub(1);
            sheet.gauge("process_open_fds", help, open)?;
        }
        if let Some(most) = read("/proc/self/limits").as_deref().and_then(max_fds) {
            let help = "How many file descriptors may be open.";
            sheet.gauge("process_max_fds", help, most)?;
        }
        Ok(())
    }
}

/// What is of use in `/proc/self/stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu: Duration,
    /// After the boot.
    start: Duration,
}

/// The unit of times in `/proc`, which for programs is the same on all machines.
const TICKS_PER_SECOND: u32 = 100;

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is a name in brackets, which may hold anything.
        let (_, rest) = text.rsplit_once(')')?;
        let ticks = |at: usize| -> Option<Duration> {
            let ticks: u64 = rest.split_whitespace().nth(at)?.parse().ok()?;
            Some(Duration::from_millis(ticks * 1000) / TICKS_PER_SECOND)
        };
        // Fields 14, 15 and 22 of the manual; the third is our first.
        Some(Self {
            cpu: ticks(11)? + ticks(12)?,
            start: ticks(19)?,
        })
    }
}

/// When the machine was booted, since 1970.
fn boot_time() -> Option<Duration> {
    let stat = read("/proc/stat")?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok().map(Duration::from_secs)
}

fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn max_fds(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Example;

    impl Collector for Example {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
            let mut sheet = Sheet::new(encoder);
            sheet.gauge("waiting", "What waits.", 3usize)?;
            sheet.counters(
                "messages",
                "What went.",
                [([("outcome", "sent")], 1u64), ([("outcome", "lost")], 0)],
            )
        }
    }

    #[test]
    fn a_sheet_is_text_that_prometheus_reads() {
        let mut registry = Registry::with_prefix("x");
        registry.register_collector(Box::new(Example));
        assert_eq!(
            text(&registry),
            "# HELP x_waiting What waits.\n# TYPE x_waiting gauge\nx_waiting 3\n\
             # HELP x_messages_total What went.\n# TYPE x_messages_total counter\n\
             x_messages_total{outcome=\"sent\"} 1\nx_messages_total{outcome=\"lost\"} 0\n"
        );
    }

    #[test]
    fn a_process_says_what_it_takes() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let text = text(&registry);
        for name in [
            "process_cpu_seconds_total",
            "process_start_time_seconds",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_max_fds",
        ] {
            let line = text.lines().find(|line| line.starts_with(name));
            let value: f64 = line.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap();
            assert!(value >= 0.0, "{name} {value}");
        }
    }

    #[test]
    fn a_name_in_brackets_does_not_shift_the_fields() {
        let fields = "0 ".repeat(10) + "150 50 0 0 20 0 1 0 1000 0";
        let stat = Stat::parse(&format!("7 (a) b) c) S {fields}"));
        let expected = Stat {
            cpu: Duration::from_secs(2),
            start: Duration::from_secs(10),
        };
        assert_eq!(stat, Some(expected));
        assert_eq!(Stat::parse("7 (a"), None);
    }
}
