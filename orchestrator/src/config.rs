//! The configuration: read once, all faults told at once, and from then on only types.

mod access;
mod defaults;
mod estate;
mod file;
mod ignored;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::config::{Fault, Lasting, Size, Source};
use daemon::logs::LogConfig;
use identity::{Files, Revocation};
use orchestrator_api::DEFAULT_ENVIRONMENT;
use pcp::uri::Certname;
use pcp_client::{BrokerAddress, Ways};
use reqwest::Url;

pub use access::AccessConfig;
pub use estate::NodeGroups;

use file::{CertsFile, File, OrchestratorFile, ServerFile};

/// What the orchestrator is to do.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Certificate, key, CA and CRLs.
    pub ssl: Files,
    /// The brokers, the preferred one first.
    pub brokers: Vec<BrokerAddress>,
    /// How they are reached. Files of tasks can be given over QUIC only.
    pub ways: Ways,
    /// The database file.
    pub database: PathBuf,
    /// Module directories by environment. Other environments are Puppet Server's.
    pub environments: BTreeMap<String, Vec<PathBuf>>,
    /// Where PuppetDB is, the preferred address first; nowhere when there is none.
    pub puppetdb: Vec<Url>,
    /// Where Puppet Server is, the preferred address first; nowhere when there is none.
    pub puppet_server: Vec<Url>,
    /// Who knows the node groups.
    pub node_groups: Option<NodeGroups>,
    /// How many bytes of files of tasks are kept that no job needs just now.
    pub task_files_size: u64,
    /// How many nodes may run tasks at once, over all jobs.
    pub task_concurrency: usize,
    /// How many nodes may run Puppet at once, over all jobs.
    pub compile_concurrency: usize,
    /// How long a node has to be reachable and to answer.
    pub pcp_timeout: Duration,
    /// How many questions an agent that has a task may leave unanswered before the task is lost.
    pub allowed_pcp_status_requests: u32,
    /// How long a task may take on a node when its job does not say.
    pub default_task_node_timeout: Duration,
    /// How long Puppet may take on a node when its job does not say.
    pub default_deploy_node_timeout: Duration,
    /// For how long ended jobs are kept.
    pub job_prune_threshold: Duration,
    /// The largest message in bytes that is sent or taken.
    pub max_message_size: usize,
    /// Who may call.
    pub access: AccessConfig,
    /// Who may read metrics.
    pub metrics: Metrics,
    /// Where logs go.
    pub log: LogConfig,
    /// Keys of the original's files that have no effect here.
    pub notes: Vec<Fault>,
}

/// Who may read metrics, beside whoever shows the orchestrator's own certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics {
    /// These certnames, at the API's port.
    pub allowlist: Vec<Certname>,
    /// Everybody on this host, at this address of the loopback interface.
    pub listen: Option<SocketAddr>,
}

