//! The agent's configuration: `pxp-agent.conf`, with the original's keys and ours. [`mod@file`] is what
//! may be written, [`Config`] what is meant; every fault is found in one go.

pub mod defaults;
mod effective;
pub mod file;
mod puppet;
mod reader;
mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::config::{Fault, Source};
use daemon::logs::LogConfig;
use identity::Files;
use pcp::Certname;
use pcp_client::{BrokerAddress, Proxy, Ways};
use sandbox::Profile;

use crate::bounds::Bounds;
use crate::exit::ExitCode;
use file::File;
use reader::Reader;
pub use values::{Percent, PercentError, PrimaryUri, PrimaryUriError, profile_name};

/// What the agent is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that it was read from.
    pub path: PathBuf,
    /// What the command line gave, which counts before it.
    pub given: Vec<(String, Given)>,
    /// Where brokers listen, the preferred one first.
    pub brokers: Vec<BrokerAddress>,
    /// How they are reached.
    pub ways: Ways,
    /// About how long the first broker must be back until we return to it; never where nothing is given.
    pub home_after: Option<Duration>,
    /// A proxy on the way over WebSocket.
    pub proxy: Option<Proxy>,
    /// The certnames whose requests are taken; the policy may add to them.
    pub controllers: Vec<Certname>,
    /// Certificate, key, CA and CRLs.
    pub tls: Files,
    /// Where files come from that no broker has.
    pub downloads: Downloads,
    /// Where the node's owner says what may run.
    pub policy_dir: PathBuf,
    /// How far tasks are kept from the host where no rule says so.
    pub profile: Profile,
    /// Directories below `/tmp` that tasks share with the host.
    pub shared_paths: Vec<PathBuf>,
    /// Where external modules lie.
    pub modules_dir: PathBuf,
    /// Where their configuration lies.
    pub modules_config_dir: PathBuf,
    /// Puppet; looked for at its usual places, if nothing.
    pub puppet: Option<PathBuf>,
    /// Where transactions lie.
    pub spool_dir: PathBuf,
    /// What is kept of those that are done with.
    pub spool_bounds: Bounds,
    /// How many bytes of the spool's disk must be free for a new transaction.
    pub spool_reserve: u64,
    /// Where task files lie.
    pub cache_dir: PathBuf,
    /// What is kept of them.
    pub cache_bounds: Bounds,
    /// Where logs go.
    pub log: LogConfig,
    /// Where every message is noted; nowhere, if nothing.
    pub access_log: Option<PathBuf>,
    /// Where metrics are written; nowhere, if nothing.
    pub metrics_file: Option<PathBuf>,
    /// The longest that a task may run.
    pub task_time_limit: Duration,
    /// How many bytes are kept of each of a task's output streams.
    pub task_output_limit: u64,
    /// How much memory in bytes a task's processes may take together.
    pub task_memory_limit: Option<u64>,
    /// How many processes a task may have.
    pub task_process_limit: Option<u32>,
    /// How much processor time a task may take, in percent of one processor.
    pub task_cpu_limit: Option<u32>,
    /// How many tasks run at once.
    pub task_concurrency: usize,
    /// The execution wrapper.
    pub wrapper: PathBuf,
    /// The largest message body in bytes.
    pub max_message: usize,
    /// Keys of the original that are set, and mean nothing to this agent.
    pub without_effect: Vec<String>,
}

/// Where files come from that no broker has, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downloads {
    /// Puppet Servers, the preferred one first.
    pub primaries: Vec<PrimaryUri>,
    /// A proxy on the way.
    pub proxy: Option<Proxy>,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long a download may take.
    pub timeout: Duration,
}

/// What the command line gave for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// One value.
    Single(String),
    /// Several.
    List(Vec<String>),
}

/// A configuration that the agent does not start with.
#[derive(Debug)]
pub struct Refused {
    /// Everything that is wrong.
    pub faults: Vec<Fault>,
    /// What the process ends with.
    pub code: ExitCode,
}

impl Config {
    /// Reads a configuration file, or all `*.conf` of a directory. A file that is not there is one in
    /// which nothing is written.
    ///
    /// # Errors
    /// Every fault that was found.
    pub fn load(path: &Path) -> Result<Self, Vec<Fault>> {
        Self::read(path, &[]).map_err(|refused| refused.faults)
    }

    /// Reads again what this configuration was read from.
    ///
    /// # Errors
    /// [`Refused`], with every fault that was found.
    pub fn again(&self) -> Result<Self, Refused> {
        Self::read(&self.path, &self.given)
    }

