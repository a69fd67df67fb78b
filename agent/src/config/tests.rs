//! Configuration files as they are written.

use daemon::logs::Target;

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
    assert_eq!(config.without_effect, ["pcp-version", "ping-interval"]);
    assert_eq!(
        config.spool_bounds.age,
        Some(Duration::from_secs(7 * 86400))
    );
    assert_eq!(config.cache_bounds.age, None);
    assert_eq!(config.task_time_limit, defaults::TASK_TIME_LIMIT);
    assert_eq!(config.log.target, Target::Stderr);
}

#[test]
fn all_faults_are_told_at_once() {
    let faults = load(
        "controllers: [\"..\"]\nssl-cert: /c\nssl-kye: /k\ntask-concurrency: 0\n\
         task-time-limit: 0\nlogfile: eventlog\ncertificate-revocation: sometimes\nspool-dir-purge-ttl: soon",
    )
    .unwrap_err();
    for wanted in [
        "broker-uris: is required",
        "3: ssl-kye: unknown key; did you mean \"ssl-key\"?",
        "ssl-key: is not set, and",
        "1: controllers: a certname is",
        "4: task-concurrency: must be at least 1",
        "5: task-time-limit: must not be zero",
        "6: logfile: eventlog is not on this platform",
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

#[test]
fn a_file_of_the_original_works_unchanged() {
    let config = load(ORIGINAL).unwrap();
    assert!(config.controllers.is_empty());
    let primaries: Vec<_> = config.downloads.primaries.iter().collect();
    assert_eq!(primaries[0].to_string(), "https://puppet.example.net:8140");
    assert_eq!(config.downloads.timeout, Duration::from_secs(1800));
}

#[test]
fn every_key_of_the_original_is_known() {
    // In JSON, as Puppet Enterprise writes the file.
    let text = r#"{"allowed-keepalive-timeouts": 2, "association-request-ttl": 10,
        "association-timeout": 15, "broker-ws-proxy": "http://p:1", "broker-ws-uri": "wss://b/pcp2",
        "connection-timeout": 5, "foreground": true, "log-pcp-access": true, "logfile": "/l/agent.log",
        "loglevel": "trace", "master-proxy": "http://p:2", "max-message-size": 1024,
        "master-uris": ["m"], "modules-config-dir": "/mc", "modules-dir": "/m",
        "pcp-message-ttl": 5, "pcp-version": "1", "pidfile": "/run/p", "ping-interval": 120,
        "primary-uris": ["p"], "spool-dir": "/s", "spool-dir-purge-ttl": "3h", "ssl-ca-cert": "/ca",
        "ssl-cert": "/c", "ssl-crl": "/crl", "ssl-key": "/k", "syslog-facility": "local3",
        "task-cache-dir": "/t", "task-cache-dir-purge-ttl": "0d",
        "task-download-connect-timeout": 7, "task-download-timeout": 8}"#;
    let config = load(text).unwrap();
    let proxy = config.proxy.map(|proxy| proxy.to_string());
    assert_eq!(proxy.as_deref(), Some("http://p:1"));
    assert_eq!(config.access_log, Some(PathBuf::from("/l/pcp-access.log")));
    let proxy = config.downloads.proxy.map(|proxy| proxy.to_string());
    assert_eq!(proxy.as_deref(), Some("http://p:2"));
    assert_eq!(config.downloads.primaries.len(), 1);
    assert_eq!(config.downloads.primaries[0].to_string(), "https://p:8140");
    assert_eq!(config.downloads.connect_timeout, Duration::from_secs(7));
    assert_eq!(config.max_message, 1024);
    assert_eq!(config.modules_dir, PathBuf::from("/m"));
    assert_eq!(config.log.target, Target::File("/l/agent.log".into()));
}

#[test]
fn the_ways_to_brokers_are_chosen_and_a_proxy_needs_one_that_it_is_on() {
    let with = |text: &str| load(&format!("{ORIGINAL}\n{text}"));
    assert_eq!(with("").unwrap().ways, Ways::Auto);
    let config =
        with("transport: websocket\nbroker-ws-proxy: \"http://me:s3cret@proxy:3128\"").unwrap();
    assert_eq!(config.ways, Ways::Only(pcp_client::Transport::WebSocket));
    assert!(!config.to_string().contains("s3cret"));
    let config = with("master-proxy: \"me:s3cret@proxy:3128\"").unwrap();
    assert!(!config.to_string().contains("s3cret"));
    let proxy = config.downloads.proxy.unwrap();
    assert_eq!(proxy.to_string(), "http://me@proxy:3128");
    assert_eq!(proxy.key(), "master-proxy");
    for (text, wanted) in [
        (
            "transport: udp",
            "transport: \"udp\" is not auto, quic or websocket",
        ),
        (
            "broker-ws-proxy: \"proxy:3128\"",
            "broker-ws-proxy: a proxy is written http://",
        ),
        (
            "master-proxy: \"socks5://proxy:3128\"",
            "master-proxy: a proxy is written http://",
        ),
        (
            "transport: quic\nbroker-ws-proxy: \"http://proxy:3128\"",
            "broker-ws-proxy: cannot be used with transport: quic",
        ),
    ] {
        let faults = with(text).unwrap_err();
        assert!(
            faults.iter().any(|fault| fault.contains(wanted)),
            "{faults:?}"
        );
    }
}

#[test]
fn certificates_are_puppets_where_they_are_not_named() {
    let ssl = tempfile::tempdir().unwrap();
    let keys = ssl.path().join("private_keys");
    std::fs::create_dir(&keys).unwrap();
    std::fs::write(keys.join("node.example.net.pem"), "").unwrap();
    std::fs::write(ssl.path().join("crl.pem"), "").unwrap();
    let text = format!("broker-uris: [b]\nssldir: {:?}\n", ssl.path());
    let config = load(&text).unwrap();
    assert_eq!(
        config.tls.cert,
        ssl.path().join("certs/node.example.net.pem")
    );
    assert_eq!(config.tls.key, keys.join("node.example.net.pem"));
    assert_eq!(config.tls.ca, ssl.path().join("certs/ca.pem"));
    assert_eq!(config.tls.crl, Some(ssl.path().join("crl.pem")));
    let config = load(&format!("{text}certname: other\n")).unwrap();
    assert_eq!(config.tls.key, keys.join("other.pem"));
    std::fs::write(keys.join("second.pem"), "").unwrap();
    let faults = load(&text).unwrap_err();
    assert!(
        faults[0].contains("several keys: node.example.net, second"),
        "{faults:?}"
    );
}

#[test]
fn the_command_line_counts_before_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pxp-agent.conf");
    std::fs::write(&path, ORIGINAL).unwrap();
    let single = |key: &str, value: &str| (key.to_owned(), Given::Single(value.to_owned()));
    let given = [
        single("spool-dir", "/elsewhere"),
        (
            "controllers".to_owned(),
            Given::List(vec!["orch".to_owned()]),
        ),
        single("task-concurrency", "3"),
        single("log-pcp-access", "true"),
    ];
    let config = Config::read(&path, &given).unwrap();
    assert_eq!(config.spool_dir, PathBuf::from("/elsewhere"));
    assert_eq!(config.controllers.len(), 1);
    assert_eq!(config.task_concurrency, 3);
    assert!(config.access_log.is_some());
    assert_eq!(config.again().unwrap().to_string(), config.to_string());
    let refused = Config::read(&path, &[single("task-time-limit", "soon")]).unwrap_err();
    assert_eq!(refused.code, ExitCode::Config);
    let text = refused.faults[0].to_string();
    assert!(text.starts_with("command line: task-time-limit:"), "{text}");
}