impl Config {
    /// Reads a file, or all `*.conf` of a directory.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(path: &Path) -> Result<Self, Vec<Fault>> {
        let source = Source::read(path)?;
        let mut faults = Vec::new();
        let file = source.decode(None, &mut faults);
        let notes = ignored::take_out(&mut faults);
        let config = Self::resolve(&source, file, &mut faults);
        match config {
            Some(config) if faults.is_empty() => Ok(Self { notes, ..config }),
            _ => Err(faults),
        }
    }

    fn resolve(source: &Source, file: File, faults: &mut Vec<Fault>) -> Option<Self> {
        let mut check = Check { source, faults };
        let mut section = file.orchestrator;
        let server = file.webserver.server();
        let ssl = check.ssl(&section, &server, &file.global.certs);
        let listen = check.listen(section.listen.as_deref(), &server);
        let allowlist = section.certificate_allowlist.take();
        let access = AccessConfig::resolve(&mut check, &file.rbac, file.rbac_consumer, allowlist);
        let metrics = check.metrics(&section);
        let ways = match section.transport.as_deref() {
            Some(text) => check.parsed("transport", text).unwrap_or_default(),
            None => Ways::Auto,
        };
        let brokers = check.brokers(section.brokers.as_deref().unwrap_or_default());
        let task_concurrency = section
            .task_concurrency
            .unwrap_or(defaults::TASK_CONCURRENCY);
        if task_concurrency == 0 {
            check.fault("task-concurrency", "must be at least 1");
        }
        let pcp_timeout = check.lasting("pcp-timeout", section.pcp_timeout, defaults::PCP_TIMEOUT);
        let task_node_timeout = check.lasting(
            "default-task-node-timeout",
            section.default_task_node_timeout,
            defaults::TASK_NODE_TIMEOUT,
        );
        let puppetdb = check.addresses("puppetdb-url", section.puppetdb_url.as_deref());
        let puppet_server = check.addresses("master-url", section.master_url.as_deref());
        let node_groups = check.node_groups(&section);
        let with_server = section.master_url.is_some();
        let environments = check.environments(section.environments, with_server);
        let deploy_node_timeout = check.lasting(
            "default-deploy-node-timeout",
            section.default_deploy_node_timeout,
            defaults::DEPLOY_NODE_TIMEOUT,
        );
        let compile_concurrency = section
            .global_concurrent_compiles
            .unwrap_or(defaults::GLOBAL_CONCURRENT_COMPILES);
        if compile_concurrency == 0 {
            check.fault("global-concurrent-compiles", "must be at least 1");
        }
        let status_requests = section
            .allowed_pcp_status_requests
            .unwrap_or(defaults::ALLOWED_PCP_STATUS_REQUESTS);
        if status_requests == 0 {
            check.fault("allowed-pcp-status-requests", "must be at least 1");
        }
        let job_prune_threshold = check.lasting(
            "job-prune-threshold",
            section.job_prune_threshold,
            defaults::JOB_PRUNE_THRESHOLD,
        );
        if job_prune_threshold < defaults::LEAST_JOB_PRUNE_THRESHOLD {
            check.fault("job-prune-threshold", "must be at least 2 days");
        }
        let max_message_size = match section.max_message_size {
            Some(Size(bytes)) => usize::try_from(bytes).unwrap_or(usize::MAX),
            None => pcp::message::DEFAULT_MAX_MESSAGE,
        };
        Some(Self {
            listen: listen?,
            ssl: ssl?,
            brokers: brokers?,
            ways,
            database: section
                .database
                .unwrap_or_else(|| defaults::DATABASE.into()),
            environments,
            puppetdb,
            puppet_server,
            node_groups,
            task_files_size: section
                .task_files_size
                .map_or(defaults::TASK_FILES_SIZE, |Size(bytes)| bytes),
            task_concurrency: usize::try_from(task_concurrency).unwrap_or(usize::MAX),
            compile_concurrency: usize::try_from(compile_concurrency).unwrap_or(usize::MAX),
            pcp_timeout,
            allowed_pcp_status_requests: status_requests,
            default_task_node_timeout: task_node_timeout,
            default_deploy_node_timeout: deploy_node_timeout,
            job_prune_threshold,
            max_message_size,
            access,
            metrics,
            log: file.log.into(),
            notes: Vec::new(),
        })
    }
}

/// Collects faults of the section `orchestrator`.
struct Check<'a> {
    source: &'a Source,
    faults: &'a mut Vec<Fault>,
}

