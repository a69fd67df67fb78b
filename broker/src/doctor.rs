//! `pcp-broker doctor`: looks at everything that a broker needs, and says what is wrong and what to do.
//! It disturbs neither a running broker of this configuration nor the primaries that it asks.

use std::net::UdpSocket;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daemon::doctor::Findings;
use identity::{Identity, IdentityError, Revocation};
use pcp_client::probe;

use crate::config::{Config, role_name};
use crate::host::{EXPECTED_CLIENTS, Host};

/// A certificate that ends sooner is worth a warning.
const SOON: i64 = identity::EXPIRY_WARNING_DAYS;

const DAY: u64 = 24 * 3600;

/// Looks at everything, in the order in which it would fail.
pub async fn examine(config: &Config) -> Findings {
    let mut findings = Findings::default();
    findings.ok(
        "configuration",
        format_args!("{}, to listen on {}", role_name(config.role), config.listen),
    );
    for note in &config.notes {
        findings.warn("configuration", note, "see `pcp-broker check-config`");
    }
    roles(config, &mut findings);
    match Identity::load(&config.files) {
        Ok(identity) => {
            certificate(config, &identity, SystemTime::now(), &mut findings);
            port(config, &mut findings);
            for primary in &config.primaries {
                // An identity is loaded for each, since the probe keeps what it is given.
                if let Ok(identity) = Identity::load(&config.files) {
                    let subject = format!("primary {primary}");
                    reach(
                        &subject,
                        probe::quic(primary, identity).await,
                        &mut findings,
                    );
                }
            }
        }
        Err(error) => {
            let advice = advice(&error);
            findings.fail("certificate", daemon::error_chain(&error), advice);
            port(config, &mut findings);
        }
    }
    let clients = match u64::try_from(config.max_connections) {
        Ok(limit) if limit > 0 => limit,
        _ => EXPECTED_CLIENTS,
    };
    Host::read().judge(clients, &mut findings);
    findings
}

/// Lists without which a broker runs and is of no use.
fn roles(config: &Config, findings: &mut Findings) {
    if config.controllers.is_empty() && config.rules.is_none() {
        findings.warn(
            "controllers",
            "nobody may command agents through this broker",
            "controllers: [\"<the orchestrator's certname>\"] in the section pcp-broker",
        );
    }
    if config.primaries.is_empty() && config.brokers.is_empty() {
        findings.warn(
            "brokers",
            "no compiler may connect to this primary",
            "brokers: [\"<a compiler's certname>\", …] in the section pcp-broker, if there are any",
        );
    }
}

fn certificate(config: &Config, identity: &Identity, now: SystemTime, findings: &mut Findings) {
    let subject = "certificate";
    let days = identity.days_to_expiry(now);
    let found = format!("{}, good for {days} more days", identity.certname());
    if days < SOON {
        let advice = "renew it; a running broker takes the new one by itself";
        findings.warn(subject, found, advice);
    } else {
        findings.ok(subject, found);
    }
    if let Err(error) = identity.verify_own() {
        findings.fail(
            subject,
            format_args!("peers will not take it: {error}"),
            "compare ssl-cert with ssl-ca-cert: it must be issued by that CA and not be revoked",
        );
    }
    let subject = "revocation";
    match (config.files.revocation, identity.crl_next_update()) {
        (Revocation::None, _) => findings.warn(
            subject,
            "is not checked: a stolen certificate stays good",
            "certificate-revocation: chain, and ssl-crl-path",
        ),
        (_, None) => findings.ok(
            subject,
            "lists are there, and say no time of their next issue",
        ),
        (_, Some(next)) => {
            let now = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
            match next.checked_sub(now) {
                Some(left) => findings.ok(
                    subject,
                    format_args!("lists are current for {} more days", left / DAY),
                ),
                None => findings.fail(
                    subject,
                    format_args!("a list is out of date for {} days: all are refused", (now - next) / DAY),
                    "fetch the CA's crl.pem again (`puppet agent -t` does), or let the CA issue a new one",
                ),
            }
        }
    }
}

fn advice(error: &IdentityError) -> &'static str {
    match error {
        IdentityError::KeyMismatch { .. } => "ssl-cert and ssl-key must be of the same certname",
        IdentityError::Read { .. } => {
            "the path must exist and the broker's user must be able to read it"
        }
        _ => "see the section pcp-broker: ssl-cert, ssl-key, ssl-ca-cert, ssl-crl-path",
    }
}

/// Whether the port is free, or whether somebody listens there, which a running broker does.
fn port(config: &Config, findings: &mut Findings) {
    let address = config.listen;
    match UdpSocket::bind(address) {
        Ok(_) => findings.warn(
            "UDP port",
            format_args!("{address} is free: no broker is running here"),
            "systemctl start pcp-broker",
        ),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            findings.ok(
                "UDP port",
                format_args!("{address} is in use, as by a running broker"),
            );
        }
        Err(error) => findings.fail(
            "UDP port",
            format_args!("{address} cannot be listened on: {error}"),
            "listen: \"ADDRESS:PORT\" with an address of this host, in the section pcp-broker",
        ),
    }
}

fn reach(
    subject: &str,
    outcome: Result<probe::Reached, probe::NotReached>,
    findings: &mut Findings,
) {
    match outcome {
        Ok(reached) => findings.ok(
            subject,
            format_args!(
                "{} at {} answered in {} ms",
                reached.broker,
                reached.address,
                reached.took.max(Duration::from_millis(1)).as_millis()
            ),
        ),
        Err(error) => findings.fail(
            subject,
            error,
            "is it running, is UDP 8142 open on the way, is its certificate for that name?",
        ),
    }
}
