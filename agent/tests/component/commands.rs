//! What an operator asks the program: `doctor` and `transactions`.

use pxp::MessageKind::{NonBlockingRequest, ProvisionalResponse};
use serde_json::Value;

use crate::https::Primary;
use crate::node::{Node, task};

fn told(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The lines of a level about a subject.
fn lines<'a>(text: &'a str, level: &str, subject: &str) -> Vec<&'a str> {
    let lines = text.lines();
    lines
        .filter(|line| line.to_lowercase().contains(level) && line.contains(subject))
        .collect()
}

#[tokio::test]
async fn the_doctor_finds_nothing_wrong_with_a_sound_node_and_names_what_is_with_another() {
    // Over TCP the broker answers at the same port, unless somebody else has just taken that.
    let date = jiff::fmt::rfc2822::to_string(&jiff::Zoned::now()).unwrap();
    let status = format!("200 OK\r\ndate: {date}");
    let (node, over_tcp) = loop {
        let Some(node) = Node::new("") else {
            return;
        };
        let address = node.broker.address.to_string();
        let status = status.clone();
        let with = move |_: &str| (status.clone(), b"running".to_vec());
        if let Ok(primary) = Primary::at(&address, &node.ca, with).await {
            break (node, primary);
        }
    };
    node.reconfigure("primary-uris: [\"https://127.0.0.1:1\"]");
    let ((), output) = tokio::join!(node.broker.shake_hands(), node.run_beside(&["doctor"]));
    let text = told(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains("s ahead of a broker's") || text.contains("s behind"),
        "{text}"
    );
    let version = format!("execution-wrapper, {}", daemon::VERSION);
    assert!(text.contains(&version), "{text}");
    assert_eq!(
        lines(&text, "warn", "https://127.0.0.1:1: 127.0.0.1:1 cannot be").len(),
        1,
        "{text}"
    );
    drop(over_tcp);
    for subject in [
        "certificate",
        "revocation",
        "clock",
        "policy",
        "controllers",
        "spool",
        "over QUIC",
    ] {
        assert_eq!(lines(&text, "ok", subject).len(), 1, "{subject}: {text}");
    }
    assert!(text.contains("node, its key fits, good for"), "{text}");
    assert!(
        text.contains("cgroup") && text.contains("execution-wrapper"),
        "{text}"
    );
    // Everything at once, each with what to do.
    node.reconfigure("controllers: []\nspool-dir-reserve: \"9000000GiB\"\nping-interval: 5");
    node.policy("default: perhaps");
    let modules = node.path("modules");
    node.reconfigure(&format!(
        "modules-dir: {modules:?}\nmodules-config-dir: {modules:?}"
    ));
    std::fs::create_dir(&modules).unwrap();
    for (name, text) in [("good", ""), ("odd", ""), ("odd.conf", "size = large")] {
        std::fs::write(modules.join(name), text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(modules.join(name), mode).unwrap();
    }
    std::fs::write(modules.join("plain"), "").unwrap();
    std::fs::write(node.ca.ssl_dir("node").cert(), "broken").unwrap();
    let output = node.run(&["doctor"]);
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for (level, wanted) in [
        ("fail", "node.pem"),
        ("fail", "node.conf:1: default: \"perhaps\" is none of"),
        ("fail", "no new work is taken"),
        (
            "fail",
            "odd: its configuration is not in a valid JSON format",
        ),
        ("fail", "plain is not executable"),
        ("ok", "good"),
        ("warn", "ping-interval has no effect"),
    ] {
        assert_eq!(lines(&text, level, wanted).len(), 1, "{wanted}: {text}");
    }
}

#[tokio::test]
async fn the_transactions_of_a_spool_are_shown_beside_its_agent() {
    let Some(node) = Node::new("") else {
        return;
    };
    let id = &node.id("t1");
    let digest = node.broker.has(b"#!/bin/sh\necho out\nexit 3\n");
    let (_agent, mut peer) = node.start().await;
    peer.request(
        NonBlockingRequest,
        &task(id, digest, r#"{"secret":"hunter2"}"#, ""),
    )
    .await;
    peer.expect(ProvisionalResponse).await;
    peer.outcome(id).await;
    peer.acknowledge(id).await;
    node.wait_for_state(id, "reported").await;
    let broken = node.path("spool/broken");
    std::fs::create_dir(&broken).unwrap();
    std::fs::write(broken.join("metadata"), "x").unwrap();
    let text = told(&node.run(&["transactions"]));
    let line = text
        .lines()
        .find(|line| line.starts_with(id.as_str()))
        .unwrap();
    for part in ["reported", "exit 3", "demo::hello", "orchestrator"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(text.contains("unreadable: "), "{text}");
    let json: Value =
        serde_json::from_str(&told(&node.run(&["transactions", "--format", "json"]))).unwrap();
    assert_eq!(json["transactions"][0]["transaction_id"], id.as_str());
    assert_eq!(json["transactions"][0]["stdout_bytes"], 4);
    assert_eq!(json["unreadable"].as_array().unwrap().len(), 1);
    let one = told(&node.run(&["transactions", id]));
    assert!(
        one.contains("exitcode         3\n") && one.contains("directory "),
        "{one}"
    );
    assert!(!one.contains("hunter2"));
    let output = node.run(&["transactions", "no-such-one"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("there is no transaction no-such-one")
    );
}
