//! The node's policy: what it refuses does not run, and what has run is told all the same.

use std::os::unix::fs::PermissionsExt;

use pxp::MessageKind::{BlockingRequest, NonBlockingRequest, ProvisionalResponse};
use serde_json::{Value, json};

use crate::node::{Node, params, task, wait_until};
use crate::played::blocking;

fn marking(node: &Node) -> pcp::Digest {
    let script = format!("#!/bin/sh\necho run >> {}\n", node.path("runs").display());
    node.broker.has(script.as_bytes())
}

#[tokio::test]
async fn what_a_rule_refuses_does_not_run_and_is_told_by_the_rules_name() {
    let Some(node) = Node::new("") else {
        return;
    };
    node.policy(
        "rules: { no-demo: { when: { tasks: [\"demo::*\"] }, then: refuse, reason: \"ask ops\" } }",
    );
    let t1 = &node.id("t1");
    let digest = marking(&node);
    let (program, mut peer) = node.spawn().await;
    let text = "refused by the rule \"no-demo\" of this node's policy: ask ops";
    peer.request(
        NonBlockingRequest,
        &task(t1, digest, r#"{"secret":"hunter2"}"#, ""),
    )
    .await;
    assert_eq!(peer.error(t1).await, text);
    let body = blocking("task", "run", &params(digest, "{}", ""));
    peer.request(BlockingRequest, &body).await;
    assert_eq!(peer.error("q").await, text);
    // Questions need no rule.
    peer.nothing_waits().await;
    assert!(!node.path("runs").exists());
    assert!(!node.path(&format!("spool/{t1}")).exists());
    let log = node.read("log");
    let audit = log
        .lines()
        .find(|line| line.contains("pxp_agent::audit"))
        .unwrap();
    for part in [
        "refused",
        t1,
        "orchestrator",
        "demo::hello",
        &digest.to_string(),
        "no-demo",
    ] {
        assert!(audit.contains(part), "{part} is not in {audit}");
    }
    assert!(!log.contains("hunter2"));
    assert_eq!(program.terminate(), Some(0));
}

#[tokio::test]
async fn a_policy_is_read_again_on_hangup_and_a_broken_one_changes_nothing() {
    let Some(node) = Node::new("") else {
        return;
    };
    let [t1, t2, t3] = ["t1", "t2", "t3"].map(|name| node.id(name));
    let digest = marking(&node);
    let (program, mut peer) = node.spawn().await;
    peer.request(NonBlockingRequest, &task(&t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    peer.outcome(&t1).await;
    peer.acknowledge(&t1).await;
    node.wait_for_state(&t1, "reported").await;
    node.policy("default: refuse\nloglevel: debug");
    program.signal(nix::sys::signal::Signal::SIGHUP);
    wait_until("the fault is told", || {
        node.read("log").contains("unknown key")
    })
    .await;
    peer.request(NonBlockingRequest, &task(&t2, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    peer.outcome(&t2).await;
    node.policy("default: refuse");
    program.signal(nix::sys::signal::Signal::SIGHUP);
    wait_until("the policy is read", || {
        node.read("log").contains("and policy read again")
    })
    .await;
    peer.request(NonBlockingRequest, &task(&t3, digest, "{}", ""))
        .await;
    let error = peer.error(&t3).await;
    assert!(
        error.starts_with("refused by the rule \"default\""),
        "{error}"
    );
    // What ran when it was allowed is not run again, and its outcome is not withheld.
    for id in [&t1, &t2] {
        peer.request(NonBlockingRequest, &task(id, digest, "{}", ""))
            .await;
        peer.expect(ProvisionalResponse).await;
        peer.outcome(id).await;
    }
    assert_eq!(node.read("runs"), "run\nrun\n");
    assert_eq!(program.terminate(), Some(0));
}

#[tokio::test]
async fn an_agent_with_a_broken_policy_does_not_start() {
    let Some(node) = Node::new("") else {
        return;
    };
    node.policy("rules: { r: { then: perhaps } }");
    let output = node.run(&[]);
    assert_eq!(output.status.code(), Some(3));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("node.conf:1: rules.r.then: \"perhaps\" is none of allow, refuse"),
        "{told}"
    );
}

#[tokio::test]
async fn a_policy_may_name_the_controllers_of_a_configuration_that_names_none() {
    let Some(node) = Node::new("controllers: []") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = marking(&node);
    let (program, mut peer) = node.spawn().await;
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    let error = peer.error(t1).await;
    assert!(error.contains("which has none: name them"), "{error}");
    node.policy("controllers: [orchestrator]");
    program.signal(nix::sys::signal::Signal::SIGHUP);
    wait_until("the policy is read", || {
        node.read("log").contains("and policy read again")
    })
    .await;
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    peer.outcome(t1).await;
    // The configuration's own are read again, too: the last line counts.
    let t2 = &node.id("t2");
    node.policy("");
    node.reconfigure("controllers: [somebody-else]");
    program.signal(nix::sys::signal::Signal::SIGHUP);
    let read = || node.read("log").matches("and policy read again").count();
    wait_until("both are read", || read() == 2).await;
    peer.request(NonBlockingRequest, &task(t2, digest, "{}", ""))
        .await;
    let error = peer.error(t2).await;
    assert!(
        error.ends_with("is not among the controllers of this agent"),
        "{error}"
    );
    assert_eq!(program.terminate(), Some(0));
}

#[tokio::test]
async fn a_rules_time_limit_holds_and_a_wish_can_only_shorten_it() {
    let Some(node) = Node::new("") else {
        return;
    };
    node.policy("rules: { short: { then: allow, limits: { time: 1s } } }");
    let digest = node
        .broker
        .has(b"#!/bin/sh\nread -r x < /dev/zero\nexec tail -f /dev/null\n");
    let (_agent, mut peer) = node.start().await;
    for (name, wish) in [("t1", ""), ("t2", r#","timeout":900"#)] {
        let id = &node.id(name);
        peer.request(NonBlockingRequest, &task(id, digest, "{}", wish))
            .await;
        peer.expect(ProvisionalResponse).await;
        let results = peer.outcome(id).await;
        assert_eq!(results["usage"]["killed_by"], "time-limit");
        let stderr = results["stderr"].as_str().unwrap();
        assert!(stderr.contains("time limit of 1 s"), "{stderr}");
        peer.acknowledge(id).await;
    }
}

#[tokio::test]
async fn another_user_finds_the_files_of_its_task_in_every_profile() {
    let Some(node) = Node::new("sandbox-profile: host") else {
        return;
    };
    if !nix::unistd::geteuid().is_root() {
        let required = std::env::var("LAB_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|name| name == "root"));
        eprintln!("skipped: only root can run tasks as somebody else");
        return;
    }
    // Where agents are installed everybody may go.
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(node.dir.path(), open).unwrap();
    let script = node
        .broker
        .has(b"#!/bin/sh\nid -u\ncat \"$PT__installdir/demo/files/a\"\n");
    let file = node.broker.has(b"content\n");
    let uri = json!({"path": "/", "params": {}});
    let (_agent, mut peer) = node.start().await;
    for wish in [
        json!({"run_as": "nobody"}),
        json!({"run_as": "nobody", "profile": "standard"}),
        // Without a wish it is nobody, too.
        json!({"profile": "confined"}),
    ] {
        let params = json!({
            "task": "demo::hello",
            "input": {},
            "files": [
                {"filename": "hello.sh", "sha256": script.to_string(), "uri": uri},
                {"filename": "demo/files/a", "sha256": file.to_string(), "uri": uri},
            ],
            "metadata": {"files": ["demo/files/a"], "extensions": {"pxp_mesh": wish}},
        });
        let results: Value = peer.ask("task", "run", &params.to_string()).await;
        assert_eq!(results["stdout"], "65534\ncontent\n", "{wish}: {results}");
    }
}

#[tokio::test]
async fn an_operator_is_told_what_would_happen_and_why() {
    let Some(node) = Node::new("") else {
        return;
    };
    node.policy(
        "zone: UTC\nrules: { office: { when: { tasks: [reboot], hours: [\"mon-fri 08:00-18:00\"] }, then: refuse, \
         reason: \"not now\" }, look: { when: { tasks: [\"demo::*\"] }, then: allow, sandbox: confined } }",
    );
    let ask = |arguments: &[&str]| {
        let output = node.run(&[&["policy", "test"], arguments].concat());
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), told)
    };
    let (code, told) = ask(&["--task", "reboot", "--at", "2026-11-27T09:00:00Z"]);
    assert_eq!(code, Some(1), "{told}");
    assert_eq!(told, "refused by office\n  reason   not now\n");
    let (code, told) = ask(&[
        "--task",
        "reboot",
        "--at",
        "2026-11-28T09:00:00Z",
        "--format",
        "json",
    ]);
    assert_eq!(code, Some(0), "{told}");
    let json: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(json["rule"], "default");
    let passed = &json["passed"][0];
    assert_eq!(passed["rule"], "office");
    assert_eq!(
        passed["why"],
        "it is Sat 09:00 UTC, not hours [\"mon-fri 08:00-18:00\"]"
    );
    // A request as it comes over the wire; its wish only shortens.
    let digest = marking(&node);
    let file = node.path("request.json");
    std::fs::write(&file, task("t", digest, "{}", r#","timeout":7"#)).unwrap();
    let (code, told) = ask(&[file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains("allowed by look\n  profile  confined\n"),
        "{told}"
    );
    assert!(told.contains("time 7s"), "{told}");
    // What is asked wrongly is no verdict.
    assert_eq!(ask(&["--module", "task"]).0, Some(1));
    std::fs::write(&file, "{}").unwrap();
    let output = node.run(&["policy", "test", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("request.json is no request"));
}
