//! Keys of the original that have no effect here, each with where its purpose went. They are told
//! and not refused, so that a folder that served the original can be taken over as it is.

use daemon::config::Fault;

/// Keys or whole sections, with dots, and why nothing follows from them.
const IGNORED: [(&str, &str); 34] = [
    (
        "authorization",
        "who may do what is said by roles: pxp-orchestrator role list",
    ),
    ("ace-server", "there are no agentless devices"),
    ("analytics", "nothing is sent to anybody"),
    ("bolt-server", "there are no targets without agents"),
    (
        "file-sync",
        "task files travel through the mesh by their digest",
    ),
    ("inventory", "there are no targets without agents"),
    ("jruby-puppet", "this is no Puppet Server"),
    ("metrics", "metrics are at /metrics"),
    ("nrepl", "there is no REPL"),
    (
        "pcp-broker",
        "the broker is a process of its own and reads /etc/puppetlabs/pcp-broker/conf.d",
    ),
    (
        "plan-executor",
        "plans are run by Bolt, which tells of them by the API",
    ),
    ("status", "status is always served"),
    ("web-router-service", "paths are fixed"),
    ("global.hostname", "the name is that of the certificate"),
    ("global.logging-config", "logs are set in the section log"),
    ("global.login-path", "there is no login page"),
    ("global.certs.ssl-protocols", "TLS 1.2 and 1.3 are served"),
    (
        "orchestrator.allowed-pcp-status-requests",
        "agents deliver results until they are acknowledged",
    ),
    (
        "orchestrator.app-management",
        "application orchestration does not exist any more",
    ),
    ("orchestrator.console-services-url", "there is no console"),
    ("orchestrator.console-url", "there is no console"),
    (
        "orchestrator.pcp-broker-url",
        "name the brokers in orchestrator.brokers",
    ),
    ("orchestrator.pcp-message-expiration", "see pcp-timeout"),
    ("orchestrator.url-prefix", "paths are fixed"),
    (
        "orchestrator.use-application-services",
        "application orchestration does not exist any more",
    ),
    (
        "webserver.access-log-config",
        "requests are logged at level debug",
    ),
    (
        "webserver.client-auth",
        "a certificate is always optional: a token or the allow-list decides",
    ),
    ("webserver.default-server", "there is one server"),
    ("webserver.max-threads", "connections are not threads"),
    ("webserver.pcp-broker", "the broker is a process of its own"),
    ("webserver.queue-max-size", "connections are not threads"),
    ("webserver.cipher-suites", "the TLS library's are used"),
    ("webserver.ssl-protocols", "TLS 1.2 and 1.3 are served"),
    ("webserver.request-header-max-size", "the limit is fixed"),
];

/// Takes the keys out of `faults` that are only of no effect; gives them as notes.
pub(super) fn take_out(faults: &mut Vec<Fault>) -> Vec<Fault> {
    let mut notes = Vec::new();
    faults.retain(|fault| {
        let key = fault
            .key
            .replacen("webserver.orchestrator.", "webserver.", 1);
        let reason = IGNORED.iter().find(|(ignored, _)| *ignored == key);
        match reason {
            Some((_, reason)) if fault.problem == "unknown key" => {
                notes.push(Fault {
                    problem: format!("has no effect here: {reason}"),
                    hint: None,
                    ..fault.clone()
                });
                false
            }
            _ => true,
        }
    });
    notes
}
