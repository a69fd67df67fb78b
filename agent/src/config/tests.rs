//! Configuration files as they are written.

use super::*;

fn load(text: &str) -> Result<Config, Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pxp-agent.conf");
    std::fs::write(&path, text).unwrap();
    Config::load(&path).map_err(|faults| {
        let prefix = format!("{}:", path.display());
        faults
            .iter()
            .map(|fault| fault.to_string().replace(&prefix, ""))
            .collect()
    })
}

const ORIGINAL: &str = r#"
{
  "broker-ws-uris": ["wss://a.example.net:8142/pcp/", "wss://b.example.net:8143/pcp/"],
  "pcp-version": "2",
  "primary-uris": ["https://puppet.example.net:8140"],
  "ssl-key": "/ssl/private_keys/n.pem",
  "ssl-ca-cert": "/ssl/certs/ca.pem",
  "ssl-cert": "/ssl/certs/n.pem",
  "ssl-crl": "/ssl/crl.pem",
  "loglevel": "warning",
  "ping-interval": 120,
  "spool-dir": "/var/spool/x",
  "spool-dir-purge-ttl": "7d",
  "task-cache-dir-purge-ttl": "0d"
}
"#;

#[test]
fn a_file_of_the_original_is_understood_with_controllers_added() {
    let config = load(&format!("{ORIGINAL}\ncontrollers: [orch.example.net]")).unwrap();
    let brokers: Vec<_> = config.brokers.iter().map(ToString::to_string).collect();
    assert_eq!(brokers, ["a.example.net:8142", "b.example.net:8143"]);
    assert_eq!(
        config.without_effect,
        ["pcp-version", "ping-interval", "primary-uris"]
            .map(|key| key)
            .into_iter()
            .collect::<Vec<_>>()
    );
    assert_eq!(config.spool_ttl, Some(Duration::from_secs(7 * 86400)));
    assert_eq!(config.cache_ttl, None);
    assert_eq!(config.task_time_limit, defaults::TASK_TIME_LIMIT);
    assert_eq!(config.log.target, Target::Stderr);
}

#[test]
fn all_faults_are_told_at_once() {
    let faults = load(
        "controllers: [\"..\"]\nssl-cert: /c\nssl-kye: /k\ntask-concurrency: 0\n\
         task-time-limit: 0\nlogfile: syslog\ncertificate-revocation: sometimes\nspool-dir-purge-ttl: soon",
    )
    .unwrap_err();
    for wanted in [
        "broker-uris: is required",
        "3: ssl-kye: unknown key; did you mean \"ssl-key\"?",
        "ssl-key: is required",
        "ssl-ca-cert: is required",
        "1: controllers: a certname is",
        "4: task-concurrency: must be at least 1",
        "5: task-time-limit: must not be zero",
        "6: logfile: syslog is not supported",
        "7: certificate-revocation: \"sometimes\" is none of",
        "8: spool-dir-purge-ttl:",
        "ssl-crl: is required",
    ] {
        assert!(
            faults
                .iter()
                .any(|fault| fault.trim_start().starts_with(wanted)),
            "{wanted} is not in {faults:#?}"
        );
    }
}

#[test]
fn brokers_are_named_by_one_key_only() {
    let text = format!("{ORIGINAL}\ncontrollers: [o]\nbroker-uris: [a]");
    let faults = load(&text).unwrap_err();
    assert!(
        faults
            .iter()
            .any(|fault| fault.contains("only one of broker-uris")),
        "{faults:?}"
    );
}

#[test]
fn the_effective_configuration_reads_back_as_itself() {
    let config = load(&format!("{ORIGINAL}\ncontrollers: [orch.example.net]")).unwrap();
    let again = load(&config.to_string()).unwrap();
    assert_eq!(config.to_string(), again.to_string());
}
