//! `pxp-orchestrator doctor`: looks at everything that an orchestrator needs, and says what is wrong
//! and what to do. It disturbs neither a running orchestrator of this configuration nor the services
//! that it asks.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use daemon::doctor::Findings;
use identity::Identity;
use orchestrator_api::{Services, path};
use pcp_client::doctor::{self, Keys};
use reqwest::{Method, Url};

use crate::classifier::{GroupError, Groups};
use crate::clock::wall;
use crate::config::Config;
use crate::estate::{self, Estate};
use crate::library::Library;
use crate::puppetdb::{PuppetDb, PuppetDbError};
use crate::puppetserver::{PuppetServer, ServerError};
use crate::service::{Service, ServiceError, Source};
use crate::store::{self, Contents, StoreError};

const KEYS: Keys = Keys {
    place: "the section orchestrator (or global.certs)",
    crl: "ssl-crl-path",
};

/// Where results are written, less room than this is soon used up.
const LITTLE_ROOM: u64 = 1 << 30;

/// A clock that is off by more seconds makes certificates and time limits wrong.
const CLOCK_TOLERANCE: i64 = 60;

/// An environment that every estate has, and a group that every classifier has.
const EVERYWHERE: &str = orchestrator_api::DEFAULT_ENVIRONMENT;
const ALL_NODES: &str = "00000000-0000-4000-8000-000000000000";

/// The longest answer of our own status.
const MAX_STATUS: usize = 64 * 1024;

/// Looks at everything, in the order in which it would fail.
pub async fn examine(config: &Config) -> Findings {
    let mut findings = Findings::default();
    findings.ok(
        "configuration",
        format_args!("to listen on {}", config.listen),
    );
    for note in &config.notes {
        findings.warn("configuration", note, "see `pxp-orchestrator check-config`");
    }
    let identity = doctor::certificate(&config.ssl, KEYS, &mut findings).map(Arc::new);
    database(config, &mut findings);
    modules(config, &mut findings);
    let Some(identity) = identity else {
        return findings;
    };
    let certname = identity.certname().to_string();
    let shared = Arc::clone(&identity);
    let source: Source = Arc::new(move || Arc::clone(&shared));
    let estate = Estate::of(config, &source);
    match &estate.puppetdb {
        Some(puppetdb) => ask_puppetdb(puppetdb, &certname, &mut findings).await,
        None => findings.warn(
            "PuppetDB",
            "is not configured: no queries, no node groups, no reports of Puppet runs",
            "puppetdb-url: \"https://HOST:8081\" in the section orchestrator, if there is one",
        ),
    }
    // What it keeps is made when it is needed.
    let server = estate::puppet_server(config, &source, Library::new());
    if let Some(server) = &server {
        ask_puppet_server(server, &certname, &mut findings).await;
    }
    let puppetdb = estate.puppetdb.as_deref();
    clock(puppetdb, server.as_deref(), &mut findings);
    if let Some(groups) = &estate.groups {
        ask_groups(groups, &certname, &mut findings).await;
    }
    brokers(config, &mut findings).await;
    api(config, &source, &certname, &mut findings).await;
    findings
}