impl Check<'_> {
    fn fault(&mut self, key: &str, problem: impl fmt::Display) {
        self.fault_at(&format!("orchestrator.{key}"), problem);
    }

    /// A fault of a key with its section.
    fn fault_at(&mut self, key: &str, problem: impl fmt::Display) {
        self.faults.push(self.source.fault(key, problem));
    }

    fn parsed<T: std::str::FromStr<Err: fmt::Display>>(
        &mut self,
        key: &str,
        text: &str,
    ) -> Option<T> {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(key, format!("{text:?}: {error}"));
                None
            }
        }
    }

    /// A path that must be given, in the first of the places where it may stand.
    fn needed(&mut self, key: &str, places: [&Option<PathBuf>; 3]) -> Option<PathBuf> {
        let path = first(places);
        if path.is_none() {
            self.fault(key, "is needed, here or in the section global.certs");
        }
        path
    }

    /// Where the API listens: our own key, or the original's section `webserver`.
    fn listen(&mut self, own: Option<&str>, server: &ServerFile) -> Option<SocketAddr> {
        if let Some(text) = own {
            return self.parsed("listen", text);
        }
        let host = server.ssl_host.as_deref().unwrap_or(defaults::HOST);
        let port = server.ssl_port.unwrap_or(defaults::PORT);
        match host.parse::<std::net::IpAddr>() {
            Ok(ip) => Some(SocketAddr::new(ip, port)),
            Err(_) => {
                let problem = format!("{host:?} is not an IP address; 0.0.0.0 is all of them");
                self.fault_at("webserver.ssl-host", problem);
                None
            }
        }
    }

    /// Whole seconds and above: both are told to agents and compared with their clocks' seconds.
    fn lasting(&mut self, key: &str, given: Option<Lasting>, default: Duration) -> Duration {
        let duration = given.map_or(default, |lasting| lasting.0);
        if duration < Duration::from_secs(1) {
            self.fault(key, "must be at least one second");
        }
        duration
    }

    fn ssl(
        &mut self,
        section: &OrchestratorFile,
        server: &ServerFile,
        shared: &CertsFile,
    ) -> Option<Files> {
        let revocation = match section.certificate_revocation.as_deref() {
            Some(text) => self.parsed("certificate-revocation", text),
            None => Some(Revocation::default()),
        };
        let cert = [&section.ssl_cert, &server.ssl_cert, &shared.ssl_cert];
        let cert = self.needed("ssl-cert", cert);
        let key = [&section.ssl_key, &server.ssl_key, &shared.ssl_key];
        let key = self.needed("ssl-key", key);
        let ca = [
            &section.ssl_ca_cert,
            &server.ssl_ca_cert,
            &shared.ssl_ca_cert,
        ];
        let ca = self.needed("ssl-ca-cert", ca);
        let crl = [
            &section.ssl_crl_path,
            &server.ssl_crl_path,
            &shared.ssl_crl_path,
        ];
        let crl = first(crl);
        if crl.is_none() && revocation != Some(Revocation::None) {
            self.fault(
                "ssl-crl-path",
                "is needed unless certificate-revocation is none",
            );
        }
        Some(Files {
            cert: cert?,
            key: key?,
            ca: ca?,
            crl,
            revocation: revocation?,
        })
    }

    fn metrics(&mut self, section: &OrchestratorFile) -> Metrics {
        let listen = section.metrics_listen;
        if listen.is_some_and(|address| !address.ip().is_loopback()) {
            let problem = "must be a loopback address, since everybody may read there: from other \
                           hosts metrics are read at the API's port, by metrics-allowlist";
            self.fault("metrics-listen", problem);
        }
        let names = section.metrics_allowlist.as_deref().unwrap_or_default();
        let names = names
            .iter()
            .filter_map(|name| self.parsed("metrics-allowlist", name));
        Metrics {
            allowlist: names.collect(),
            listen,
        }
    }

    fn brokers(&mut self, texts: &[String]) -> Option<Vec<BrokerAddress>> {
        if texts.is_empty() {
            self.fault("brokers", "needs at least one broker, as HOST:PORT");
            return None;
        }
        texts
            .iter()
            .map(|text| self.parsed("brokers", text))
            .collect()
    }

    fn environments(
        &mut self,
        given: Option<BTreeMap<String, file::EnvironmentFile>>,
        with_server: bool,
    ) -> BTreeMap<String, Vec<PathBuf>> {
        let Some(given) = given else {
            if with_server {
                return BTreeMap::new();
            }
            let modules = vec![defaults::MODULES.into()];
            return [(DEFAULT_ENVIRONMENT.to_owned(), modules)].into();
        };
        given
            .into_iter()
            .map(|(name, environment)| {
                let fits = !name.is_empty()
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
                if !fits {
                    let key = format!("environments.{name}");
                    let problem = "an environment's name has lower case letters, digits and '_'";
                    self.fault(&key, problem);
                }
                (name, environment.modulepath.unwrap_or_default())
            })
            .collect()
    }
}

