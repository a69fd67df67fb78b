//! The configuration as it could be written: what `check-config` prints.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use daemon::config::{Lasting, Size};
use daemon::logs::Target;

use super::{Config, Percent, defaults, profile_name};

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |bytes: Option<u64>| Size(bytes.unwrap_or_default());
        let count = |number: Option<usize>| number.unwrap_or_default();
        let tls = &self.tls;
        writeln!(f, "broker-uris: {}", list(&self.brokers))?;
        writeln!(f, "transport: {}", self.ways)?;
        let home = Lasting(self.home_after.unwrap_or_default());
        writeln!(f, "broker-return-time: \"{home}\"")?;
        if let Some(proxy) = &self.proxy {
            // Without its password.
            writeln!(f, "broker-ws-proxy: \"{proxy}\"")?;
        }
        writeln!(f, "controllers: {}", list(&self.controllers))?;
        writeln!(f, "ssl-cert: {}", path(&tls.cert))?;
        writeln!(f, "ssl-key: {}", path(&tls.key))?;
        writeln!(f, "ssl-ca-cert: {}", path(&tls.ca))?;
        if let Some(crl) = &tls.crl {
            writeln!(f, "ssl-crl: {}", path(crl))?;
        }
        writeln!(f, "certificate-revocation: {}", tls.revocation)?;
        writeln!(f, "primary-uris: {}", list(&self.downloads.primaries))?;
        if let Some(proxy) = &self.downloads.proxy {
            writeln!(f, "master-proxy: \"{proxy}\"")?;
        }
        let connect = Lasting(self.downloads.connect_timeout);
        writeln!(f, "task-download-connect-timeout: {connect}")?;
        let timeout = Lasting(self.downloads.timeout);
        writeln!(f, "task-download-timeout: {timeout}")?;
        writeln!(f, "policy-dir: {}", path(&self.policy_dir))?;
        writeln!(f, "sandbox-profile: {}", profile_name(self.profile))?;
        let shared: Vec<_> = self
            .shared_paths
            .iter()
            .map(|path| path.display())
            .collect();
        writeln!(f, "sandbox-shared-paths: {}", list(&shared))?;
        writeln!(f, "modules-dir: {}", path(&self.modules_dir))?;
        let modules_config = path(&self.modules_config_dir);
        writeln!(f, "modules-config-dir: {modules_config}")?;
        if let Some(puppet) = &self.puppet {
            writeln!(f, "puppet-bin: {}", path(puppet))?;
        }
        writeln!(f, "spool-dir: {}", path(&self.spool_dir))?;
        writeln!(f, "spool-dir-purge-ttl: {}", ttl(self.spool_bounds.age))?;
        writeln!(f, "spool-dir-max-size: {}", size(self.spool_bounds.bytes))?;
        writeln!(f, "spool-dir-max-count: {}", count(self.spool_bounds.count))?;
        writeln!(f, "spool-dir-reserve: {}", Size(self.spool_reserve))?;
        let cache = &self.cache_bounds;
        writeln!(f, "task-cache-dir: {}", path(&self.cache_dir))?;
        writeln!(f, "task-cache-dir-purge-ttl: {}", ttl(cache.age))?;
        writeln!(f, "task-cache-dir-max-size: {}", size(cache.bytes))?;
        writeln!(f, "task-cache-dir-max-count: {}", count(cache.count))?;
        writeln!(f, "task-time-limit: {}", Lasting(self.task_time_limit))?;
        writeln!(f, "task-output-limit: {}", Size(self.task_output_limit))?;
        writeln!(f, "task-memory-limit: {}", size(self.task_memory_limit))?;
        let processes = self.task_process_limit.unwrap_or_default();
        writeln!(f, "task-process-limit: {processes}")?;
        let cpu = Percent(self.task_cpu_limit.unwrap_or_default());
        writeln!(f, "task-cpu-limit: {cpu}")?;
        writeln!(f, "task-concurrency: {}", self.task_concurrency)?;
        writeln!(f, "execution-wrapper: {}", path(&self.wrapper))?;
        let max_message = u64::try_from(self.max_message).unwrap_or(u64::MAX);
        writeln!(f, "max-message-size: {}", Size(max_message))?;
        writeln!(f, "loglevel: {}", self.log.level)?;
        writeln!(f, "log-format: {}", self.log.format)?;
        let (logfile, facility) = match &self.log.target {
            Target::Stderr => ("\"-\"".to_owned(), defaults::SYSLOG_FACILITY),
            Target::Syslog(facility) => ("syslog".to_owned(), *facility),
            Target::File(file) => (path(file), defaults::SYSLOG_FACILITY),
        };
        writeln!(f, "logfile: {logfile}")?;
        writeln!(f, "syslog-facility: {facility}")?;
        writeln!(f, "log-pcp-access: {}", self.access_log.is_some())?;
        if let Some(file) = &self.access_log {
            writeln!(f, "pcp-access-logfile: {}", path(file))?;
        }
        if let Some(file) = &self.metrics_file {
            writeln!(f, "metrics-file: {}", path(file))?;
        }
        Ok(())
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    let quoted = items.iter().map(|item| format!("{:?}", item.to_string()));
    format!("[{}]", quoted.collect::<Vec<_>>().join(", "))
}

fn ttl(ttl: Option<Duration>) -> String {
    Lasting(ttl.unwrap_or_default()).to_string()
}

fn path(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}
