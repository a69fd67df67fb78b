//! Outcomes reach their requester, and requests run once, whatever is repeated or lost.

use pcp::Flags;
use pxp::MessageKind::{NonBlockingRequest, NonBlockingResponse, ProvisionalResponse};
use pxp::Status;

use crate::node::{Node, task};

fn counting(node: &Node) -> pcp::Digest {
    let path = node.path("runs");
    let script = format!("#!/bin/sh\necho run >> {}\necho $PT_x\n", path.display());
    node.broker.has(script.as_bytes())
}

#[tokio::test]
async fn a_repeated_request_is_answered_again_and_never_run_again() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = counting(&node);
    let (_agent, mut peer) = node.start().await;
    let request = task(t1, digest, r#"{"x":1}"#, "");
    peer.request(NonBlockingRequest, &request).await;
    peer.expect(ProvisionalResponse).await;
    let first = peer.outcome(t1).await;
    for acknowledged in [false, true] {
        if acknowledged {
            peer.acknowledge(t1).await;
            node.wait_for_state(t1, "reported").await;
        }
        // White space does not make it another request.
        let again = request.replace(r#"{"x":1}"#, r#"{ "x": 1 }"#);
        peer.request(NonBlockingRequest, &again).await;
        peer.expect(ProvisionalResponse).await;
        assert_eq!(peer.outcome(t1).await, first);
    }
    assert_eq!(node.read("runs"), "run\n");
}

#[tokio::test]
async fn an_id_that_is_in_use_is_refused_to_another_request_and_to_another_requester() {
    let Some(node) = Node::new("controllers: [orchestrator, second]") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = counting(&node);
    let (_agent, mut peer) = node.start().await;
    let request = task(t1, digest, r#"{"x":1}"#, "");
    peer.request(NonBlockingRequest, &request).await;
    peer.expect(ProvisionalResponse).await;
    peer.outcome(t1).await;
    let other = task(t1, digest, r#"{"x":2}"#, "");
    for acknowledged in [false, true] {
        if acknowledged {
            peer.acknowledge(t1).await;
            node.wait_for_state(t1, "reported").await;
        }
        peer.request(NonBlockingRequest, &other).await;
        let text = format!("transaction {t1} is already used by another request");
        assert_eq!(peer.error(t1).await, text);
        let sender = "pcp://second/orchestrator";
        peer.request_of(sender, Flags::default(), NonBlockingRequest, &request)
            .await;
        assert_eq!(peer.error(t1).await, text);
    }
    assert_eq!(node.read("runs"), "run\n");
}

#[tokio::test]
async fn an_outcome_comes_with_every_new_session_until_it_is_acknowledged() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = counting(&node);
    let (_agent, mut peer) = node.start().await;
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    let first = peer.outcome(t1).await;
    for _ in 0..2 {
        peer.drop_connection().await;
        peer = node.broker.welcome().await;
        assert_eq!(peer.outcome(t1).await, first);
    }
    // Somebody else cannot acknowledge it.
    let body = &format!(r#"{{"transaction_id":"{t1}"}}"#);
    let kind = pxp::MessageKind::OutcomeAcknowledgement;
    peer.request_of("pcp://second/orchestrator", Flags::default(), kind, body)
        .await;
    peer.drop_connection().await;
    peer = node.broker.welcome().await;
    assert_eq!(peer.outcome(t1).await, first);
    peer.acknowledge(t1).await;
    node.wait_for_state(t1, "reported").await;
    peer.drop_connection().await;
    peer = node.broker.welcome().await;
    peer.nothing_waits().await;
    assert_eq!(node.read("runs"), "run\n");
}

#[tokio::test]
async fn an_outcome_is_sent_again_within_a_session() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = counting(&node);
    let (_agent, mut peer) = node.start().await;
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    let first = peer.outcome(t1).await;
    // The agent's own clock brings the second one.
    assert_eq!(peer.outcome(t1).await, first);
}

#[tokio::test]
async fn a_requester_that_does_not_acknowledge_gets_the_outcome_once() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = counting(&node);
    let (_agent, mut peer) = node.start().await;
    let request = task(t1, digest, "{}", "");
    let sender = "pcp://orchestrator/controller";
    peer.request_of(sender, Flags::default(), NonBlockingRequest, &request)
        .await;
    peer.expect(ProvisionalResponse).await;
    peer.expect(NonBlockingResponse).await;
    node.wait_for_state(t1, "reported").await;
    peer.drop_connection().await;
    peer = node.broker.welcome().await;
    peer.nothing_waits().await;
}

#[tokio::test]
async fn a_requester_that_wants_no_notice_asks() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = counting(&node);
    let (_agent, mut peer) = node.start().await;
    let request = task(t1, digest, r#"{"x":"told"}"#, "")
        .replace(r#""notify_outcome":true"#, r#""notify_outcome":false"#);
    peer.request(NonBlockingRequest, &request).await;
    peer.expect(ProvisionalResponse).await;
    let status = peer.status(t1, Status::Success).await;
    assert_eq!(status.stdout.as_deref(), Some("told\n"));
    assert_eq!(status.exitcode, Some(0));
}
