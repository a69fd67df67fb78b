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
        (1, "pcp-broker.primary-certnames"),
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
fn controllers_to_dial_are_read_with_the_original_s_keys() {
    let with = |text: &str| load(&format!("{COMPILER}\npcp-broker {{ {text} }}"));
    let config = with("controller-uris: [\"wss://primary:8143/server\"]").expect("sound");
    assert_eq!(
        config.controller_uris[0].to_string(),
        "wss://primary:8143/server"
    );
    assert_eq!(config.controller_allowlist.len(), 4);
    let again = load(&config.to_string()).expect("its own text");
    assert_eq!(again.controller_uris, config.controller_uris);
    let config = with("controller-whitelist: [\"http://puppetlabs.com/inventory_request\"]");
    assert_eq!(config.expect("sound").controller_allowlist.len(), 1);
    for (text, wanted) in [
        (
            "controller-uris: [\"primary:8143\"]",
            "a controller is written wss://",
        ),
        (
            "controller-uris: [\"wss://p:1/a\", \"wss://p:1/b\"]",
            "p:1 is named twice",
        ),
        (
            "controller-allowlist: [\"no type\"]",
            "is no type of messages",
        ),
    ] {
        let faults = with(text).expect_err(text);
        assert!(
            faults.iter().any(|fault| fault.contains(wanted)),
            "{faults:?}"
        );
    }
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

/// The rules that the original's container ships, one of Puppet Server's, and two that do not map.
const ORIGINAL_RULES: &str = r#"
authorization {
  version: 1
  rules: [
    { name: "pcp-broker message", sort-order: 400
      match-request: { path: "/pcp-broker/send", type: path, method: post
        query-params: { message_type: [
          "http://puppetlabs.com/inventory_request",
          "http://puppetlabs.com/rpc_blocking_request",
          "http://puppetlabs.com/rpc_non_blocking_request" ] } }
      allow: "orch.example.com" }
    { name: "any", sort-order: 420
      match-request: { path: "/pcp-broker/send", type: path, method: post }
      allow: ["*.example.com", { extensions: { pp_role: "web" } }] }
    { name: "catalog", sort-order: 500, some-other-key: 1
      match-request: { path: "^/puppet/v3/catalog/([^/]+)$", type: regex, method: [get, post] }
      allow: "$1" }
    { name: "dead", sort-order: 300
      match-request: { path: "/pcp-broker", type: path, query-params: { targets: "x" } }
      deny: "*" }
  ]
}
webserver { access-log-config: x }
"#;

#[test]
fn reads_the_original_s_rules_as_far_as_they_map_and_says_what_does_not() {
    let config = load(&format!("{COMPILER}{ORIGINAL_RULES}")).expect("a sound file");
    let rules = config.rules.as_ref().expect("rules");
    let names: Vec<_> = rules
        .rules()
        .iter()
        .map(|rule| rule.name.as_str())
        .collect();
    assert_eq!(names, ["pcp-broker message", "any"]);
    let controller = |name: &str| rules.make_controller(&name.parse().expect("an address"));
    assert!(controller("pcp://orch.example.com/controller"));
    assert!(!controller("pcp://web1.example.com/controller"));
    let notes: Vec<_> = config.notes.iter().map(ToString::to_string).collect();
    assert_eq!(notes.len(), 2, "{notes:#?}");
    assert!(notes[0].contains("allows nobody"), "{notes:#?}");
    assert!(notes[1].contains("the rule never fits"), "{notes:#?}");
    assert!(
        notes.iter().all(|note| note.contains("broker.conf:")),
        "{notes:#?}"
    );

    let again = load(&config.to_string()).expect("its own text");
    assert_eq!(config.to_string(), again.to_string());
    assert!(again.notes.is_empty());
}

#[test]
fn a_deny_that_cannot_be_understood_is_refused_and_never_left_out() {
    let rule = r#"authorization { rules: [
      { match-request: { path: "/pcp-broker/send", type: path }
        allow: "*", deny: { certname: x, extensions: { pp_role: "web" } } }
    ] }"#;
    let faults = load(&format!("{COMPILER}{rule}")).expect_err("a fault");
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(
        faults[0].contains("authorization.rules.0.deny"),
        "{faults:?}"
    );
}

#[test]
fn reads_own_rules_in_their_order() {
    let rules = r#"pcp-broker { rules: [
      { name: web-only, message-type: "rpc_*_request", target: "pcp://web*/agent", allow: [orch] }
      { deny: ["old.*"], allow: ["*"] }
    ] }"#;
    let config = load(&format!("{COMPILER}{rules}")).expect("a sound file");
    let names = |config: &Config| -> Vec<String> {
        let rules = config.rules.as_ref().expect("rules").rules();
        rules.iter().map(|rule| rule.name.clone()).collect()
    };
    assert_eq!(names(&config), ["web-only", "rule 2"]);
    let again = load(&config.to_string()).expect("its own text");
    assert_eq!(config.to_string(), again.to_string());
}

#[test]
fn names_what_is_wrong_in_own_rules_and_a_section_that_is_nobody_s() {
    let faults = load(&format!(
        "{COMPILER}{}",
        r#"
pcp-broker.rules: [ { name: a, allow: "/(/" }, { name: b }, { name: c, alow: x, deny: y } ]
pcp-brokr { role: primary }
"#
    ))
    .expect_err("faults");
    for part in [
        "rules.0.allow",
        "rules.1: names nobody",
        "rules.alow",
        "pcp-brokr: unknown section",
    ] {
        assert!(
            faults.iter().any(|fault| fault.contains(part)),
            "{part}: {faults:#?}"
        );
    }
}

#[test]
fn a_primary_says_who_the_others_are_and_a_compiler_has_none() {
    const PRIMARY: &str = r#"
pcp-broker {
  role: primary
  primaries: ["primary-2.example.com"]
  primary-certnames: [primary-2.example.com]
  ssl-cert: /ssl/cert.pem, ssl-key: /ssl/key.pem, ssl-ca-cert: /ssl/ca.pem, ssl-crl-path: /ssl/crl.pem
}
"#;
    let config = load(PRIMARY).expect("a sound file");
    assert_eq!(config.primaries.len(), 1);
    assert_eq!(config.primary_certnames.len(), 1);
    let again = load(&config.to_string()).expect("its own text");
    assert_eq!(config.to_string(), again.to_string());
    let silent = PRIMARY.replace("primary-certnames", "brokers");
    let faults = load(&silent).expect_err("others, and nobody says who");
    assert!(
        faults.iter().any(|f| f.contains("primary-certnames")),
        "{faults:?}"
    );
    let compiler = PRIMARY.replace("role: primary", "role: compiler");
    let faults = load(&compiler).expect_err("a compiler");
    assert!(
        faults.iter().any(|f| f.contains("only a primary")),
        "{faults:?}"
    );
}
