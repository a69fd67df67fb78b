//! The binary as an operator meets it: `check-config`, and one clear line for what is wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pcp_broker::config::Config;

use crate::field::Field;

fn write(field: &Field, config: &Config) -> PathBuf {
    let path = field.path().join("broker.conf");
    fs::write(&path, config.to_string()).expect("written");
    path
}

fn run(path: &Path, command: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pcp-broker"))
        .arg("--config")
        .arg(path)
        .args(command)
        .output()
        .expect("the binary runs")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_sound_configuration_is_printed() {
    let field = Field::new();
    let config = field.config("primary", &[]);
    let path = write(&field, &config);
    let output = run(&path, &["check-config"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let printed = String::from_utf8(output.stdout).expect("text");
    let expected = format!("# read: {}\n{config}", path.display());
    assert_eq!(printed.trim(), expected);
}

#[test]
fn faults_of_the_configuration_end_with_78() {
    let field = Field::new();
    let path = field.path().join("broker.conf");
    fs::write(&path, "pcp-broker { role: secondary, lisen: x }").expect("written");
    let output = run(&path, &[]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        told(&output).contains("pcp-broker.lisen"),
        "{}",
        told(&output)
    );
    let output = run(Path::new("/nowhere/broker.conf"), &[]);
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn unusable_certificates_end_with_78_and_their_name() {
    let field = Field::new();
    let mut config = field.config("primary", &[]);
    config.files.key = field.files("other").key;
    for command in [&["check-config"][..], &[]] {
        let output = run(&write(&field, &config), command);
        assert_eq!(output.status.code(), Some(78));
        assert!(told(&output).contains("other.pem"), "{}", told(&output));
    }
    let expired = field.ca.issue_expired("expired", &[]).expect("issued");
    let mut config = field.config("primary", &[]);
    config.files.cert = expired.cert();
    config.files.key = expired.key();
    let output = run(&write(&field, &config), &[]);
    assert_eq!(output.status.code(), Some(78));
    assert!(told(&output).contains("expired"), "{}", told(&output));
}

#[test]
fn a_taken_address_ends_with_1() {
    let field = Field::new();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let mut config = field.config("primary", &[]);
    config.listen = taken.local_addr().expect("an address");
    let output = run(&write(&field, &config), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("cannot listen"), "{}", told(&output));
}

#[test]
fn explain_names_the_rule_that_decides() {
    let field = Field::new();
    let config = field.config("primary", &[]);
    let text = format!(
        "{config}\npcp-broker.rules: [
            {{ name: web-only, message-type: rpc_blocking_request, target: \"pcp://web*/agent\",
               allow: [orch] }} ]"
    );
    let path = field.path().join("broker.conf");
    fs::write(&path, text).expect("written");
    let explain = |sender: &str, target: &str| {
        let arguments = ["explain", "--message-type", "rpc_blocking_request"];
        let addresses = ["--sender", sender, "--target", target];
        let output = run(&path, &[&arguments[..], &addresses[..]].concat());
        let text = String::from_utf8(output.stdout).expect("text");
        (output.status.code(), text)
    };
    let controller = "pcp://orch/controller";
    let (code, text) = explain(controller, "pcp://web1/agent");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("allowed by the rule \"web-only\""), "{text}");
    let (code, text) = explain(controller, "pcp://db1/agent");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("none of them fits"), "{text}");
    let (code, text) = explain("pcp://web1/agent", "pcp://db1/agent");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("never says that"), "{text}");
}

#[test]
fn doctor_says_what_is_well_and_what_is_not_and_what_to_do() {
    let field = Field::new();
    let config = field.config("compiler-1", &["127.0.0.1:1".parse().expect("an address")]);
    let doctor = |config: &Config| {
        let output = run(&write(&field, config), &["doctor"]);
        let text = String::from_utf8(output.stdout).expect("text");
        (output.status.code(), text)
    };
    let (code, text) = doctor(&config);
    assert_eq!(code, Some(1), "{text}");
    let line = |start: &str| text.lines().any(|line| line.starts_with(start));
    assert!(line("ok    certificate"), "{text}");
    assert!(line("FAIL  primary 127.0.0.1:1"), "{text}");
    assert!(
        text.contains("-> is it running, is UDP 8142 open"),
        "{text}"
    );

    let mut other = config;
    other.files.key = field.files("other").key;
    let (code, text) = doctor(&other);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("must be of the same certname"), "{text}");
}

/// On threads of its own: the primary runs in this process while the binary asks it.
#[tokio::test(flavor = "multi_thread")]
async fn doctor_reaches_a_primary_without_taking_a_session_from_anybody() {
    let field = Field::new();
    let primary = field.primary();
    let config = field.config("compiler-1", &[primary.address]);
    let output = run(&write(&field, &config), &["doctor"]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("primary at 127.0.0.1"), "{text}");
    // One whom the primary would refuse learns so here, too.
    field.ca.revoke("compiler-1").expect("revoked");
    let output = run(&write(&field, &config), &["doctor"]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("peers will not take it"), "{text}");
}
