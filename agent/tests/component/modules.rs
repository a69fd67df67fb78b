//! The modules that answer at once, and blocking tasks.

use pxp::MessageKind::{BlockingRequest, BlockingResponse, NonBlockingRequest};
use pxp::Status;
use serde_json::{Value, json};

use crate::node::{Node, open_gate, params};
use crate::played::blocking;

#[tokio::test]
async fn ping_echo_and_status_answer() {
    let Some(node) = Node::new("") else {
        return;
    };
    let (_agent, mut peer) = node.start().await;
    peer.nothing_waits().await;
    let echoed: Value = peer.ask("echo", "echo", r#"{"argument":"grüße"}"#).await;
    assert_eq!(echoed, json!({"outcome": "grüße"}));
    let status = peer.status("nobody", Status::Unknown).await;
    assert_eq!(
        status.execution_error().as_deref(),
        Some("found no results directory")
    );
}

#[tokio::test]
async fn a_blocking_task_gives_its_results_keeps_nothing_and_keeps_nobody_waiting() {
    let Some(node) = Node::new("") else {
        return;
    };
    let gate = node.path("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let script = format!(
        "#!/bin/sh\nread -r word < {}\necho \"$word\"\n",
        gate.display()
    );
    let digest = node.broker.has(script.as_bytes());
    let (_agent, mut peer) = node.start().await;
    let body = blocking("task", "run", &params(digest, "{}", ""));
    peer.request(BlockingRequest, &body).await;
    peer.nothing_waits().await;
    open_gate(gate).await;
    let results = peer.expect(BlockingResponse).await["results"].clone();
    let usage = &results["usage"];
    assert_eq!(
        results,
        json!({"exitcode": 0, "stdout": "through\n", "usage": usage})
    );
    let left: Vec<_> = std::fs::read_dir(node.path("spool")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn what_only_answers_at_once_is_refused_to_non_blocking_requests() {
    let Some(node) = Node::new("") else {
        return;
    };
    let (_agent, mut peer) = node.start().await;
    for module in ["echo", "ping", "status"] {
        let (action, params) = match module {
            "echo" => ("echo", r#"{"argument":"x"}"#),
            "ping" => ("ping", "{}"),
            _ => ("query", r#"{"transaction_id":"x"}"#),
        };
        let body = format!(
            r#"{{"transaction_id":"t","notify_outcome":true,"module":"{module}","action":"{action}","params":{params}}}"#
        );
        peer.request(NonBlockingRequest, &body).await;
        let text = format!("the module '{module}' supports only blocking PXP requests");
        assert_eq!(peer.error("t").await, text);
    }
}
