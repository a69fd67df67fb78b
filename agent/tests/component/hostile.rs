//! Requests that are wrong, or come from the wrong one.

use pcp::Flags;
use pxp::MessageKind::{BlockingRequest, NonBlockingRequest, OutcomeAcknowledgement};

use crate::node::{Node, task};
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
        ("script", "run", "unknown module: script"),
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
