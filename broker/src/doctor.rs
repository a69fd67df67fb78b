//! `pcp-broker doctor`: looks at everything that a broker needs, and says what is wrong and what to do.
//! It disturbs neither a running broker of this configuration nor the primaries that it asks.

use std::net::UdpSocket;

use daemon::doctor::Findings;
use identity::Identity;
use pcp_client::doctor::{self, Keys};

use crate::config::{Config, role_name};
use crate::host::Host;

const KEYS: Keys = Keys {
    place: "the section pcp-broker",
    crl: "ssl-crl-path",
};

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
    let identity = doctor::certificate(&config.files, KEYS, &mut findings);
    port(config, &mut findings);
    if identity.is_some() {
        for primary in &config.primaries {
            // An identity is loaded for each, since the probe keeps what it is given.
            let Ok(identity) = Identity::load(&config.files) else {
                continue;
            };
            let subject = format!("primary {primary}");
            let reached = doctor::reach(primary, identity, &subject, &mut findings).await;
            if let Err(error) = reached {
                findings.fail(&subject, error, doctor::BROKER_ADVICE);
            }
        }
    }
    Host::read().judge(config.expected_clients(), &mut findings);
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
