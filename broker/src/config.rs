//! What the broker is told: [`Config`] is what is meant, `file` what may be written, `defaults` the
//! numbers behind what is left out.

mod controller_uri;
mod defaults;
mod file;
mod rules;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::config::{Fault, Lasting, Size, Source};
use daemon::logs::{LogConfig, LogFile};
use identity::{Files, Revocation};
use pcp::{Certname, MessageType};
use pcp_client::BrokerAddress;
use pcp_mesh::Role;

use crate::authorize::rules::{Origin, RuleSet};
use crate::host::EXPECTED_CLIENTS;
use crate::version::Version;
use file::BrokerFile;

pub use controller_uri::ControllerUri;

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Primary or compiler.
    pub role: Role,
    /// The address to listen on, UDP and TCP; port 0 takes any.
    pub listen: SocketAddr,
    /// The primaries that a compiler dials; on a primary, the others beside it.
    pub primaries: Vec<BrokerAddress>,
    /// On a primary: the certnames of the other primaries.
    pub primary_certnames: Vec<Certname>,
    /// Our certificate, key, CA and CRLs.
    pub files: Files,
    /// The certnames that may connect as orchestrator or controller.
    pub controllers: Vec<Certname>,
    /// The controllers that the broker dials.
    pub controller_uris: Vec<ControllerUri>,
    /// The types of messages, in full, that those may send.
    pub controller_allowlist: Vec<String>,
    /// The certnames that may connect as brokers.
    pub brokers: Vec<Certname>,
    /// Which ways in are open.
    pub transports: Transports,
    /// The versions of PCP that are spoken over WebSocket.
    pub versions: Vec<Version>,
    /// How long a WebSocket may be silent.
    pub websocket_idle: Duration,
    /// The largest message body in bytes.
    pub max_message: usize,
    /// The most clients at a time; 0 stands for the limit that the mesh has anyway.
    pub max_connections: usize,
    /// How many handshakes are begun in a second, at most.
    pub handshakes_per_second: u32,
    /// How long a stop may take until the last client is told to go elsewhere and has gone.
    pub drain_time: Duration,
    /// How long messages wait at a compiler that has lost all its primaries.
    pub grace_period: Duration,
    /// What is kept of files that go through this broker.
    pub content_cache: ContentCache,
    /// Where every message is noted; nowhere, if nothing.
    pub access_log: Option<PathBuf>,
    /// Who may read metrics, and where.
    pub metrics: Metrics,
    /// The operator's own rules; without any, what the broker's structure allows is allowed.
    pub rules: Option<RuleSet>,
    /// What is written and has not the effect that its writer may expect. Worth a warning.
    pub notes: Vec<Fault>,
    /// Where logs go.
    pub log: LogConfig,
}

/// The ways in to a broker: at least one is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transports {
    /// QUIC, on UDP.
    pub quic: bool,
    /// WebSocket, on TCP.
    pub websocket: bool,
}

/// What is kept of files that go through a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentCache {
    /// Where.
    pub dir: PathBuf,
    /// The most bytes; 0 keeps nothing.
    pub size: u64,
    /// How many bytes must stay free on its disk.
    pub reserve: u64,
}

/// Who may read metrics, beside whoever shows the broker's own certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics {
    /// These certnames, at the broker's TCP port.
    pub allowlist: Vec<Certname>,
    /// Everybody on this host, at this address of the loopback interface.
    pub listen: Option<SocketAddr>,
}

/// The sections that are read.
const SECTION: &str = "pcp-broker";
const LOG: &str = "log";
const AUTHORIZATION: &str = "authorization";

