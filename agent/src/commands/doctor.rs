//! `doctor`: looks at everything that the agent needs, and says what is wrong and what to do. It
//! disturbs neither a running agent of this configuration nor the brokers that it asks.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use daemon::config::{Lasting, Size};
use daemon::doctor::Findings;
use identity::Identity;
use pcp_client::doctor::{self, Keys};
use pcp_client::{Transport, probe};
use pxp_agent::config::{Config, profile_name};
use pxp_agent::disk::Room;
use pxp_agent::exit::ExitCode;
use pxp_agent::policy::{Policy, PolicyError};
use sandbox::{Facility, Support};

/// Files that are written later than now by more than this say that the clock is wrong.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);

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
    clock(config, &mut findings);
    policy(config, &mut findings);
    directory(
        "spool",
        &config.spool_dir,
        config.spool_reserve,
        &mut findings,
    );
    directory("task cache", &config.cache_dir, 0, &mut findings);
    sandbox(config, &mut findings);
    if identity.is_some() {
        brokers(config, &mut findings).await;
    }
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

/// Nobody here can be asked for the time, but files tell when they were written.
fn clock(config: &Config, findings: &mut Findings) {
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
    let ahead = latest.and_then(|latest| latest.duration_since(now).ok());
    match ahead.filter(|ahead| *ahead > CLOCK_TOLERANCE) {
        Some(ahead) => findings.fail(
            "clock",
            format_args!("files were written {} s in the future", ahead.as_secs()),
            "set the clock (chronyc tracking, timedatectl): certificates go by it",
        ),
        None => findings.ok("clock", jiff::Timestamp::now()),
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
    findings.ok("wrapper", wrapper);
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

async fn brokers(config: &Config, findings: &mut Findings) {
    let mut reached = false;
    let mut failures = Vec::new();
    for broker in &config.brokers {
        let subject = format!("broker {broker}");
        for transport in [Transport::Quic, Transport::WebSocket] {
            // An identity is loaded for each, since the probe keeps what it is given.
            let Ok(identity) = Identity::load(&config.tls) else {
                return;
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
}
