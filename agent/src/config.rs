//! The agent's configuration: `pxp-agent.conf`, with the original's keys and ours. [`mod@file`] is what
//! may be written, [`Config`] what is meant; every fault is found in one go.

pub mod defaults;
pub mod file;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::config::{Fault, Lasting, Size, Source};
use daemon::logs::{Format, LogConfig, Target};
use identity::{Files, Revocation};
use pcp::Certname;
use pcp_client::BrokerAddress;

use file::File;

/// What the agent is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that it was read from.
    pub path: PathBuf,
    /// Where brokers listen, the preferred one first.
    pub brokers: Vec<BrokerAddress>,
    /// The certnames whose requests are taken.
    pub controllers: Vec<Certname>,
    /// Certificate, key, CA and CRLs.
    pub tls: Files,
    /// Where transactions lie.
    pub spool_dir: PathBuf,
    /// How long transactions are kept after their end; `None` for ever.
    pub spool_ttl: Option<Duration>,
    /// Where task files lie.
    pub cache_dir: PathBuf,
    /// How long task files are kept after their last use; `None` for ever.
    pub cache_ttl: Option<Duration>,
    /// Where logs go.
    pub log: LogConfig,
    /// The longest that a task may run.
    pub task_time_limit: Duration,
    /// How many bytes are kept of each of a task's output streams.
    pub task_output_limit: u64,
    /// How many tasks run at once.
    pub task_concurrency: usize,
    /// The execution wrapper.
    pub wrapper: PathBuf,
    /// The largest message body in bytes.
    pub max_message: usize,
    /// Keys of the original that are set, and mean nothing to this agent.
    pub without_effect: Vec<&'static str>,
}

impl Config {
    /// Reads a configuration file, or all `*.conf` of a directory.
    ///
    /// # Errors
    /// Every fault that was found.
    pub fn load(path: &Path) -> Result<Self, Vec<Fault>> {
        let source = Source::read(path)?;
        let mut faults = Vec::new();
        let file: File = source.decode(None, &mut faults);
        let config = Self::resolve(file, &source, &mut faults);
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(faults),
        }
    }

    /// What is meant by what is written. Adds every fault to `faults`; gives nothing when something
    /// is missing without which there is no configuration at all.
    fn resolve(file: File, source: &Source, faults: &mut Vec<Fault>) -> Option<Self> {
        let without_effect = file.without_effect();
        let mut reader = Reader { source, faults };
        let brokers = reader.brokers(&file);
        let controllers = reader.controllers(file.controllers.as_deref());
        let log = reader.log(&file);
        let task_concurrency = reader.at_least_one("task-concurrency", file.task_concurrency);
        let task_time_limit = reader.lasting("task-time-limit", file.task_time_limit);
        let revocation = reader.revocation(&file);
        let cert = reader.required("ssl-cert", file.ssl_cert);
        let key = reader.required("ssl-key", file.ssl_key);
        let ca = reader.required("ssl-ca-cert", file.ssl_ca_cert);
        let base = defaults::base();
        let base = reader.or_fault("spool-dir", base);
        let spool_dir = file
            .spool_dir
            .or_else(|| Some(base.as_ref()?.join("spool")));
        let cache_dir = file
            .task_cache_dir
            .or_else(|| Some(base?.join("tasks-cache")));
        let wrapper = match file.execution_wrapper {
            Some(wrapper) => Some(wrapper),
            None => reader.or_fault("execution-wrapper", defaults::wrapper()),
        };
        Some(Self {
            path: source.path().to_path_buf(),
            brokers,
            controllers,
            tls: Files {
                cert: cert?,
                key: key?,
                ca: ca?,
                crl: file.ssl_crl,
                revocation,
            },
            spool_dir: spool_dir?,
            spool_ttl: ttl(file.spool_dir_purge_ttl),
            cache_dir: cache_dir?,
            cache_ttl: ttl(file.task_cache_dir_purge_ttl),
            log,
            task_time_limit: task_time_limit.unwrap_or(defaults::TASK_TIME_LIMIT),
            task_output_limit: file
                .task_output_limit
                .map_or(defaults::TASK_OUTPUT_LIMIT, |Size(bytes)| bytes),
            task_concurrency: task_concurrency.unwrap_or(defaults::TASK_CONCURRENCY),
            wrapper: wrapper?,
            max_message: file
                .max_message_size
                .map_or(pcp::message::DEFAULT_MAX_MESSAGE, |Size(bytes)| {
                    usize::try_from(bytes).unwrap_or(usize::MAX)
                }),
            without_effect,
        })
    }
}

/// Collects faults while values are read.
struct Reader<'a> {
    source: &'a Source,
    faults: &'a mut Vec<Fault>,
}

