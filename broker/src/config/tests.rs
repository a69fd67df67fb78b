//! Files as operators write them: sound ones, and every fault at once.

use std::fs;

use super::*;

fn load(text: &str) -> Result<Config, Vec<String>> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("broker.conf");
    fs::write(&path, text).expect("written");
    let faults = Config::load(&path);
    faults.map_err(|faults| {
        let prefix = format!("{}/", dir.path().display());
        faults
            .iter()
            .map(|fault| fault.to_string().replace(&prefix, ""))
            .collect()
    })
}

const COMPILER: &str = r#"
pcp-broker {
  role: compiler
  listen: "127.0.0.1:0"
  primaries: ["primary.example.com", "127.0.0.1:18142"]
  ssl-cert: /ssl/certs/compiler-1.pem
  ssl-key: /ssl/private_keys/compiler-1.pem
  ssl-ca-cert: /ssl/certs/ca.pem
  ssl-crl-path: /ssl/crl.pem
  controllers: [orchestrator]
  max-message-size: "8MiB"
}
log { level: debug, format: json }
"#;

#[test]
fn reads_a_compiler_s_file_and_fills_in_the_rest() {
    let config = load(COMPILER).expect("a sound file");
    assert_eq!(config.role, Role::Compiler);
    assert_eq!(config.primaries.len(), 2);
    assert_eq!(config.max_message, 8 * 1024 * 1024);
    assert_eq!(config.grace_period, Duration::from_secs(90));
    assert_eq!(config.files.revocation, Revocation::Chain);
    assert!(config.brokers.is_empty());
}

#[test]
fn what_check_config_prints_means_the_same() {
    let config = load(COMPILER).expect("a sound file");
    let again = load(&config.to_string()).expect("its own text");
    assert_eq!(config.to_string(), again.to_string());
}

#[test]
fn names_every_fault_with_its_line() {
    let faults = load(
        r#"pcp-broker {
  role: primary
  listen: nowhere
  primaries: ["x"]
  ssl-cert: /ssl/cert.pem
  ssl-kee: /ssl/key.pem
  controllers: ["or ch", good]
  max-message-size: 1KiB
  certificate-revocation: sometimes
}
"#,
    )
    .expect_err("a file full of faults");
    for (line, key) in [
        (3, "pcp-broker.listen"),
        (4, "pcp-broker.primaries"),
        (6, "pcp-broker.ssl-kee"),
        (7, "pcp-broker.controllers"),
        (8, "pcp-broker.max-message-size"),
        (9, "pcp-broker.certificate-revocation"),
        (1, "pcp-broker.ssl-key"),
        (1, "pcp-broker.ssl-ca-cert"),
        (1, "pcp-broker.ssl-crl-path"),
    ] {
        let start = format!("broker.conf:{line}: {key}");
        assert!(
            faults.iter().any(|fault| fault.starts_with(&start)),
            "{start} is not among {faults:#?}"
        );
    }
}

#[test]
fn a_compiler_needs_a_primary_and_everybody_a_role() {
    let faults = load("pcp-broker { role: compiler }").expect_err("no primaries");
    assert!(faults.iter().any(|fault| fault.contains("primaries")));
    let faults = load("").expect_err("nothing");
    assert!(faults.iter().any(|fault| fault.contains("role")));
}

#[test]
fn a_primary_that_is_named_twice_is_a_fault() {
    let twice = COMPILER.replace("127.0.0.1:18142", "primary.example.com:8142");
    let faults = load(&twice).expect_err("one primary, two links");
    assert!(
        faults
            .iter()
            .any(|fault| fault.contains("primary.example.com:8142 is named twice")),
        "{faults:#?}"
    );
}