#[test]
fn a_file_that_is_no_configuration_and_one_that_is_missing_end_differently() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pxp-agent.conf");
    let missing = Config::read(&path, &[]).unwrap_err();
    assert_eq!(missing.code, ExitCode::Config);
    let text = missing.faults[0].to_string();
    assert!(text.ends_with("there is no such file"), "{text}");
    std::fs::write(&path, "broker-uris: [").unwrap();
    assert_eq!(Config::read(&path, &[]).unwrap_err().code, ExitCode::Usage);
}

proptest::proptest! {
    #[test]
    fn no_file_is_a_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pxp-agent.conf");
        std::fs::write(&path, &bytes).unwrap();
        Config::load(&path).ok();
        let almost = format!("broker-uris: {}", String::from_utf8_lossy(&bytes));
        std::fs::write(&path, almost).unwrap();
        Config::load(&path).ok();
    }
}

#[test]
fn deep_nesting_is_a_fault_and_no_overflow() {
    for open in ["[", "{a:", "{a=[", "a.", "\"a\"."] {
        let faults = load(&format!("x: {{ {}", open.repeat(50_000))).unwrap_err();
        assert!(faults[0].contains("levels deep"), "{open}: {faults:?}");
    }
}

proptest::proptest! {
    #[test]
    fn a_damaged_file_is_read_or_its_faults_are_told(
        at in 0..ORIGINAL.len(), cut in 0..20_usize,
        insert in "(\\{|\\}|\\[|\\]|:|=|\"|,|\\$\\{|include |//|#|\n|-1|99999999999999999999|é){0,6}",
    ) {
        let mut bytes = ORIGINAL.as_bytes().to_vec();
        bytes.splice(at..(at + cut).min(ORIGINAL.len()), insert.bytes());
        if let Err(faults) = load(&String::from_utf8_lossy(&bytes)) {
            proptest::prop_assert!(!faults.is_empty());
        }
    }
}

