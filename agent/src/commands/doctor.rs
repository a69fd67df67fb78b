//! `doctor`: looks at everything that the agent needs, and says what is wrong and what to do. It
//! disturbs neither a running agent of this configuration nor the brokers that it asks.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use daemon::config::{Lasting, Size};
use daemon::doctor::Findings;
use identity::Identity;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use pcp_client::doctor::{self, Keys};
use pcp_client::{Transport, probe};
use pxp_agent::config::{Config, profile_name};
use pxp_agent::discovery;
use pxp_agent::disk::Room;
use pxp_agent::exit::ExitCode;
use pxp_agent::policy::{Policy, PolicyError};
use sandbox::{Facility, Support};

/// Files that are written later than now by more than this say that the clock is wrong, and so does a
/// broker whose clock is so far from ours.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);

/// A difference that is no fault yet, and that no clock has which is kept by a server of time.
const CLOCK_DRIFT: u64 = 30;

/// Fewer files than this, and a spool will soon be full.
const FEW_FILES: u64 = 10_000;

const KEYS: Keys = Keys {
    place: "the configuration",
    crl: "ssl-crl",
};

/// Prints what was found; ends with 1 if something does not work.
pub(crate) async fn run(config: &Config) -> ExitCode {
    let mut findings = Findings::default();
    configuration(config, &mut findings);
    let identity = doctor::certificate(&config.tls, KEYS, &mut findings);
    policy(config, &mut findings);
    directory(
        "spool",
        &config.spool_dir,
        config.spool_reserve,
        &mut findings,
    );
    directory("task cache", &config.cache_dir, 0, &mut findings);
    sandbox(config, &mut findings);
    modules(config, &mut findings);
    let mut ahead = None;
    if identity.is_some() {
        ahead = brokers(config, &mut findings).await;
        primaries(config, &mut findings).await;
    }
    clock(config, ahead, &mut findings);
    let mut text = Vec::new();
    // A vector takes everything.
    findings.print(&mut text).ok();
    super::print(&String::from_utf8_lossy(&text));
    match findings.exit_code() {
        daemon::ExitCode::Ok => ExitCode::Ok,
        _ => ExitCode::Failure,
    }
}

fn configuration(config: &Config, findings: &mut Findings) {
    findings.ok("configuration", config.path.display());
    for key in &config.without_effect {
        findings.warn(
            "configuration",
            format_args!("{key} has no effect in this agent"),
            "take it out, if nothing else reads the file",
        );
    }
    if !nix::unistd::geteuid().is_root() {
        findings.warn(
            "user",
            "an ordinary user's: tasks run as it and cannot manage the node",
            "run the agent, and this command, as root",
        );
    }
}

/// A broker says the time, by which its clock is so many seconds ahead of ours; and files tell when they
/// were written.
fn clock(config: &Config, ahead: Option<i64>, findings: &mut Findings) {
    let now = SystemTime::now();
    let latest = [
        &config.tls.cert,
        &config.tls.ca,
        &config.path,
        &config.spool_dir,
    ]
    .into_iter()
    .chain(&config.tls.crl)
    .filter_map(|path| fs::metadata(path).ok()?.modified().ok())
    .max();
    let advice = "set the clock (chronyc tracking, timedatectl): certificates go by it";
    let future = latest.and_then(|latest| latest.duration_since(now).ok());
    if let Some(future) = future.filter(|future| *future > CLOCK_TOLERANCE) {
        let found = format!("files were written {} s in the future", future.as_secs());
        findings.fail("clock", found, advice);
        return;
    }
    let now = Timestamp::now();
    let Some(ahead) = ahead else {
        findings.ok("clock", now);
        return;
    };
    let word = if ahead > 0 { "behind" } else { "ahead of" };
    let difference = ahead.unsigned_abs();
    let found = format!("{now}, {difference} s {word} a broker's");
    if difference > CLOCK_TOLERANCE.as_secs() {
        findings.fail("clock", found, advice);
    } else if difference > CLOCK_DRIFT {
        findings.warn("clock", found, advice);
    } else {
        findings.ok("clock", found);
    }
}

fn policy(config: &Config, findings: &mut Findings) {
    let policy = match Policy::load(&config.policy_dir) {
        Ok(policy) => policy,
        Err(PolicyError(faults)) => {
            for fault in faults {
                let advice = "mend it: the agent does not start with a broken policy";
                findings.fail("policy", fault, advice);
            }
            return;
        }
    };
    let default = if policy.allows_by_default() {
        "allow"
    } else {
        "refuse"
    };
    findings.ok(
        "policy",
        format_args!(
            "{} rules in {}, otherwise {default}; tasks run as {}",
            policy.rules(),
            config.policy_dir.display(),
            profile_name(config.profile)
        ),
    );
    let controllers = config.controllers.len() + policy.controllers().len();
    if controllers == 0 {
        findings.fail(
            "controllers",
            "none: every request is refused",
            "controllers: [\"<the orchestrator's certname>\"] in the configuration or in a file of the policy",
        );
    } else {
        findings.ok("controllers", format_args!("{controllers} named"));
    }
}

