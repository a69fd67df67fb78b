//! `command run` and `script run`: supervised, refused and reported as tasks are.

use pcp::Digest;
use pxp::MessageKind::{BlockingRequest, NonBlockingRequest, ProvisionalResponse};
use serde_json::{Value, json};

use crate::node::{Node, request, wait_until};
use crate::played::blocking;
use crate::stop::stop_and_outcome;

fn script(filename: &str, digest: Digest, arguments: &[&str]) -> Value {
    json!({
        "script": {
            "filename": filename,
            "sha256": digest.to_string(),
            "uri": {"path": "/x", "params": {"environment": "production"}},
        },
        "arguments": arguments,
    })
}

#[tokio::test]
async fn a_command_is_a_line_for_the_shell_and_is_written_nowhere() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    node.policy("rules: { commands: { when: { modules: [command] }, then: allow } }");
    let (program, mut peer) = node.spawn().await;
    let line = "secret=hunter2; echo \"$((40 + 2))\" | tr 4 7; echo \"${#secret}\" >&2; exit 3";
    let body = request(t1, "command", "run", &json!({"command": line}));
    peer.request(NonBlockingRequest, &body).await;
    peer.expect(ProvisionalResponse).await;
    let results = peer.outcome(t1).await;
    let usage = &results["usage"];
    assert_eq!(
        results,
        json!({"exitcode": 3, "stdout": "72\n", "stderr": "7\n", "usage": usage})
    );
    assert_eq!(usage["rule"], "commands");
    for file in ["metadata", "plan.json"] {
        let text = node.read(&format!("spool/{t1}/{file}"));
        assert!(!text.is_empty() && !text.contains("hunter2"), "{file}");
    }
    assert!(!node.read("log").contains("hunter2"));
    // A status query tells the rule, too, also after a restart.
    peer.acknowledge(t1).await;
    node.wait_for_state(t1, "reported").await;
    peer.drop_connection().await;
    assert_eq!(program.terminate(), Some(0));
    let (_program, mut peer) = node.spawn().await;
    let status = peer.status(t1, pxp::Status::Failure).await;
    assert_eq!(status.usage.unwrap().rule.as_deref(), Some("commands"));
}

#[tokio::test]
async fn a_script_gets_its_arguments_as_they_are() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = node.broker.has(
        b"#!/bin/sh\necho \"$(basename \"$0\") $#\"\nfor a in \"$@\"; do echo \"<$a>\"; done\n",
    );
    let (_agent, mut peer) = node.start().await;
    let arguments = ["a b", "", "$(id)", "-x", "ä\n"];
    let params = script("demo/scripts/show.sh", digest, &arguments);
    peer.request(NonBlockingRequest, &request(t1, "script", "run", &params))
        .await;
    peer.expect(ProvisionalResponse).await;
    let results = peer.outcome(t1).await;
    let wanted = "show.sh 5\n<a b>\n<>\n<$(id)>\n<-x>\n<ä\n>\n";
    assert_eq!(results["stdout"], wanted);
    assert_eq!(node.record(t1)["task"], "demo/scripts/show.sh");
    let plan = node.read(&format!("spool/{t1}/plan.json"));
    assert!(!plan.contains("$(id)"), "{plan}");
    // The same for who waits for it.
    let body = blocking("script", "run", &params.to_string());
    peer.request(BlockingRequest, &body).await;
    let answer = peer.expect(pxp::MessageKind::BlockingResponse).await;
    assert_eq!(answer["results"]["stdout"], wanted);
    assert_eq!(answer["results"]["usage"]["rule"], "default");
}

#[tokio::test]
async fn a_script_that_is_not_what_was_asked_for_never_runs() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = node.broker.has(b"#!/bin/sh\necho right\n");
    let touched = node.path("touched");
    let wrong = format!("#!/bin/sh\ntouch {}\n", touched.display());
    node.broker.lies(digest, wrong.as_bytes());
    let (_agent, mut peer) = node.start().await;
    let params = script("x.sh", digest, &[]);
    peer.request(NonBlockingRequest, &request(t1, "script", "run", &params))
        .await;
    peer.expect(ProvisionalResponse).await;
    let error = peer.error(t1).await;
    assert!(
        error.contains("SHA that differs from the provided SHA"),
        "{error}"
    );
    assert!(!touched.exists());
}

#[tokio::test]
async fn rules_are_about_commands_and_scripts_too() {
    let Some(node) = Node::new("") else {
        return;
    };
    let digest = node.broker.has(b"#!/bin/sh\necho listed\n");
    let other = node.broker.has(b"#!/bin/sh\necho other\n");
    node.policy(&format!(
        "default: refuse\nrules: {{ listed: {{ when: {{ modules: [script], digests: [\"{digest}\"] }}, then: allow }} }}"
    ));
    let (_agent, mut peer) = node.start().await;
    let listed = script("a.sh", digest, &[]);
    let results: Value = peer.ask("script", "run", &listed.to_string()).await;
    assert_eq!(results["stdout"], "listed\n");
    let refused = [
        ("script", script("a.sh", other, &[])),
        ("command", json!({"command": "echo no"})),
    ];
    for (module, params) in refused {
        let body = blocking(module, "run", &params.to_string());
        peer.request(BlockingRequest, &body).await;
        let error = peer.error("q").await;
        assert!(error.contains("refused by the rule \"default\""), "{error}");
    }
}

#[tokio::test]
async fn a_command_is_stopped_and_limited_like_a_task() {
    let Some(node) = Node::new("") else {
        return;
    };
    let (t1, t2) = (&node.id("t1"), &node.id("t2"));
    let (_agent, mut peer) = node.start().await;
    let line = "echo begun; sleep 1000 & wait";
    let params = json!({"command": line});
    peer.request(NonBlockingRequest, &request(t1, "command", "run", &params))
        .await;
    peer.expect(ProvisionalResponse).await;
    wait_until("it runs", || {
        node.read(&format!("spool/{t1}/stdout")) == "begun\n"
    })
    .await;
    let (stopped, outcome) = stop_and_outcome(&mut peer, t1).await;
    assert_eq!(stopped["state"], "stopped");
    assert_eq!(outcome["results"]["usage"]["killed_by"], "stop");
    let params = json!({"command": line, "pxp_mesh": {"time_limit": 1}});
    peer.request(NonBlockingRequest, &request(t2, "command", "run", &params))
        .await;
    peer.expect(ProvisionalResponse).await;
    let results = peer.outcome(t2).await;
    assert_eq!(results["usage"]["killed_by"], "time-limit");
    assert_eq!(results["exitcode"], 143);
}