fn first(places: [&Option<PathBuf>; 3]) -> Option<PathBuf> {
    places.into_iter().find_map(Clone::clone)
}

/// The effective configuration, as `check-config` prints it: a file that would mean the same.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brokers: Vec<String> = self.brokers.iter().map(ToString::to_string).collect();
        writeln!(f, "orchestrator {{")?;
        writeln!(f, "  listen: {:?}", self.listen.to_string())?;
        writeln!(f, "  ssl-cert: {:?}", self.ssl.cert)?;
        writeln!(f, "  ssl-key: {:?}", self.ssl.key)?;
        writeln!(f, "  ssl-ca-cert: {:?}", self.ssl.ca)?;
        if let Some(crl) = &self.ssl.crl {
            writeln!(f, "  ssl-crl-path: {crl:?}")?;
        }
        writeln!(f, "  certificate-revocation: {}", self.ssl.revocation)?;
        self.access.write_allowlist(f)?;
        let names = &self.metrics.allowlist;
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        writeln!(f, "  metrics-allowlist: {names:?}")?;
        if let Some(address) = self.metrics.listen {
            writeln!(f, "  metrics-listen: \"{address}\"")?;
        }
        writeln!(f, "  brokers: {brokers:?}")?;
        writeln!(f, "  transport: {}", self.ways)?;
        writeln!(f, "  database: {:?}", self.database)?;
        writeln!(f, "  environments {{")?;
        for (name, modulepath) in &self.environments {
            writeln!(f, "    {name} {{ modulepath: {modulepath:?} }}")?;
        }
        writeln!(f, "  }}")?;
        estate::write(
            f,
            &self.puppetdb,
            &self.puppet_server,
            self.node_groups.as_ref(),
        )?;
        writeln!(f, "  task-files-size: {}", self.task_files_size)?;
        writeln!(f, "  task-concurrency: {}", self.task_concurrency)?;
        writeln!(f, "  pcp-timeout: \"{}s\"", self.pcp_timeout.as_secs())?;
        let timeout = self.default_task_node_timeout.as_secs();
        writeln!(f, "  default-task-node-timeout: \"{timeout}s\"")?;
        let timeout = self.default_deploy_node_timeout.as_secs();
        writeln!(f, "  default-deploy-node-timeout: \"{timeout}s\"")?;
        let compiles = self.compile_concurrency;
        writeln!(f, "  global-concurrent-compiles: {compiles}")?;
        let questions = self.allowed_pcp_status_requests;
        writeln!(f, "  allowed-pcp-status-requests: {questions}")?;
        let kept = self.job_prune_threshold.as_secs();
        writeln!(f, "  job-prune-threshold: \"{kept}s\"")?;
        writeln!(f, "  max-message-size: {}", self.max_message_size)?;
        writeln!(f, "}}")?;
        self.access.write_sections(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSL: &str = r#"ssl-cert: "/s/cert.pem", ssl-key: "/s/key.pem", ssl-ca-cert: "/s/ca.pem""#;

    fn load(text: &str) -> Result<Config, Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("o.conf");
        std::fs::write(&path, text).unwrap();
        let prefix = format!("{}:", path.display());
        Config::load(&path).map_err(|faults| {
            let texts = faults.iter().map(ToString::to_string);
            texts.map(|text| text.replace(&prefix, "")).collect()
        })
    }

    #[test]
    fn what_is_not_written_has_a_default() {
        let config = load(&format!(
            "orchestrator {{ {SSL}, certificate-revocation: none, brokers: [primary] }}"
        ))
        .unwrap();
        assert_eq!(config.listen.port(), 8143);
        assert_eq!(config.task_concurrency, 250);
        assert_eq!(config.pcp_timeout, Duration::from_secs(30));
        assert_eq!(config.default_task_node_timeout, Duration::from_secs(2400));
        assert_eq!(
            config.environments.keys().collect::<Vec<_>>(),
            ["production"]
        );
        assert_eq!(config.brokers[0].port, 8142);
    }

    #[test]
    fn what_is_printed_means_the_same() {
        let config = load(&format!(
            "orchestrator {{ {SSL}, ssl-crl-path: \"/s/crl.pem\", brokers: [\"a:1\", \"b:2\"], \
             listen: \"127.0.0.1:9\", pcp-timeout: 2m, \
             puppetdb-url: \"https://p:8081, https://q:8081\", master-url: \"https://p:8140\", \
             classifier-service: \"https://c:4433/classifier-api\", task-files-size: 1MiB, \
             certificate-allowlist {{ \"console.example.com\": console }}, \
             environments {{ dev {{ modulepath: [\"/m\"] }} }} }}\n\
             rbac.token-auth-lifetime: 4h\nrbac-consumer.api-url: \"https://c:4433/rbac-api/\""
        ))
        .unwrap();
        let printed = config.to_string();
        assert_eq!(load(&printed).unwrap().to_string(), printed);
    }

    #[test]
    fn a_folder_of_the_original_is_understood_where_it_maps() {
        let config = load(
            "global { hostname: p, certs { ssl-cert: \"/g/cert.pem\", ssl-key: \"/g/key.pem\", \
             ssl-ca-cert: \"/g/ca.pem\", ssl-crl-path: \"/g/crl.pem\" } }\n\
             webserver { client-auth: want, orchestrator { ssl-host: \"127.0.0.1\", ssl-port: 9143, \
             ssl-cert: \"/w/cert.pem\", access-log-config: x }, pcp-broker { ssl-port: 8142 } }\n\
             web-router-service { x: /y }\n\
             orchestrator { brokers: [primary], console-url: \"https://c\" }",
        )
        .unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:9143");
        assert_eq!(config.ssl.cert, Path::new("/w/cert.pem"));
        assert_eq!(config.ssl.key, Path::new("/g/key.pem"));
        assert_eq!(config.ssl.crl.as_deref(), Some(Path::new("/g/crl.pem")));
        let mut notes: Vec<_> = config
            .notes
            .iter()
            .map(|note| (note.line.unwrap(), note.key.as_str()))
            .collect();
        notes.sort_unstable();
        assert_eq!(
            notes,
            [
                (1, "global.hostname"),
                (2, "webserver.client-auth"),
                (2, "webserver.orchestrator.access-log-config"),
                (2, "webserver.pcp-broker"),
                (3, "web-router-service"),
                (4, "orchestrator.console-url"),
            ]
        );
        assert!(
            config
                .notes
                .iter()
                .all(|note| note.problem.contains("no effect"))
        );
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let faults = load(
            "orchestrator {\n listen: nowhere\n brokers: []\n task-concurrency: 0\n\
             pcp-timeout: 0s\n certificate-revocation: maybe\n databse: x\n\
             puppetdb-url: \"http://p:8080\"\n classifier-service: \"https://c\"\n\
             node-groups-file: g\n\
             environments { \"No/Good\" {} }\n\
             certificate-allowlist { \"a/b\": x }\n}\n\
             rbac { token-auth-lifetime: 0s, failed-attempts-lockout: 0 }\n\
             rbac-consumer.api-url: \"http://x\"",
        )
        .unwrap_err();
        for part in [
            "orchestrator.listen",
            "orchestrator.brokers",
            "orchestrator.task-concurrency",
            "orchestrator.pcp-timeout",
            "orchestrator.certificate-revocation",
            "did you mean \"database\"?",
            "orchestrator.ssl-cert: is needed",
            "orchestrator.ssl-key: is needed",
            "orchestrator.ssl-ca-cert: is needed",
            "No/Good",
            "orchestrator.puppetdb-url: \"http://p:8080\" is not https://HOST:PORT",
            "orchestrator.node-groups-file: and classifier-service",
            "orchestrator.certificate-allowlist",
            "rbac.token-auth-lifetime",
            "rbac.failed-attempts-lockout",
            "rbac-consumer.api-url: must begin with https://",
        ] {
            assert!(
                faults.iter().any(|fault| fault.contains(part)),
                "{part}: {faults:#?}"
            );
        }
    }
}
