//! What can be written on the command lines: what all of them share here, each tool in a file of its
//! own.

pub(crate) mod access;
pub(crate) mod job;
pub(crate) mod task;

use std::path::PathBuf;

use clap::builder::{NonEmptyStringValueParser, RangedU64ValueParser};
use clap::{Args, ValueEnum};

/// Where configuration is read and how the tools end, below the long help of puppet-task and
/// puppet-job.
pub(crate) const CONFIGURATION_AND_EXIT_CODES: &str = "\
Configuration (JSON, all keys inside \"options\": service-url, cacert, token-file, environment, \
color, noop):\n  /etc/puppetlabs/client-tools/orchestrator.conf, then \
~/.puppetlabs/client-tools/orchestrator.conf\n  (or the file in PXP_CLIENT_CONFIG, or --config-file), \
then the options given here.\n\nExit codes:\n  0  every node succeeded\n  1  a node did not, or the \
orchestrator refused the request\n  2  wrong usage or configuration\n  3  no connection, no trust, or \
no valid token\n  130  interrupted";

/// The variable that names a file in the place of the user's.
pub(crate) const CONFIG_VARIABLE: &str = "PXP_CLIENT_CONFIG";

/// Where to run: exactly one of these.
#[derive(Debug, Default, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct TargetArguments {
    /// Certnames with commas between, in a file (@FILE) or on standard input (-)
    #[arg(short, long, value_name = "NAMES|@FILE|-")]
    pub(crate) nodes: Option<String>,
    /// A PQL query to PuppetDB, or a file with one (@FILE)
    #[arg(short, long, value_name = "PQL|@FILE")]
    pub(crate) query: Option<String>,
    /// The id of a node group
    #[arg(long, value_name = "ID")]
    pub(crate) node_group: Option<String>,
}

/// How a job that is started is followed.
#[derive(Debug, Default, Args)]
pub(crate) struct FollowArguments {
    /// Show what nodes write while they write it, each line with the node's name
    #[arg(long, conflicts_with = "no_wait")]
    pub(crate) follow: bool,
    /// Print the number of the job and leave it to run
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// What bounds a job that is started, and what it is for.
#[derive(Debug, Default, Args)]
pub(crate) struct StartArguments {
    /// How many nodes may run at once [default: as many as the orchestrator's limit allows]
    #[arg(long, value_name = "COUNT", value_parser = count())]
    pub(crate) concurrency: Option<u64>,
    /// How many seconds it may take on a node [default: the orchestrator's]
    #[arg(long, value_name = "SECONDS", value_parser = count())]
    pub(crate) timeout: Option<u64>,
    /// What the job is for, kept with it
    #[arg(long, value_name = "TEXT", alias = "job-description")]
    pub(crate) description: Option<String>,
}

/// A number of things of which there is at least one.
pub(crate) fn count() -> RangedU64ValueParser<u64> {
    RangedU64ValueParser::new().range(1..)
}

/// What all commands take.
#[derive(Debug, Default, Args)]
pub(crate) struct CommonArguments {
    /// The environment [default: the configuration's, then the server's]
    #[arg(short, long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) environment: Option<String>,
    /// How to show the outcome
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) format: Format,
    /// The orchestrator, such as `https://puppet.example.com:8143`
    #[arg(long, value_name = "URL", help_heading = "Connection")]
    pub(crate) service_url: Option<String>,
    /// The CA certificates to trust, as a PEM file
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub(crate) ca_cert: Option<PathBuf>,
    /// The file with the token
    #[arg(short, long, value_name = "FILE", help_heading = "Connection")]
    pub(crate) token_file: Option<PathBuf>,
    /// A configuration file in the place of your own
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub(crate) config_file: Option<PathBuf>,
    /// Use colors on a terminal
    #[arg(long, overrides_with = "no_color", help_heading = "Output")]
    pub(crate) color: bool,
    /// Use no colors
    #[arg(long, overrides_with = "color", help_heading = "Output")]
    pub(crate) no_color: bool,
    /// Tell on standard error what is asked of the orchestrator; never shows secrets
    #[arg(short, long, help_heading = "Output")]
    pub(crate) debug: bool,
}

/// How to show the outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON document.
    Json,
}
