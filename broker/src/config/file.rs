//! What may be written in the broker's configuration file. Every key may be left out as far as
//! reading goes; what is missing is found when the meaning is made.

use std::net::SocketAddr;
use std::path::PathBuf;

use daemon::config::{Lasting, Size};
use serde::Deserialize;

use super::rules::OwnRule;

/// The sections of trapperkeeper services that may stand in the same directory, such as Puppet
/// Server's `conf.d`. They are none of ours; what is in none of these lists is a mistake.
pub(super) const OF_OTHERS: [&str; 20] = [
    "certificate-authority",
    "code-manager",
    "dropsonde",
    "file-sync",
    "global",
    "http-client",
    "jruby-puppet",
    "master",
    "metrics",
    "nrepl",
    "os-settings",
    "product",
    "profiler",
    "puppet-admin",
    "puppetserver",
    "rbac-consumer",
    "status",
    "versioned-code",
    "web-router-service",
    "webserver",
];

/// The section `pcp-broker`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct BrokerFile {
    pub(super) role: Option<Role>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) primaries: Option<Vec<String>>,
    pub(super) primary_certnames: Option<Vec<String>>,
    pub(super) ssl_cert: Option<PathBuf>,
    pub(super) ssl_key: Option<PathBuf>,
    pub(super) ssl_ca_cert: Option<PathBuf>,
    pub(super) ssl_crl_path: Option<PathBuf>,
    pub(super) certificate_revocation: Option<String>,
    pub(super) controllers: Option<Vec<String>>,
    pub(super) controller_uris: Option<Vec<String>>,
    pub(super) controller_allowlist: Option<Vec<String>>,
    /// The original's older name of `controller-allowlist`.
    pub(super) controller_whitelist: Option<Vec<String>>,
    pub(super) brokers: Option<Vec<String>>,
    pub(super) transports: Option<Vec<Transport>>,
    pub(super) pcp_versions: Option<Vec<u8>>,
    pub(super) websocket_idle_timeout: Option<Lasting>,
    pub(super) max_message_size: Option<Size>,
    pub(super) max_connections: Option<usize>,
    pub(super) handshakes_per_second: Option<u32>,
    pub(super) drain_time: Option<Lasting>,
    pub(super) controller_disconnection_graceperiod: Option<Lasting>,
    pub(super) pcp_access_logfile: Option<PathBuf>,
    pub(super) content_cache_dir: Option<PathBuf>,
    pub(super) content_cache_size: Option<Size>,
    pub(super) content_cache_reserve: Option<Size>,
    pub(super) metrics_allowlist: Option<Vec<String>>,
    pub(super) metrics_listen: Option<SocketAddr>,
    pub(super) rules: Option<Vec<OwnRule>>,
}

/// The words for the roles.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Role {
    Primary,
    Compiler,
}

/// The words for the ways in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Transport {
    Quic,
    Websocket,
}
