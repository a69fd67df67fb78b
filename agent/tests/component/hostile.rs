//! Requests that are wrong, or come from the wrong one.

use pcp::Flags;
use pxp::MessageKind::{
    BlockingRequest, NonBlockingRequest, OutcomeAcknowledgement, ProvisionalResponse,
};

use crate::node::{Node, open_gate, task};
use crate::played::blocking;

#[tokio::test]
async fn requests_of_strangers_are_refused() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = node.broker.has(b"#!/bin/sh\n");
    let (_agent, mut peer) = node.start().await;
    let stranger = "pcp://stranger/orchestrator";
    for (kind, body, id) in [
        (NonBlockingRequest, task(t1, digest, "{}", ""), t1.as_str()),
        (BlockingRequest, blocking("ping", "ping", "{}"), "q"),
    ] {
        peer.request_of(stranger, Flags::default(), kind, &body)
            .await;
        assert_eq!(
            peer.error(id).await,
            "pcp://stranger/orchestrator is not among the controllers of this agent"
        );
    }
    assert!(!node.path(&format!("spool/{t1}")).exists());
}

#[tokio::test]
async fn malformed_requests_get_the_errors_of_the_original() {
    let Some(node) = Node::new("") else {
        return;
    };
    let (_agent, mut peer) = node.start().await;
    for kind in [NonBlockingRequest, BlockingRequest, OutcomeAcknowledgement] {
        for (body, text) in [
            ("", "no data"),
            ("{", "data is not in JSON format"),
            ("[1]", "invalid data"),
            (r#"{"transaction_id":"../x"}"#, "invalid data"),
        ] {
            let id = peer.request(kind, body).await;
            let answer = peer.answer().await;
            assert_eq!(
                (answer.kind.as_str(), &answer.body),
                ("error_message", &text.into())
            );
            assert_eq!(answer.envelope.in_reply_to, Some(id));
        }
    }
}

#[tokio::test]
async fn what_this_agent_does_not_offer_is_refused_by_name() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let (_agent, mut peer) = node.start().await;
    for (module, action, text) in [
        ("scripts", "run", "unknown module: scripts"),
        ("task", "walk", "unknown action 'walk' for module 'task'"),
        ("task", "run", "invalid input for 'task run'"),
    ] {
        peer.request(BlockingRequest, &blocking(module, action, "{}"))
            .await;
        let error = peer.error("q").await;
        assert!(error.starts_with(text), "{error}");
    }
    // Names that lead out of the staging directory are refused before anything is written.
    let digest = node.broker.has(b"#!/bin/sh\n");
    let request = task(t1, digest, "{}", "").replace("hello.sh", "../hello.sh");
    peer.request(NonBlockingRequest, &request).await;
    assert!(
        peer.error(t1)
            .await
            .contains("the file name \"../hello.sh\" is refused")
    );
    assert!(!node.path(&format!("spool/{t1}")).exists());
}

#[tokio::test]
async fn more_than_the_agent_can_take_is_refused_and_nothing_that_was_accepted_is_lost() {
    let Some(node) = Node::new("task-concurrency: 1") else {
        return;
    };
    let gate = node.path("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let script = format!("#!/bin/sh\nread -r word < {}\n", gate.display());
    let digest = node.broker.has(script.as_bytes());
    let (agent, mut peer) = node.start().await;
    let limit = pxp_agent::engine::WAITING + 1;
    for n in 0..limit {
        let id = node.id(&format!("t{n}"));
        peer.request(NonBlockingRequest, &task(&id, digest, "{}", ""))
            .await;
        peer.expect(ProvisionalResponse).await;
    }
    let id = node.id("one-more");
    peer.request(NonBlockingRequest, &task(&id, digest, "{}", ""))
        .await;
    let error = peer.error(&id).await;
    assert!(
        error.starts_with("the agent is busy: 1025 transactions"),
        "{error}"
    );
    assert!(!node.path(&format!("spool/{id}")).exists());
    let entries = std::fs::read_dir(node.path("spool")).unwrap().count();
    assert_eq!(entries, limit + 1);
    assert!(agent.stop().await);
    open_gate(gate).await;
}
