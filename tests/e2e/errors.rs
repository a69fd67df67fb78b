//! Everything that a person can get wrong: one line that names the cause, and an exit code that is
//! not zero.

use std::fs;
use std::process::{Command, Output};

use lab::Lab;
use serde_json::json;

use crate::support::{json as document, mesh, text};

/// The one line of cause on standard error.
fn cause(output: &Output) -> String {
    assert_ne!(output.status.code(), Some(0), "{}", text(output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = stderr
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    assert!(
        (1..=3).contains(&lines.len()),
        "a cause, and at most what to do: {}",
        text(output)
    );
    lines
        .first()
        .map(|line| (*line).to_owned())
        .expect("a line")
}

fn run(lab: &Lab, arguments: &[&str]) -> Output {
    let mut all = vec!["run"];
    all.extend(arguments);
    lab.puppet_task(&all)
}

#[test]
fn mistakes_of_a_request_are_named() {
    let lab = mesh(1);
    let node = ["--nodes", "agent-1"];
    let check = |arguments: &[&str], code: i32, parts: &[&str]| {
        let output = run(&lab, arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            text(&output)
        );
        let cause = cause(&output);
        for part in parts {
            assert!(
                cause.contains(part),
                "{arguments:?}: {part:?} is not named in {cause:?}"
            );
        }
    };
    check(
        &["probe::big", "bytes=many", node[0], node[1]],
        1,
        &["bytes", "Integer", "many"],
    );
    check(&["probe::big", node[0], node[1]], 1, &["bytes"]);
    check(
        &["probe::big", "bytes=1", "colour=red", node[0], node[1]],
        1,
        &["colour"],
    );
    check(
        &["probe::nothing", node[0], node[1]],
        1,
        &["probe::nothing"],
    );
    check(
        &["probe::big", "bytes=1", "-e", "nowhere", node[0], node[1]],
        1,
        &["nowhere"],
    );
    check(&["probe::big", "bytes=1"], 2, &["--nodes"]);
    check(
        &["probe::big", "bytes=1", "--query", "nodes { }"],
        1,
        &["PuppetDB"],
    );
    let group = "00000000-0000-4000-8000-000000000000";
    check(
        &["probe::big", "bytes=1", "--node-group", group],
        1,
        &["group"],
    );
    // The secret itself must not be in the message about its type.
    let output = run(&lab, &["probe::secret", "password=short", node[0], node[1]]);
    let cause = cause(&output);
    assert!(
        cause.contains("password") && !cause.contains("short"),
        "{cause:?}"
    );
}

#[test]
fn nodes_that_are_unknown_or_down_fail_and_the_others_run() {
    let lab = mesh(2);
    lab.kill("agent-2").expect("the agent is killed");
    let nodes = "agent-1,agent-2,never-seen";
    let output = run(
        &lab,
        &[
            "probe::big",
            "bytes=3",
            "--nodes",
            nodes,
            "--format",
            "json",
        ],
    );
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let answer = document(&output);
    for item in answer["items"].as_array().expect("a list of items") {
        let state = item["state"].as_str().unwrap_or_default();
        if item["name"] == "agent-1" {
            assert_eq!(state, "finished", "{answer:#}");
        } else {
            assert_eq!(state, "errored", "{answer:#}");
            assert!(item.to_string().contains("not connected"), "{item:#}");
        }
    }
    let output = run(&lab, &["probe::big", "bytes=3", "--nodes", "never-seen"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("not connected"), "{}", text(&output));
}

#[test]
fn a_caller_who_is_not_known_or_does_not_trust_is_told_so() {
    let lab = mesh(0);
    let garbage = lab.dir().join("garbage.pem");
    fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nnonsense\n").expect("a writable lab");
    let elsewhere = lab.dir().join("elsewhere");
    let foreign = lab_ca(&elsewhere);
    let nowhere = lab.dir().join("no-such-token");
    let false_token = lab.dir().join("false-token");
    fs::write(&false_token, "0123456789\n").expect("a writable lab");
    let path = |path: &std::path::Path| path.display().to_string();

    let table: [(&[&str], &str); 5] = [
        (&["--token-file", &path(&nowhere)], "no-such-token"),
        (&["--token-file", &path(&false_token)], "token"),
        (&["--ca-cert", &path(&garbage)], "garbage.pem"),
        (&["--ca-cert", &foreign], "certificate"),
        (&["--service-url", "https://127.0.0.1:1"], "127.0.0.1:1"),
    ];
    for (flags, part) in table {
        let mut arguments = vec!["probe::big", "bytes=1", "--nodes", "agent-1"];
        arguments.extend(flags);
        let output = run(&lab, &arguments);
        assert_eq!(
            output.status.code(),
            Some(3),
            "{flags:?}: {}",
            text(&output)
        );
        let cause = cause(&output);
        assert!(
            cause.contains(part),
            "{flags:?}: {part:?} is not named in {cause:?}"
        );
    }
    let (status, answer) = lab.api_get("jobs").expect("the API answers");
    assert_eq!(
        (status, &answer["items"]),
        (200, &json!([])),
        "nothing was started"
    );
}

/// The certificate of another CA.
fn lab_ca(dir: &std::path::Path) -> String {
    let lab = Lab::builder()
        .dir(dir)
        .compilers(0)
        .agents(0)
        .start()
        .expect("another mesh starts");
    lab.site().ca().ca().display().to_string()
}

#[test]
fn a_daemon_with_a_broken_certificate_says_which_and_does_not_start() {
    let lab = mesh(1);
    let config = lab.site().config("agent-1");
    let original = fs::read_to_string(&config).expect("the agent's configuration");
    let certificate = lab.dir().join("broken.pem");
    fs::write(&certificate, "not a certificate").expect("a writable lab");
    let broken = lab.dir().join("broken.conf");
    let line = format!("\nssl-cert: \"{}\"\n", certificate.display());
    fs::write(&broken, original + &line).expect("a writable lab");
    for more in [&[][..], &["check-config"][..]] {
        let output = Command::new(lab::bin("pxp-agent"))
            .arg("--config")
            .arg(&broken)
            .args(more)
            .output()
            .expect("the agent starts");
        assert_eq!(output.status.code(), Some(78), "{}", text(&output));
        assert!(text(&output).contains("broken.pem"), "{}", text(&output));
    }
}
