//! Metrics in a file for node_exporter: while the agent runs, and when it has ended.

use pxp::MessageKind::{NonBlockingRequest, ProvisionalResponse};
use tempfile::TempDir;
use tokio::time::{interval, timeout};

use crate::node::{Node, task};
use crate::played::SOON;

#[tokio::test]
async fn metrics_tell_of_the_connection_and_of_what_was_run() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("pxp-agent.prom");
    let Some(node) = Node::new(&format!("metrics-file: {file:?}")) else {
        return;
    };
    let id = &node.id("t1");
    let digest = node.broker.has(b"#!/bin/sh\nexit 3\n");
    // In a process of its own, since counters are those of a process.
    let (program, mut peer) = node.spawn().await;
    peer.request(NonBlockingRequest, &task(id, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    peer.outcome(id).await;
    peer.acknowledge(id).await;
    node.wait_for_state(id, "reported").await;
    let written = async {
        let mut looks = interval(std::time::Duration::from_millis(20));
        while !file.exists() {
            looks.tick().await;
        }
    };
    timeout(SOON, written).await.expect("written in time");
    assert_eq!(program.terminate(), Some(0));
    let text = std::fs::read_to_string(&file).unwrap();
    for line in [
        // It has ended.
        "pxp_agent_connected 0",
        "pxp_agent_connections_total 1",
        "pxp_agent_requests_total{outcome=\"allowed\"} 1",
        "pxp_agent_transaction_duration_seconds_count{outcome=\"failed\"} 1",
    ] {
        assert!(text.lines().any(|known| known == line), "{line}: {text}");
    }
    for sample in [
        "pxp_agent_spool_bytes",
        "pxp_agent_task_cache_bytes",
        "pxp_agent_spool_free_bytes",
        "pxp_agent_certificate_expiry_timestamp_seconds",
        "pxp_agent_process_resident_memory_bytes",
    ] {
        let line = text.lines().find(|line| line.starts_with(sample));
        let value = line.and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        assert!(value.is_some_and(|value| value > 0.0), "{sample}: {text}");
    }
}