fn database(config: &Config, findings: &mut Findings) {
    let subject = "database";
    let path = &config.database;
    let shown = path.display();
    match fs::metadata(path) {
        Ok(file) => {
            let mode = file.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                findings.warn(
                    subject,
                    format_args!("{shown} has mode {mode:o}: others can read results"),
                    format_args!("chmod 600 {shown}*"),
                );
            }
            match store::examine(path, wall()) {
                Ok(contents) => {
                    let jobs = contents.jobs;
                    findings.ok(
                        subject,
                        format_args!("{shown}, sound, {jobs} jobs, {} bytes", file.len()),
                    );
                    users(config, &contents, findings);
                }
                Err(error) => {
                    let advice = match &error {
                        StoreError::TooNew { .. } => {
                            "run the version of pxp-orchestrator that has written it, or a newer one"
                        }
                        _ => "restore it from a backup, or move it away to begin anew",
                    };
                    findings.fail(
                        subject,
                        format_args!("{shown}: {}", error.with_hint()),
                        advice,
                    );
                }
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => findings.warn(
            subject,
            format_args!("{shown} is not there yet: it is made at the first start"),
            "pxp-orchestrator user add LOGIN --role Administrators makes it too, with the first user",
        ),
        Err(error) => findings.fail(
            subject,
            format_args!("{shown}: {error}"),
            "the service's user must be able to use it, and its directory",
        ),
    }
    // One that is not there yet is made where its parents are.
    if let Some(there) = path.ancestors().skip(1).find(|path| path.exists()) {
        directory(there, config, findings);
    }
}

/// Results are written where the database is, by the user whose file it is.
fn directory(path: &Path, config: &Config, findings: &mut Findings) {
    let subject = "disk";
    let shown = path.display();
    let room = match nix::sys::statvfs::statvfs(path) {
        Ok(room) => room.blocks_available().saturating_mul(room.fragment_size()),
        Err(error) => {
            findings.fail(
                subject,
                format_args!("{shown}: {error}"),
                "is it mounted, and may the service's user use it?",
            );
            return;
        }
    };
    if room < LITTLE_ROOM {
        findings.warn(
            subject,
            format_args!("{shown} has {room} bytes left"),
            "make room there, or lower job-prune-threshold: when it is full no job is taken",
        );
    } else {
        findings.ok(subject, format_args!("{shown}, {room} bytes free"));
    }
    let owner = |path: &Path| fs::metadata(path).ok().map(|file| file.uid());
    let (file, around) = (owner(&config.database), owner(path));
    if let (Some(file), Some(around)) = (file, around)
        && file != 0
        && around != file
    {
        findings.warn(
            subject,
            format_args!("{shown} belongs to user {around}, the database in it to {file}"),
            format_args!("chown {file} {shown}: the database has other files beside it"),
        );
    }
}

/// Who may call.
fn users(config: &Config, contents: &Contents, findings: &mut Findings) {
    let Some(logins) = &contents.logins else {
        findings.warn(
            "database",
            format_args!(
                "is of version {}, and is brought to {} at the next start",
                contents.version, contents.known
            ),
            "keep a backup: an older pxp-orchestrator cannot read it then",
        );
        return;
    };
    let access = &config.access;
    for (certname, login) in &access.allowlist {
        if logins.contains(login) {
            let found = format!("the certificate {certname} acts as {login}");
            findings.ok("allow-list", found);
        } else {
            findings.fail(
                "allow-list",
                format_args!("the certificate {certname} acts as {login:?}, which is no user"),
                format_args!("pxp-orchestrator user add {login} --role Operators"),
            );
        }
    }
    if logins.is_empty() && contents.tokens == 0 && access.service.is_none() {
        findings.warn(
            "users",
            "there are none, and no token: nobody may do anything",
            "pxp-orchestrator user add LOGIN --role Administrators",
        );
    } else {
        let (users, tokens) = (logins.len(), contents.tokens);
        findings.ok("users", format_args!("{users}, with {tokens} valid tokens"));
    }
}

/// Module directories on this host.
fn modules(config: &Config, findings: &mut Findings) {
    for (environment, directories) in &config.environments {
        for directory in directories {
            let shown = directory.display();
            match fs::read_dir(directory) {
                Ok(entries) => findings.ok(
                    "modules",
                    format_args!("{environment}: {shown}, {} entries", entries.count()),
                ),
                Err(error) => findings.fail(
                    "modules",
                    format_args!("{environment}: {shown}: {error}"),
                    "name the modules' directories in environments { … { modulepath: [\"…\"] } }, \
                     or Puppet Server by master-url, in the section orchestrator",
                ),
            }
        }
    }
}

async fn ask_puppetdb(puppetdb: &PuppetDb, certname: &str, findings: &mut Findings) {
    let subject = "PuppetDB";
    match puppetdb.count_nodes().await {
        Ok(0) => findings.warn(
            subject,
            "answers, and knows no node",
            "do the nodes' Puppet runs store their facts in it (puppetdb.conf, routes.yaml)?",
        ),
        Ok(nodes) => findings.ok(subject, format_args!("answers, and knows {nodes} nodes")),
        Err(PuppetDbError::Service(error)) => {
            let line = format!(
                "on its host, add the line {certname} to the file that certificate-allowlist names \
                 in the section [puppetdb] of its configuration, and restart it"
            );
            service(subject, &error, &line, "puppetdb-url", findings);
        }
        Err(error) => findings.fail(
            subject,
            error,
            "is that a PuppetDB, of version 7 or newer? See puppetdb-url",
        ),
    }
}

async fn ask_puppet_server(server: &PuppetServer, certname: &str, findings: &mut Findings) {
    let subject = "Puppet Server";
    let line = |path: &str| {
        format!(
            "in its auth.conf: {{ match-request: {{ path: \"{path}\", type: path, method: get }}, \
             allow: [\"{certname}\"], sort-order: 400, name: \"pxp-orchestrator {path}\" }}"
        )
    };
    let refused = |path: &str, error: ServerError, findings: &mut Findings| match error {
        ServerError::Service(error) => {
            service(subject, &error, &line(path), "master-url", findings);
        }
        error => findings.fail(subject, error, "see the log of Puppet Server"),
    };
    let names = match server.environments().await {
        Ok(names) => names,
        Err(error) => return refused("/puppet/v3/environments", error, findings),
    };
    let first = names.iter().next();
    let Some(asked) = names.get(EVERYWHERE).or(first) else {
        findings.fail(
            subject,
            "answers, and has no environment",
            "deploy code to it, as by r10k",
        );
        return;
    };
    match server.list(asked).await {
        Ok(tasks) => findings.ok(
            subject,
            format_args!(
                "answers: {} environments, {} tasks in {asked}",
                names.len(),
                tasks.len()
            ),
        ),
        Err(error) => refused("/puppet/v3/tasks", error, findings),
    }
}

async fn ask_groups(groups: &Groups, certname: &str, findings: &mut Findings) {
    let subject = "node groups";
    match groups.meaning(ALL_NODES).await {
        // A file need not have that group, and has been read; the rest is as good as an answer.
        Ok(_) | Err(GroupError::Unknown(_)) => findings.ok(subject, "are known"),
        Err(GroupError::Service(error)) => {
            let line = format!(
                "add {certname} to the classifier's allow-list of certificates (its rbac-certificate-allowlist)"
            );
            service(subject, &error, &line, "classifier-service", findings);
        }
        Err(error) => findings.fail(subject, error, "mend the file that node-groups-file names"),
    }
}

/// A service that gave no answer. `line` is what lets our certificate in, `key` where it is named.
fn service(subject: &str, error: &ServiceError, line: &str, key: &str, findings: &mut Findings) {
    match error {
        ServiceError::Refused { .. } => findings.fail(subject, error, line),
        ServiceError::Unreachable { .. } => findings.fail(
            subject,
            error,
            format_args!("is it running, is its port open on the way, is {key} right?"),
        ),
        ServiceError::Status { .. } | ServiceError::Answer { .. } => findings.fail(
            subject,
            error,
            format_args!("see its log; is {key} the address of such a service?"),
        ),
    }
}

/// Servers tell their time with each answer.
fn clock(puppetdb: Option<&PuppetDb>, server: Option<&PuppetServer>, findings: &mut Findings) {
    let told = [
        ("PuppetDB", puppetdb.and_then(PuppetDb::ahead)),
        ("Puppet Server", server.and_then(PuppetServer::ahead)),
    ];
    for (name, ahead) in told {
        match ahead {
            Some(ahead) if ahead.abs() > CLOCK_TOLERANCE => findings.fail(
                "clock",
                format_args!("that of {name} is {ahead} s ahead of ours"),
                "set both clocks (chronyc tracking, timedatectl): certificates go by them",
            ),
            Some(ahead) => findings.ok("clock", format_args!("{name}'s differs by {ahead} s")),
            None => {}
        }
    }
}

async fn brokers(config: &Config, findings: &mut Findings) {
    let mut reached = false;
    let mut failures = Vec::new();
    for broker in &config.brokers {
        // An identity is loaded for each, since the probe keeps what it is given.
        let Ok(identity) = Identity::load(&config.ssl) else {
            return;
        };
        let subject = format!("broker {broker}");
        match doctor::reach(broker, identity, &subject, findings).await {
            Ok(()) => reached = true,
            Err(error) => failures.push((subject, error)),
        }
    }
    for (subject, error) in failures {
        if reached {
            findings.warn(&subject, error, doctor::BROKER_ADVICE);
        } else {
            findings.fail(&subject, error, doctor::BROKER_ADVICE);
        }
    }
}

/// Whether an orchestrator runs here, and what it says of itself. It alone knows whether the brokers
/// let it command agents: a session of ours would end its own.
async fn api(config: &Config, source: &Source, certname: &str, findings: &mut Findings) {
    let subject = "API";
    let listen = config.listen;
    match TcpListener::bind(listen) {
        Ok(_) => {
            findings.warn(
                subject,
                format_args!("{listen} is free: no orchestrator is running here"),
                "systemctl start pxp-orchestrator",
            );
            return;
        }
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
        Err(error) => {
            findings.fail(
                subject,
                format_args!("{listen} cannot be listened on: {error}"),
                "listen: \"ADDRESS:PORT\" with an address of this host, in the section orchestrator",
            );
            return;
        }
    }
    let services = match status(listen, source, certname).await {
        Ok(services) => services,
        Err(error) => {
            findings.fail(
                subject,
                format_args!("{listen} is in use, and no orchestrator answers: {error}"),
                "what listens there? `ss -ltnp` tells",
            );
            return;
        }
    };
    let status = services.get(path::SERVICE);
    let alerts = status.map(|status| status.active_alerts.as_slice());
    let alerts: Vec<&str> = alerts
        .unwrap_or_default()
        .iter()
        .filter_map(|alert| alert.get("message")?.as_str())
        .collect();
    if alerts.is_empty() {
        let broker = status.and_then(|status| status.status.get("broker")?.as_str());
        let broker = broker.unwrap_or("a broker");
        findings.ok(
            subject,
            format_args!("an orchestrator answers on {listen}, connected to {broker}"),
        );
    }
    for alert in alerts {
        findings.fail(
            subject,
            format_args!("the orchestrator on {listen} says: {alert}"),
            format_args!(
                "its log says why; each broker needs controllers: [\"{certname}\"] in the section pcp-broker"
            ),
        );
    }
}

async fn status(
    listen: SocketAddr,
    source: &Source,
    certname: &str,
) -> Result<Services, ServiceError> {
    let at = match listen {
        SocketAddr::V4(_) if listen.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) if listen.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        listen => listen.ip(),
    };
    let url = format!("https://{certname}:{}", listen.port());
    let addresses: Vec<Url> = url.parse().into_iter().collect();
    let service = Service::new("the orchestrator", addresses, Arc::clone(source))
        .at(certname, SocketAddr::new(at, listen.port()));
    let answer = service
        .ask(&Method::GET, path::STATUS_SERVICES, |request| request)
        .await?;
    answer.json(MAX_STATUS).await
}
