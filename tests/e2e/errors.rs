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
    // A mistake of the command line itself shows how it is meant, on several lines.
    let output = run(&lab, &["probe::big", "bytes=1"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("--nodes"), "{}", text(&output));
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
    let lab = mesh(3);
    // Told to stop, it says goodbye; killed, it is missed only when nothing answers.
    lab.stop("agent-2").expect("the agent stops");
    lab.kill("agent-3").expect("the agent is killed");
    let nodes = "agent-1,agent-2,agent-3,never-seen";
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
    let causes = [
        ("agent-1", "finished", ""),
        ("agent-2", "errored", "not connected"),
        ("agent-3", "errored", "did not answer"),
        ("never-seen", "errored", "not connected"),
    ];
    for (name, state, cause) in causes {
        let items = answer["items"].as_array().expect("a list of items");
        let item = items
            .iter()
            .find(|item| item["name"] == name)
            .expect("an item a node");
        assert_eq!(item["state"], state, "{item:#}");
        assert!(item.to_string().contains(cause), "{item:#}");
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
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        assert!(text(&output).contains("broken.pem"), "{}", text(&output));
    }
}

#[test]
fn shipped_configurations_are_sound_but_for_the_certificates_of_another_host() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/config");
    let table = [
        ("pxp-agent", "pxp-agent.conf", "task-time-limit: 1h", 3),
        ("pcp-broker", "pcp-broker.conf", "role: compiler", 78),
        (
            "pxp-orchestrator",
            "orchestrator.conf",
            "task-concurrency: 250",
            78,
        ),
    ];
    for (binary, file, effective, code) in table {
        let output = Command::new(lab::bin(binary))
            .arg("--config")
            .arg(folder.join(file))
            .arg("check-config")
            .output()
            .expect("the binary starts");
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(shown.contains(effective), "{binary}: {}", text(&output));
        let cause = cause(&output);
        assert!(cause.contains("example.com.pem"), "{binary}: {cause}");
        assert_eq!(
            output.status.code(),
            Some(code),
            "{binary}: {}",
            text(&output)
        );
    }
}
