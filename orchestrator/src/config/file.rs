//! What may be written in the configuration files. Everything is optional here; what must be there
//! is said by [`super::Config::resolve`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
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
    pub(super) global: GlobalFile,
    pub(super) webserver: WebserverFile,
    pub(super) rbac: RbacFile,
    pub(super) rbac_consumer: RbacConsumerFile,
}

/// The section `global`, which the original's services share.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct GlobalFile {
    pub(super) certs: CertsFile,
}

/// Certificate files, wherever they may stand.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct CertsFile {
    pub(super) ssl_cert: Option<PathBuf>,
    pub(super) ssl_key: Option<PathBuf>,
    pub(super) ssl_ca_cert: Option<PathBuf>,
    pub(super) ssl_crl_path: Option<PathBuf>,
}

/// The section `webserver`: one server, or several by name, of which ours is `orchestrator`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct WebserverFile {
    pub(super) ssl_host: Option<String>,
    pub(super) ssl_port: Option<u16>,
    pub(super) ssl_cert: Option<PathBuf>,
    pub(super) ssl_key: Option<PathBuf>,
    pub(super) ssl_ca_cert: Option<PathBuf>,
    pub(super) ssl_crl_path: Option<PathBuf>,
    pub(super) orchestrator: Option<ServerFile>,
}

/// One server of the section `webserver`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct ServerFile {
    pub(super) ssl_host: Option<String>,
    pub(super) ssl_port: Option<u16>,
    pub(super) ssl_cert: Option<PathBuf>,
    pub(super) ssl_key: Option<PathBuf>,
    pub(super) ssl_ca_cert: Option<PathBuf>,
    pub(super) ssl_crl_path: Option<PathBuf>,
}

impl WebserverFile {
    /// The one server that is meant.
    pub(super) fn server(self) -> ServerFile {
        let own = self.orchestrator.unwrap_or_default();
        ServerFile {
            ssl_host: own.ssl_host.or(self.ssl_host),
            ssl_port: own.ssl_port.or(self.ssl_port),
            ssl_cert: own.ssl_cert.or(self.ssl_cert),
            ssl_key: own.ssl_key.or(self.ssl_key),
            ssl_ca_cert: own.ssl_ca_cert.or(self.ssl_ca_cert),
            ssl_crl_path: own.ssl_crl_path.or(self.ssl_crl_path),
        }
    }
}

/// The section `rbac`: users that this orchestrator knows itself.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct RbacFile {
    pub(super) token_auth_lifetime: Option<Lasting>,
    pub(super) token_maximum_lifetime: Option<Lasting>,
    pub(super) failed_attempts_lockout: Option<u32>,
}

/// The section `rbac-consumer`: users that another service knows.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct RbacConsumerFile {
    pub(super) api_url: Option<String>,
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
    pub(super) certificate_allowlist: Option<BTreeMap<String, String>>,
    pub(super) metrics_allowlist: Option<Vec<String>>,
    pub(super) metrics_listen: Option<SocketAddr>,
    pub(super) brokers: Option<Vec<String>>,
    pub(super) transport: Option<String>,
    pub(super) database: Option<PathBuf>,
    pub(super) environments: Option<BTreeMap<String, EnvironmentFile>>,
    pub(super) puppetdb_url: Option<String>,
    pub(super) master_url: Option<String>,
    pub(super) classifier_service: Option<String>,
    pub(super) node_groups_file: Option<PathBuf>,
    pub(super) task_files_size: Option<Size>,
    pub(super) task_concurrency: Option<u32>,
    pub(super) pcp_timeout: Option<Lasting>,
    pub(super) default_task_node_timeout: Option<Lasting>,
    pub(super) default_deploy_node_timeout: Option<Lasting>,
    pub(super) global_concurrent_compiles: Option<u32>,
    pub(super) allowed_pcp_status_requests: Option<u32>,
    pub(super) job_prune_threshold: Option<Lasting>,
    pub(super) max_message_size: Option<Size>,
}

/// One environment.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct EnvironmentFile {
    pub(super) modulepath: Option<Vec<PathBuf>>,
}