#[test]
fn the_shipped_file_shows_the_defaults() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/config/pxp-agent.conf");
    let shipped = std::fs::read_to_string(shipped).unwrap();
    // Whose values are examples, for there is no default to show.
    let examples = [
        "primary-uris",
        "master-proxy",
        "broker-ws-proxy",
        "ssldir",
        "certname",
        "pcp-access-logfile",
        "puppet-bin",
        "metrics-file",
    ];
    let defaults = shipped.lines().filter_map(|line| {
        let line = line.strip_prefix("# ")?;
        let (key, _) = line.split_once(": ")?;
        let written = key.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        (written && !examples.contains(&key)).then_some(line)
    });
    let defaults: Vec<_> = defaults.collect();
    assert!(defaults.len() > 25, "{defaults:?}");
    // Directories stand beside the file; those of an ordinary user lie elsewhere.
    let root = nix::unistd::geteuid().is_root();
    let defaults = defaults
        .into_iter()
        .filter(|line| root || !line.contains("\"/"));
    let set = load(&format!(
        "{shipped}\n{}",
        defaults.collect::<Vec<_>>().join("\n")
    ))
    .unwrap();
    let unset = load(&shipped).unwrap();
    let beside = |config: &Config| {
        let dir = config.path.parent().unwrap().display().to_string();
        config
            .to_string()
            .replace(&dir, "/etc/puppetlabs/pxp-agent")
    };
    assert_eq!(beside(&set), beside(&unset));
}

#[test]
fn puppet_is_named_here_or_where_the_original_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("pxp-module-puppet.conf");
    let modules = format!("modules-config-dir: {:?}", dir.path());
    let with =
        |more: &str| load(&format!("{ORIGINAL}\n{modules}\n{more}")).map(|config| config.puppet);
    assert_eq!(with(""), Ok(None));
    std::fs::write(&original, r#"{"puppet_bin": "/a/puppet"}"#).unwrap();
    assert_eq!(with(""), Ok(Some("/a/puppet".into())));
    assert_eq!(with("puppet-bin: /b/puppet"), Ok(Some("/b/puppet".into())));
    for wrong in [r#"{"puppet_bin": "puppet"}"#, r#"{"puppet_bn": "/x"}"#, "{"] {
        std::fs::write(&original, wrong).unwrap();
        let faults = with("").unwrap_err();
        assert!(faults[0].contains("pxp-module-puppet.conf"), "{faults:?}");
    }
    std::fs::write(&original, r#"{"puppet_bin": ""}"#).unwrap();
    assert_eq!(with(""), Ok(None));
    let faults = with("puppet-bin: bin/puppet").unwrap_err();
    assert!(
        faults[0].contains("puppet-bin: is no absolute path"),
        "{faults:?}"
    );
}