impl Config {
    /// Reads a file, or all `*.conf` of a directory.
    ///
    /// # Errors
    /// Every fault that was found, each with file, line and key.
    pub fn load(path: &Path) -> Result<Self, Vec<Fault>> {
        let source = Source::read(path)?;
        let mut faults = Vec::new();
        let config = Self::resolve(&source, &mut faults);
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(faults),
        }
    }

    /// What is meant by a file. Without a value for every key that needs one there is nothing, and
    /// the reason is among the faults.
    fn resolve(source: &Source, faults: &mut Vec<Fault>) -> Option<Self> {
        let mut broker: BrokerFile = source.decode(Some(SECTION), faults);
        let log: LogFile = source.decode(Some(LOG), faults);
        let sections = source.keys(None);
        let original = sections
            .iter()
            .any(|section| section == AUTHORIZATION)
            .then(|| source.decode(Some(AUTHORIZATION), faults));
        let mut check = Check {
            source,
            faults,
            notes: Vec::new(),
        };
        check.sections(&sections);
        let rules = check.rules(broker.rules.take(), original);
        let role = broker.role;
        if role.is_none() {
            check.missing("role", "primary or compiler");
        }
        let primaries: Vec<BrokerAddress> = check.list("primaries", broker.primaries.as_deref());
        for (index, primary) in primaries.iter().enumerate() {
            // Each link to it would throw the other out, for ever.
            if primaries.iter().skip(index + 1).any(|p| p == primary) {
                check.wrong("primaries", format_args!("{primary} is named twice"));
            }
        }
        let key = "primary-certnames";
        let primary_certnames = check.list(key, broker.primary_certnames.as_deref());
        match role {
            Some(file::Role::Primary) if !primaries.is_empty() && primary_certnames.is_empty() => {
                check.missing(
                    key,
                    "who the other primaries are, since this one dials them",
                );
            }
            Some(file::Role::Compiler) if !primary_certnames.is_empty() => {
                check.wrong(key, "only a primary has other primaries beside it");
            }
            Some(file::Role::Compiler) if primaries.is_empty() => {
                check.missing("primaries", "a compiler needs at least one HOST:PORT");
            }
            _ => {}
        }
        let controllers = check.list("controllers", broker.controllers.as_deref());
        let controller_uris = check.controller_uris(broker.controller_uris.as_deref());
        let controller_allowlist = check.controller_allowlist(&broker);
        let brokers = check.list("brokers", broker.brokers.as_deref());
        let max_message = broker
            .max_message_size
            .map_or(defaults::MAX_MESSAGE, |s| s.0);
        if !(defaults::LEAST_MAX_MESSAGE..=defaults::MOST_MAX_MESSAGE).contains(&max_message) {
            check.wrong("max-message-size", "must be from 64KiB to 1GiB");
        }
        let content_cache = ContentCache {
            dir: broker
                .content_cache_dir
                .clone()
                .unwrap_or_else(|| defaults::CONTENT_CACHE_DIR.into()),
            size: broker
                .content_cache_size
                .map_or(defaults::CONTENT_CACHE_SIZE, |size| size.0),
            reserve: broker
                .content_cache_reserve
                .map_or(defaults::CONTENT_CACHE_RESERVE, |size| size.0),
        };
        let metrics = check.metrics(&broker);
        let (transports, versions) = check.ways_in(&broker);
        let files = check.files(&broker);
        Some(Self {
            role: match role? {
                file::Role::Primary => Role::Primary,
                file::Role::Compiler => Role::Compiler,
            },
            listen: broker.listen.unwrap_or(defaults::LISTEN),
            primaries,
            primary_certnames,
            files: files?,
            controllers,
            controller_uris,
            controller_allowlist,
            brokers,
            transports,
            versions,
            websocket_idle: broker
                .websocket_idle_timeout
                .map_or(defaults::WEBSOCKET_IDLE, |idle| idle.0),
            max_message: usize::try_from(max_message).ok()?,
            max_connections: broker.max_connections.unwrap_or(0),
            handshakes_per_second: check.rate(broker.handshakes_per_second),
            drain_time: broker
                .drain_time
                .map_or(defaults::DRAIN_TIME, |time| time.0),
            grace_period: broker
                .controller_disconnection_graceperiod
                .map_or(defaults::GRACE_PERIOD, |period| period.0),
            content_cache,
            access_log: broker.pcp_access_logfile,
            metrics,
            rules,
            notes: check.notes,
            log: log.into(),
        })
    }
}

impl Config {
    /// How many clients the host must be fit for.
    pub(crate) fn expected_clients(&self) -> u64 {
        match u64::try_from(self.max_connections) {
            Ok(limit) if limit > 0 => limit,
            _ => EXPECTED_CLIENTS,
        }
    }

    fn rules_of(&self, origin: Origin) -> Option<&RuleSet> {
        self.rules.as_ref().filter(|rules| rules.origin() == origin)
    }
}

/// Collects faults.
struct Check<'a> {
    source: &'a Source,
    faults: &'a mut Vec<Fault>,
    notes: Vec<Fault>,
}

