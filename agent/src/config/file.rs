//! What may be written in `pxp-agent.conf`: every key is optional here. The original's keys are all
//! understood; those that mean nothing to this agent are accepted and named in the log, so that a
//! file made for the original works.

use std::path::PathBuf;

use daemon::config::{Lasting, Size};
use daemon::logs::{Format, Level};
use serde::Deserialize;
use serde::de::IgnoredAny;

macro_rules! file {
    (
        $($(#[doc = $doc:literal])+ $name:ident: $type:ty,)*
        without effect: $($dead:ident as $key:literal,)*
    ) => {
        /// The file.
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "kebab-case", default)]
        pub struct File {
            $($(#[doc = $doc])+ pub $name: Option<$type>,)*
            $($dead: Option<IgnoredAny>,)*
        }

        impl File {
            /// The keys that are set and mean nothing to this agent.
            #[must_use]
            pub fn without_effect(&self) -> Vec<&'static str> {
                let mut keys = Vec::new();
                $(if self.$dead.is_some() {
                    keys.push($key);
                })*
                keys
            }
        }
    };
}

file! {
    /// Where brokers listen: `HOST` or `HOST:PORT`.
    broker_uris: Vec<String>,
    /// The original's key: `wss://HOST:PORT/pcp/`, of which host and port count.
    broker_ws_uri: String,
    /// The original's key: several of them.
    broker_ws_uris: Vec<String>,
    /// The certnames whose requests are taken.
    controllers: Vec<String>,
    /// Our certificate.
    ssl_cert: PathBuf,
    /// Its key.
    ssl_key: PathBuf,
    /// The CA's certificates.
    ssl_ca_cert: PathBuf,
    /// The CA's revocation lists.
    ssl_crl: PathBuf,
    /// `chain`, `leaf` or `none`.
    certificate_revocation: String,
    /// Where transactions lie.
    spool_dir: PathBuf,
    /// How long transactions are kept after their end; 0 for ever.
    spool_dir_purge_ttl: Lasting,
    /// Where task files lie.
    task_cache_dir: PathBuf,
    /// How long task files are kept after their last use; 0 for ever.
    task_cache_dir_purge_ttl: Lasting,
    /// The longest that a task may run.
    task_time_limit: Lasting,
    /// How many bytes are kept of each of a task's output streams.
    task_output_limit: Size,
    /// How many tasks run at once; more wait.
    task_concurrency: usize,
    /// The execution wrapper.
    execution_wrapper: PathBuf,
    /// The largest message body.
    max_message_size: Size,
    /// The least serious lines that are logged.
    loglevel: Level,
    /// `plain` or `json`.
    log_format: Format,
    /// Where lines are logged; `-` is standard error.
    logfile: String,

    without effect:
    allowed_keepalive_timeouts as "allowed-keepalive-timeouts",
    association_request_ttl as "association-request-ttl",
    association_timeout as "association-timeout",
    broker_ws_proxy as "broker-ws-proxy",
    connection_timeout as "connection-timeout",
    foreground as "foreground",
    log_pcp_access as "log-pcp-access",
    master_proxy as "master-proxy",
    master_uris as "master-uris",
    modules_config_dir as "modules-config-dir",
    modules_dir as "modules-dir",
    pcp_access_logfile as "pcp-access-logfile",
    pcp_message_ttl as "pcp-message-ttl",
    pcp_version as "pcp-version",
    pidfile as "pidfile",
    ping_interval as "ping-interval",
    primary_uris as "primary-uris",
    syslog_facility as "syslog-facility",
    task_download_connect_timeout as "task-download-connect-timeout",
    task_download_timeout as "task-download-timeout",
}