impl Reader<'_> {
    fn fault(&mut self, key: &str, problem: impl fmt::Display, hint: Option<&str>) {
        self.faults.push(Fault {
            hint: hint.map(str::to_owned),
            ..self.source.fault(key, problem)
        });
    }

    fn or_fault<T, E: std::error::Error>(&mut self, key: &str, value: Result<T, E>) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(key, daemon::error_chain(&Plain(&error)), None);
                None
            }
        }
    }

    fn required(&mut self, key: &str, value: Option<PathBuf>) -> Option<PathBuf> {
        if value.is_none() {
            self.fault(key, "is required", None);
        }
        value
    }

    fn brokers(&mut self, file: &File) -> Vec<BrokerAddress> {
        let mut written = Vec::new();
        if let Some(uris) = &file.broker_uris {
            written.push(("broker-uris", uris.clone()));
        }
        if let Some(uris) = &file.broker_ws_uris {
            written.push(("broker-ws-uris", uris.clone()));
        }
        if let Some(uri) = &file.broker_ws_uri {
            written.push(("broker-ws-uri", vec![uri.clone()]));
        }
        if let [_, (second, _), ..] = written.as_slice() {
            let problem = "only one of broker-uris, broker-ws-uris and broker-ws-uri may be set";
            self.fault(second, problem, None);
        }
        let Some((key, uris)) = written.into_iter().next() else {
            let hint = "for example broker-uris: [\"broker.example.net:8142\"]";
            self.fault("broker-uris", "is required", Some(hint));
            return Vec::new();
        };
        if uris.is_empty() {
            self.fault(key, "names no broker", None);
        }
        let parsed = uris.iter().map(|uri| uri.parse());
        parsed
            .filter_map(|address| self.or_fault(key, address))
            .collect()
    }

    fn controllers(&mut self, written: Option<&[String]>) -> Vec<Certname> {
        let Some(names) = written else {
            let hint = "name the certificates whose requests this agent takes, for example \
                        controllers: [\"orchestrator.example.net\"]";
            self.fault("controllers", "is required", Some(hint));
            return Vec::new();
        };
        let parsed = names.iter().map(|name| Certname::parse(name));
        parsed
            .filter_map(|name| self.or_fault("controllers", name))
            .collect()
    }

    fn revocation(&mut self, file: &File) -> Revocation {
        let revocation = match &file.certificate_revocation {
            None => Revocation::default(),
            Some(text) => self
                .or_fault("certificate-revocation", text.parse())
                .unwrap_or_default(),
        };
        if revocation != Revocation::None && file.ssl_crl.is_none() {
            let hint = "or set certificate-revocation: none, and revoked brokers stay trusted";
            self.fault("ssl-crl", "is required", Some(hint));
        }
        revocation
    }

    fn log(&mut self, file: &File) -> LogConfig {
        let target = match file.logfile.as_deref() {
            None | Some("-") => Target::Stderr,
            Some(unsupported @ ("syslog" | "eventlog")) => {
                let problem = format!("{unsupported} is not supported");
                let hint = "use \"-\": the service manager collects what is written there";
                self.fault("logfile", problem, Some(hint));
                Target::Stderr
            }
            Some(path) => Target::File(PathBuf::from(path)),
        };
        LogConfig {
            level: file.loglevel.unwrap_or_default(),
            format: file.log_format.unwrap_or(Format::Plain),
            target,
        }
    }

    fn at_least_one(&mut self, key: &str, value: Option<usize>) -> Option<usize> {
        if value == Some(0) {
            self.fault(key, "must be at least 1", None);
        }
        value
    }

    fn lasting(&mut self, key: &str, value: Option<Lasting>) -> Option<Duration> {
        let Lasting(duration) = value?;
        if duration.is_zero() {
            let hint = "every task has a limit; choose a long one if you must";
            self.fault(key, "must not be zero", Some(hint));
        }
        Some(duration)
    }
}

/// Lets `error_chain` look at any error.
#[derive(Debug)]
struct Plain<'a, E>(&'a E);

impl<E: fmt::Display> fmt::Display for Plain<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: std::error::Error> std::error::Error for Plain<'_, E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// The original's rule: zero means for ever.
fn ttl(written: Option<Lasting>) -> Option<Duration> {
    let ttl = written.map_or(defaults::PURGE_TTL, |Lasting(ttl)| ttl);
    Some(ttl).filter(|ttl| !ttl.is_zero())
}

/// The configuration as it could be written.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |items: Vec<String>| {
            let quoted: Vec<_> = items.iter().map(|item| format!("{item:?}")).collect();
            format!("[{}]", quoted.join(", "))
        };
        let ttl = |ttl: Option<Duration>| Lasting(ttl.unwrap_or_default()).to_string();
        let path = |path: &Path| format!("{:?}", path.display().to_string());
        let brokers = self.brokers.iter().map(ToString::to_string).collect();
        let controllers = self.controllers.iter().map(ToString::to_string).collect();
        let logfile = match &self.log.target {
            Target::Stderr => "\"-\"".to_owned(),
            Target::File(file) => path(file),
        };
        writeln!(f, "broker-uris: {}", list(brokers))?;
        writeln!(f, "controllers: {}", list(controllers))?;
        writeln!(f, "ssl-cert: {}", path(&self.tls.cert))?;
        writeln!(f, "ssl-key: {}", path(&self.tls.key))?;
        writeln!(f, "ssl-ca-cert: {}", path(&self.tls.ca))?;
        if let Some(crl) = &self.tls.crl {
            writeln!(f, "ssl-crl: {}", path(crl))?;
        }
        writeln!(f, "certificate-revocation: {}", self.tls.revocation)?;
        writeln!(f, "spool-dir: {}", path(&self.spool_dir))?;
        writeln!(f, "spool-dir-purge-ttl: {}", ttl(self.spool_ttl))?;
        writeln!(f, "task-cache-dir: {}", path(&self.cache_dir))?;
        writeln!(f, "task-cache-dir-purge-ttl: {}", ttl(self.cache_ttl))?;
        writeln!(f, "task-time-limit: {}", Lasting(self.task_time_limit))?;
        writeln!(f, "task-output-limit: {}", Size(self.task_output_limit))?;
        writeln!(f, "task-concurrency: {}", self.task_concurrency)?;
        writeln!(f, "execution-wrapper: {}", path(&self.wrapper))?;
        let max_message = u64::try_from(self.max_message).unwrap_or(u64::MAX);
        writeln!(f, "max-message-size: {}", Size(max_message))?;
        writeln!(f, "loglevel: {}", self.log.level)?;
        writeln!(f, "log-format: {}", self.log.format)?;
        writeln!(f, "logfile: {logfile}")
    }
}

#[cfg(test)]
mod tests;