impl Check<'_> {
    /// A fault of a key of our section.
    fn wrong(&mut self, key: &str, problem: impl fmt::Display) {
        self.fault(&format!("{SECTION}.{key}"), problem);
    }

    /// A fault of any key.
    fn fault(&mut self, key: &str, problem: impl fmt::Display) {
        self.faults.push(self.source.fault(key, problem));
    }

    /// What is no fault, and yet should be known.
    fn note(&mut self, key: &str, problem: impl fmt::Display) {
        self.notes.push(self.source.fault(key, problem));
    }

    fn missing(&mut self, key: &str, what: &str) {
        self.wrong(key, format_args!("is missing: {what}"));
    }

    /// Sections of other services are theirs; one that is nobody's is a mistake.
    fn sections(&mut self, sections: &[String]) {
        for section in sections {
            let name = section.as_str();
            let known = [SECTION, LOG, AUTHORIZATION];
            if !known.contains(&name) && !file::OF_OTHERS.contains(&name) {
                let known = known.join(", ");
                self.fault(
                    name,
                    format_args!("unknown section: a broker reads {known}"),
                );
            }
        }
    }

    /// Parses each item of a list, and names each that is wrong.
    fn list<T>(&mut self, key: &str, items: Option<&[String]>) -> Vec<T>
    where
        T: std::str::FromStr<Err: fmt::Display>,
    {
        let mut list = Vec::new();
        for item in items.unwrap_or_default() {
            match item.parse() {
                Ok(value) => list.push(value),
                Err(error) => self.wrong(key, format_args!("{item:?}: {error}")),
            }
        }
        list
    }

    fn controller_uris(&mut self, written: Option<&[String]>) -> Vec<ControllerUri> {
        let key = "controller-uris";
        let uris: Vec<ControllerUri> = self.list(key, written);
        for (index, controller) in uris.iter().enumerate() {
            // Each would take the other's place, for ever.
            if uris.iter().skip(index + 1).any(|c| c.uri == controller.uri) {
                self.wrong(key, format_args!("{} is named twice", controller.address));
            }
        }
        uris
    }

    fn controller_allowlist(&mut self, broker: &BrokerFile) -> Vec<String> {
        let (key, written) = match (&broker.controller_allowlist, &broker.controller_whitelist) {
            (None, Some(written)) => ("controller-whitelist", Some(written)),
            (written, _) => ("controller-allowlist", written.as_ref()),
        };
        let Some(written) = written else {
            return defaults::CONTROLLER_ALLOWLIST.map(str::to_owned).to_vec();
        };
        for text in written {
            if MessageType::parse(text).is_err() {
                self.wrong(key, format_args!("{text:?} is no type of messages"));
            }
        }
        written.clone()
    }

    fn ways_in(&mut self, broker: &BrokerFile) -> (Transports, Vec<Version>) {
        let transports = broker.transports.as_deref();
        let open = |way| transports.is_none_or(|ways| ways.contains(&way));
        let transports = Transports {
            quic: open(file::Transport::Quic),
            websocket: open(file::Transport::Websocket),
        };
        if !transports.quic && !transports.websocket {
            self.wrong("transports", "name at least one of quic and websocket");
        }
        let mut versions = Vec::new();
        for number in broker.pcp_versions.as_deref().unwrap_or(&[1, 2]) {
            match number {
                1 => versions.push(Version::One),
                2 => versions.push(Version::Two),
                other => self.wrong("pcp-versions", format_args!("{other} is neither 1 nor 2")),
            }
        }
        (transports, versions)
    }

    fn metrics(&mut self, broker: &BrokerFile) -> Metrics {
        let listen = broker.metrics_listen;
        if listen.is_some_and(|address| !address.ip().is_loopback()) {
            let problem = "must be a loopback address, since everybody may read there: from other \
                           hosts metrics are read at the broker's port, by metrics-allowlist";
            self.wrong("metrics-listen", problem);
        }
        let allowlist = broker.metrics_allowlist.as_deref();
        Metrics {
            allowlist: self.list("metrics-allowlist", allowlist),
            listen,
        }
    }

    fn files(&mut self, broker: &BrokerFile) -> Option<Files> {
        let mut revocation = Revocation::default();
        if let Some(text) = &broker.certificate_revocation {
            match text.parse() {
                Ok(value) => revocation = value,
                Err(error) => self.wrong("certificate-revocation", error),
            }
        }
        let cert = self.path("ssl-cert", broker.ssl_cert.as_ref());
        let key = self.path("ssl-key", broker.ssl_key.as_ref());
        let ca = self.path("ssl-ca-cert", broker.ssl_ca_cert.as_ref());
        let crl = match (&broker.ssl_crl_path, revocation) {
            (crl, Revocation::None) => Some(crl.clone()),
            (crl, Revocation::Chain | Revocation::Leaf) => {
                self.path("ssl-crl-path", crl.as_ref()).map(Some)
            }
        };
        Some(Files {
            cert: cert?,
            key: key?,
            ca: ca?,
            crl: crl?,
            revocation,
        })
    }

    fn rate(&mut self, written: Option<u32>) -> u32 {
        let rate = written.unwrap_or(defaults::HANDSHAKES_PER_SECOND);
        if rate == 0 {
            self.wrong("handshakes-per-second", "nobody would ever come in");
        }
        rate
    }

    fn path(&mut self, key: &str, path: Option<&PathBuf>) -> Option<PathBuf> {
        if path.is_none() {
            self.missing(key, "the path of a PEM file");
        }
        path.cloned()
    }
}