fn directory(what: &str, path: &Path, reserve: u64, findings: &mut Findings) {
    // One that is not there yet is made where its parents are.
    let there = path.ancestors().find(|path| path.exists());
    let room = match there.map(Room::of) {
        Some(Ok(room)) => room,
        Some(Err(error)) => {
            let found = format!("{}: {error}", path.display());
            findings.fail(what, found, "the agent's user must be able to use it");
            return;
        }
        None => return,
    };
    let found = format!("{}, {} bytes free", path.display(), room.bytes);
    if room.bytes < reserve {
        findings.fail(
            what,
            format_args!(
                "{found}, and {} are kept: no new work is taken",
                Size(reserve)
            ),
            "free space there, or lower spool-dir-reserve",
        );
    } else if room.files.is_some_and(|files| files < FEW_FILES) {
        findings.warn(
            what,
            format_args!("{found}, room for {} files", room.files.unwrap_or_default()),
            "remove files there: `df -i` shows them",
        );
    } else {
        findings.ok(what, found);
    }
}

fn sandbox(config: &Config, findings: &mut Findings) {
    let wrapper = config.wrapper.display().to_string();
    let support = Support::probe(&config.wrapper);
    let none = matches!(
        (&support.cgroup, &support.pid_namespace),
        (Facility::Missing(_), Facility::Missing(_))
    );
    if none {
        findings.fail(
            "containment",
            support.describe().join("; "),
            format_args!("the agent does not start; is {wrapper} the one installed with it?"),
        );
        return;
    }
    match sandbox::version_of(&config.wrapper) {
        Ok(version) if version == daemon::VERSION => {
            findings.ok("wrapper", format_args!("{wrapper}, {version}"));
        }
        Ok(version) => findings.fail(
            "wrapper",
            format_args!("{wrapper} is {version}, and the agent {}", daemon::VERSION),
            "install both of one package: an agent and a wrapper of different versions may not agree",
        ),
        Err(error) => findings.fail(
            "wrapper",
            format_args!("{wrapper}: {error}"),
            "install the one of the agent's package",
        ),
    }
    for line in support.describe() {
        if line.contains("missing: ") {
            let advice = "what needs it is refused on this node, never weakened";
            findings.warn("containment", line, advice);
        } else {
            findings.ok("containment", line);
        }
    }
    let limits = [
        config
            .task_memory_limit
            .map(|bytes| format!("memory {}", Size(bytes))),
        config
            .task_process_limit
            .map(|count| format!("{count} processes")),
        config
            .task_cpu_limit
            .map(|share| format!("{share}% of a processor")),
    ];
    let limits: Vec<_> = limits.into_iter().flatten().collect();
    let time = Lasting(config.task_time_limit);
    findings.ok("limits", format_args!("time {time} {}", limits.join(", ")));
}

/// What external modules say of themselves only an agent asks; it tells in its log.
fn modules(config: &Config, findings: &mut Findings) {
    for (name, looked) in discovery::look(config) {
        match looked {
            Ok(()) => findings.ok("module", name),
            Err(error) => findings.fail(
                "module",
                format_args!("{name}: {error}"),
                "mend it, and have the agent read its modules again (SIGHUP)",
            ),
        }
    }
}

/// How far the clock of a broker is ahead of ours, in seconds, if one was reached that says the time.
async fn brokers(config: &Config, findings: &mut Findings) -> Option<i64> {
    let mut reached = false;
    let mut ahead = None;
    let mut failures = Vec::new();
    for broker in &config.brokers {
        let subject = format!("broker {broker}");
        for transport in [Transport::Quic, Transport::WebSocket] {
            // An identity is loaded for each, since the probe keeps what it is given.
            let Ok(identity) = Identity::load(&config.tls) else {
                return ahead;
            };
            let tried = match transport {
                _ if !config.ways.allow(transport) => continue,
                Transport::Quic => probe::quic(broker, identity).await,
                Transport::WebSocket => {
                    probe::https(broker, config.proxy.as_ref(), &identity).await
                }
            };
            match tried {
                Ok(found) => {
                    reached = true;
                    let took = found.took.as_millis();
                    let way = format!("{} over {transport}, {took} ms", found.broker);
                    findings.ok(&subject, way);
                    ahead = ahead.or(found.date.as_deref().and_then(ahead_of_us));
                }
                Err(error) => failures.push((subject.clone(), transport, error)),
            }
        }
    }
    for (subject, transport, error) in failures {
        let protocol = match transport {
            Transport::Quic => "UDP",
            Transport::WebSocket => "TCP",
        };
        let advice = format!("is {protocol} 8142 open on the way, and the broker running?");
        let error = format!("{transport}: {error}");
        if reached {
            findings.warn(&subject, error, advice);
        } else {
            findings.fail(&subject, error, advice);
        }
    }
    ahead
}

/// How far a clock that says this in HTTP's header `Date` is ahead of ours, in seconds.
fn ahead_of_us(date: &str) -> Option<i64> {
    let there = rfc2822::parse(date).ok()?.timestamp();
    Some(there.as_second() - Timestamp::now().as_second())
}

async fn primaries(config: &Config, findings: &mut Findings) {
    let Ok(identity) = Identity::load(&config.tls) else {
        return;
    };
    let proxy = config.downloads.proxy.as_ref();
    for server in &config.downloads.primaries {
        let subject = "primary";
        // Any answer will do; nothing is logged in or changed by the question.
        match probe::https(server.address(), proxy, &identity).await {
            Ok(reached) => {
                let took = reached.took.as_millis();
                findings.ok(subject, format_args!("{server} answers, {took} ms"));
            }
            Err(error) => findings.warn(
                subject,
                format_args!("{server}: {error}"),
                "files that no broker has cannot be had from there (primary-uris, master-proxy)",
            ),
        }
    }
}
