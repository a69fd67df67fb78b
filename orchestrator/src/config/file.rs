//! What may be written in the configuration files. Everything is optional here; what must be there
//! is said by [`super::Config::resolve`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use daemon::config::{Lasting, Size};
use daemon::logs::LogFile;
use serde::Deserialize;

/// The whole of the files.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct File {
    pub(super) orchestrator: OrchestratorFile,
    pub(super) log: LogFile,
}

/// The section `orchestrator`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct OrchestratorFile {
    pub(super) listen: Option<String>,
    pub(super) ssl_cert: Option<PathBuf>,
    pub(super) ssl_key: Option<PathBuf>,
    pub(super) ssl_ca_cert: Option<PathBuf>,
    pub(super) ssl_crl_path: Option<PathBuf>,
    pub(super) certificate_revocation: Option<String>,
    pub(super) brokers: Option<Vec<String>>,
    pub(super) database: Option<PathBuf>,
    pub(super) environments: Option<BTreeMap<String, EnvironmentFile>>,
    pub(super) task_concurrency: Option<u32>,
    pub(super) pcp_timeout: Option<Lasting>,
    pub(super) default_task_node_timeout: Option<Lasting>,
    pub(super) max_message_size: Option<Size>,
}

/// One environment.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct EnvironmentFile {
    pub(super) modulepath: Option<Vec<PathBuf>>,
}