/// The effective configuration, as a file that means the same.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |names: &[Certname]| format!("{:?}", texts(names));
        writeln!(f, "{SECTION} {{")?;
        writeln!(f, "  role: {}", role_name(self.role))?;
        writeln!(f, "  listen: \"{}\"", self.listen)?;
        writeln!(f, "  primaries: {:?}", texts(&self.primaries))?;
        if !self.primary_certnames.is_empty() {
            let others = names(&self.primary_certnames);
            writeln!(f, "  primary-certnames: {others}")?;
        }
        writeln!(f, "  ssl-cert: {:?}", self.files.cert)?;
        writeln!(f, "  ssl-key: {:?}", self.files.key)?;
        writeln!(f, "  ssl-ca-cert: {:?}", self.files.ca)?;
        if let Some(crl) = &self.files.crl {
            writeln!(f, "  ssl-crl-path: {crl:?}")?;
        }
        writeln!(f, "  certificate-revocation: {}", self.files.revocation)?;
        writeln!(f, "  controllers: {}", names(&self.controllers))?;
        if !self.controller_uris.is_empty() {
            writeln!(f, "  controller-uris: {:?}", texts(&self.controller_uris))?;
            writeln!(f, "  controller-allowlist: {:?}", self.controller_allowlist)?;
        }
        writeln!(f, "  brokers: {}", names(&self.brokers))?;
        let mut ways = Vec::new();
        ways.extend(self.transports.quic.then_some("quic"));
        ways.extend(self.transports.websocket.then_some("websocket"));
        writeln!(f, "  transports: {ways:?}")?;
        let versions = self.versions.iter().map(|version| match version {
            Version::One => 1,
            Version::Two | Version::Native => 2,
        });
        writeln!(f, "  pcp-versions: {:?}", versions.collect::<Vec<u8>>())?;
        let idle = Lasting(self.websocket_idle);
        writeln!(f, "  websocket-idle-timeout: \"{idle}\"")?;
        let size = u64::try_from(self.max_message).unwrap_or(u64::MAX);
        writeln!(f, "  max-message-size: \"{}\"", Size(size))?;
        writeln!(f, "  max-connections: {}", self.max_connections)?;
        let rate = self.handshakes_per_second;
        writeln!(f, "  handshakes-per-second: {rate}")?;
        writeln!(f, "  drain-time: \"{}\"", Lasting(self.drain_time))?;
        let period = Lasting(self.grace_period);
        writeln!(f, "  controller-disconnection-graceperiod: \"{period}\"")?;
        if let Some(path) = &self.access_log {
            writeln!(f, "  pcp-access-logfile: {path:?}")?;
        }
        let cache = &self.content_cache;
        writeln!(f, "  content-cache-dir: {:?}", cache.dir)?;
        writeln!(f, "  content-cache-size: \"{}\"", Size(cache.size))?;
        let reserve = Size(cache.reserve);
        writeln!(f, "  content-cache-reserve: \"{reserve}\"")?;
        let allowlist = names(&self.metrics.allowlist);
        writeln!(f, "  metrics-allowlist: {allowlist}")?;
        if let Some(address) = self.metrics.listen {
            writeln!(f, "  metrics-listen: \"{address}\"")?;
        }
        if let Some(rules) = self.rules_of(Origin::Ours) {
            writeln!(f, "  rules: {rules}")?;
        }
        writeln!(f, "}}")?;
        if let Some(rules) = self.rules_of(Origin::Original) {
            writeln!(f, "authorization {{")?;
            writeln!(f, "  version: 1")?;
            writeln!(f, "  rules: {rules}")?;
            writeln!(f, "}}")?;
        }
        writeln!(f, "log {{")?;
        writeln!(f, "  level: {}", self.log.level)?;
        writeln!(f, "  format: {}", self.log.format)?;
        if let daemon::logs::Target::File(path) = &self.log.target {
            writeln!(f, "  file: {path:?}")?;
        }
        write!(f, "}}")
    }
}

/// The word for a role.
pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Primary => "primary",
        Role::Compiler => "compiler",
    }
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests;
