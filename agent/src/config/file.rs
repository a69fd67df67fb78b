//! What may be written in `pxp-agent.conf`, or on the command line: every key is optional here. The
//! original's keys are all understood; those that mean nothing to this agent are accepted and named
//! in the log, so that a file made for the original works.

use std::path::PathBuf;

use daemon::config::{Lasting, Size};
use daemon::logs::{Format, Level};
use sandbox::Profile;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Percent;

/// A key as an option of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The name of the field, which is the key with underscores.
    pub field: &'static str,
    /// What it means.
    pub help: &'static str,
    /// How its value is written.
    pub form: Form,
}

/// How a value is written on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As in the file.
    Single,
    /// Several, with commas between.
    List,
    /// `true`, `false`, or nothing at all for `true`.
    Switch,
}

macro_rules! file {
    (
        $($(#[doc = $doc:literal])+ $form:ident $name:ident: $type:ty,)*
        without effect: $($dead_form:ident $dead:ident,)*
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
            pub fn without_effect(&self) -> Vec<String> {
                let mut keys = Vec::new();
                $(if self.$dead.is_some() {
                    keys.push(stringify!($dead).replace('_', "-"));
                })*
                keys
            }
        }

        /// All of them, each of which is an option of the command line, too.
        pub const KEYS: &[Key] = &[
            $(Key {
                field: stringify!($name),
                help: concat!($($doc),+),
                form: Form::$form,
            },)*
            $(Key {
                field: stringify!($dead),
                help: " Accepted as the original's; has no effect in this agent",
                form: Form::$dead_form,
            },)*
        ];
    };
}

file! {
    /// Where brokers listen: `HOST` or `HOST:PORT`, the preferred one first.
    List broker_uris: Vec<String>,
    /// The original's key: `wss://HOST:PORT/pcp/`, of which host and port count.
    Single broker_ws_uri: String,
    /// The original's key: several of them.
    List broker_ws_uris: Vec<String>,
    /// How brokers are reached: `quic`, `websocket`, or `auto`: QUIC where UDP gets through.
    Single transport: String,
    /// About how long the first broker must be back until the agent returns to it; 0: it stays.
    Single broker_return_time: Lasting,
    /// A proxy on the way over WebSocket: `http://HOST:PORT`, `http://NAME:PASSWORD@HOST:PORT`.
    Single broker_ws_proxy: String,
    /// The certnames whose requests are taken; the policy may add to them.
    List controllers: Vec<String>,
    /// This node's certname; as a rule Puppet's.
    Single certname: String,
    /// Puppet's directory of certificates, where those lie that are not named one by one.
    Single ssldir: PathBuf,
    /// Our certificate.
    Single ssl_cert: PathBuf,
    /// Its key.
    Single ssl_key: PathBuf,
    /// The CA's certificates.
    Single ssl_ca_cert: PathBuf,
    /// The CA's revocation lists.
    Single ssl_crl: PathBuf,
    /// How far revocation is checked: `chain`, `leaf` or `none`.
    Single certificate_revocation: String,
    /// Puppet Servers that give the files which brokers do not have.
    List primary_uris: Vec<String>,
    /// The original's older name of `primary-uris`.
    List master_uris: Vec<String>,
    /// A proxy on the way to them: `http://HOST:PORT`.
    Single master_proxy: String,
    /// How long a connection to them may take to be made.
    Single task_download_connect_timeout: Lasting,
    /// How long a download from them may take.
    Single task_download_timeout: Lasting,
    /// Where the node's owner says what may run: files `*.conf`.
    Single policy_dir: PathBuf,
    /// How far tasks are kept from the host where no rule says so: `host`, `standard`, `confined`.
    Single sandbox_profile: Profile,
    /// Directories below `/tmp` that tasks find there, though they have a `/tmp` of their own.
    List sandbox_shared_paths: Vec<PathBuf>,
    /// Where external modules lie.
    Single modules_dir: PathBuf,
    /// Where their configuration lies.
    Single modules_config_dir: PathBuf,
    /// Puppet, where it is neither `/opt/puppetlabs/bin/puppet` nor on the PATH.
    Single puppet_bin: PathBuf,
    /// Where transactions lie.
    Single spool_dir: PathBuf,
    /// How long transactions are kept after their end; 0 for ever.
    Single spool_dir_purge_ttl: Lasting,
    /// How many bytes transactions may take; 0 for any number.
    Single spool_dir_max_size: Size,
    /// How many transactions are kept; 0 for any number.
    Single spool_dir_max_count: usize,
    /// How much of the disk must be free for a new transaction.
    Single spool_dir_reserve: Size,
    /// Where task files lie.
    Single task_cache_dir: PathBuf,
    /// How long task files are kept after their last use; 0 for ever.
    Single task_cache_dir_purge_ttl: Lasting,
    /// How many bytes task files may take; 0 for any number.
    Single task_cache_dir_max_size: Size,
    /// How many task files are kept; 0 for any number.
    Single task_cache_dir_max_count: usize,
    /// The longest that a task may run.
    Single task_time_limit: Lasting,
    /// How many bytes are kept of each of a task's output streams.
    Single task_output_limit: Size,
    /// How much memory a task's processes may take together; 0 for any amount.
    Single task_memory_limit: Size,
    /// How many processes a task may have; 0 for any number.
    Single task_process_limit: u32,
    /// How much processor time a task may take: `50%`, `200%` (two processors); 0 for any.
    Single task_cpu_limit: Percent,
    /// How many tasks run at once; more wait.
    Single task_concurrency: usize,
    /// The execution wrapper.
    Single execution_wrapper: PathBuf,
    /// The largest message body.
    Single max_message_size: Size,
    /// The least serious lines that are logged.
    Single loglevel: Level,
    /// `plain` or `json`.
    Single log_format: Format,
    /// Where lines are logged: a file, `syslog`, or `-` for standard error.
    Single logfile: String,
    /// As what lines are logged to syslog: `daemon`, `user`, `local0` … `local7`.
    Single syslog_facility: String,
    /// Whether every message is noted in the access log.
    Switch log_pcp_access: bool,
    /// The access log.
    Single pcp_access_logfile: PathBuf,
    /// A file `*.prom` of node_exporter's textfile collector, which metrics are written into.
    Single metrics_file: PathBuf,

    without effect:
    Single allowed_keepalive_timeouts,
    Single association_request_ttl,
    Single association_timeout,
    Single connection_timeout,
    Switch foreground,
    Single pcp_message_ttl,
    Single pcp_version,
    Single pidfile,
    Single ping_interval,
}