    /// The same with what was given on the command line: keys and values, which count before the
    /// file's.
    ///
    /// # Errors
    /// [`Refused`], with every fault that was found.
    pub fn read(path: &Path, given: &[(String, Given)]) -> Result<Self, Refused> {
        let unreadable = |faults| Refused {
            faults,
            code: ExitCode::Usage,
        };
        let mut source = if path.exists() {
            Source::read(path).map_err(unreadable)?
        } else {
            Source::empty(path)
        };
        for (key, value) in given {
            match value {
                Given::Single(value) => source.set(key, value),
                Given::List(values) => source.set_list(key, values),
            }
        }
        let mut faults = Vec::new();
        if !path.exists() && given.is_empty() {
            faults.push(source.missing());
        }
        let file: File = source.decode(None, &mut faults);
        match Self::resolve(file, &source, &mut faults) {
            Some(config) if faults.is_empty() => Ok(Self {
                given: given.to_vec(),
                ..config
            }),
            _ => Err(Refused {
                faults,
                code: ExitCode::Config,
            }),
        }
    }

    /// What is meant by what is written. Adds every fault to `faults`; gives nothing when something
    /// is missing without which there is no configuration at all.
    fn resolve(file: File, source: &Source, faults: &mut Vec<Fault>) -> Option<Self> {
        let mut reader = Reader { source, faults };
        let places = reader.or_fault("spool-dir", defaults::places());
        let brokers = reader.brokers(&file);
        let (ways, proxy) = reader.ways(&file);
        let controllers = reader.controllers(file.controllers.as_deref());
        let log = reader.log(&file);
        let access_log = reader.access_log(&file, &log, places.as_ref());
        let metrics_file = reader.metrics_file(file.metrics_file.as_ref());
        let downloads = reader.downloads(&file);
        let task_concurrency = reader.at_least_one("task-concurrency", file.task_concurrency);
        let task_time_limit = reader.lasting("task-time-limit", file.task_time_limit);
        let tls = reader.tls(&file, places.as_ref());
        let wrapper = match file.execution_wrapper.clone() {
            Some(wrapper) => Some(wrapper),
            None => reader.or_fault("execution-wrapper", defaults::wrapper()),
        };
        let without_effect = file.without_effect();
        let places = places?;
        let config_dir = if source.path().is_dir() {
            Some(source.path())
        } else {
            source.path().parent()
        };
        let config_dir = config_dir.unwrap_or(&places.config_dir).to_owned();
        let modules_config_dir = file
            .modules_config_dir
            .unwrap_or(config_dir.join("modules"));
        let puppet = reader.puppet_bin(file.puppet_bin, &modules_config_dir);
        Some(Self {
            path: source.path().to_path_buf(),
            given: Vec::new(),
            brokers,
            ways,
            home_after: reader::home_after(file.broker_return_time),
            proxy,
            controllers,
            tls: tls?,
            downloads,
            policy_dir: file.policy_dir.unwrap_or(config_dir.join("policy.d")),
            profile: file.sandbox_profile.unwrap_or(Profile::Standard),
            shared_paths: file.sandbox_shared_paths.unwrap_or_default(),
            modules_dir: file.modules_dir.unwrap_or(places.base.join("modules")),
            modules_config_dir,
            puppet,
            spool_dir: file.spool_dir.unwrap_or(places.base.join("spool")),
            spool_bounds: Bounds {
                age: reader::ttl(file.spool_dir_purge_ttl),
                bytes: reader::bytes(file.spool_dir_max_size, defaults::SPOOL_MAX_SIZE),
                count: reader::count(file.spool_dir_max_count, defaults::SPOOL_MAX_COUNT),
            },
            spool_reserve: file
                .spool_dir_reserve
                .map_or(defaults::SPOOL_RESERVE, |size| size.0),
            cache_dir: file
                .task_cache_dir
                .unwrap_or(places.base.join("tasks-cache")),
            cache_bounds: Bounds {
                age: reader::ttl(file.task_cache_dir_purge_ttl),
                bytes: reader::bytes(file.task_cache_dir_max_size, defaults::CACHE_MAX_SIZE),
                count: reader::count(file.task_cache_dir_max_count, defaults::CACHE_MAX_COUNT),
            },
            log,
            access_log,
            metrics_file,
            task_time_limit: task_time_limit.unwrap_or(defaults::TASK_TIME_LIMIT),
            task_output_limit: file
                .task_output_limit
                .map_or(defaults::TASK_OUTPUT_LIMIT, |size| size.0),
            task_memory_limit: file.task_memory_limit.map(|size| size.0).filter(|n| *n > 0),
            task_process_limit: file.task_process_limit.filter(|n| *n > 0),
            task_cpu_limit: file.task_cpu_limit.map(|share| share.0).filter(|n| *n > 0),
            task_concurrency: task_concurrency.unwrap_or(defaults::TASK_CONCURRENCY),
            wrapper: wrapper?,
            max_message: file
                .max_message_size
                .map_or(pcp::message::DEFAULT_MAX_MESSAGE, |size| {
                    usize::try_from(size.0).unwrap_or(usize::MAX)
                }),
            without_effect,
        })
    }
}

#[cfg(test)]
mod tests;
