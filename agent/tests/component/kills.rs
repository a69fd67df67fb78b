//! The agent is killed as soon as a transaction has come so far, for each point that can be seen from
//! outside. Whatever the point: the requester, who asks again as controllers do, has an end, and nothing
//! ran twice.

use pxp::MessageKind::NonBlockingRequest;

use crate::node::{Node, task, wait_until};
use crate::played::Peer;

/// How far a transaction has come when the agent is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    /// The request may not even have been read.
    Sent,
    /// This file is in its directory.
    File(&'static str),
    /// Its records have this word.
    Record(&'static str),
    /// An answer of this kind has come.
    Answer(&'static str),
}

const POINTS: [Point; 9] = [
    Point::Sent,
    Point::File("metadata"),
    Point::Answer("rpc_provisional_response"),
    Point::File("task"),
    Point::File("plan.json"),
    Point::File("stdout"),
    Point::File("report.json"),
    Point::Record("\"finished\""),
    Point::Answer("rpc_non_blocking_response"),
];

#[tokio::test]
async fn an_agent_that_is_killed_at_any_point_leaves_no_request_without_an_end() {
    let Some(node) = Node::new("") else {
        return;
    };
    let mut ran = 0;
    for (number, point) in POINTS.into_iter().enumerate() {
        let id = node.id(&format!("t{number}"));
        let script = format!(
            "#!/bin/sh\necho {id} >> {}\necho {id}\n",
            node.path("runs").display()
        );
        let request = task(&id, node.broker.has(script.as_bytes()), "{}", "");
        let (program, mut peer) = node.spawn().await;
        peer.request(NonBlockingRequest, &request).await;
        reach(&node, &mut peer, &id, point).await;
        program.kill();
        let (program, mut peer) = node.spawn().await;
        peer.request(NonBlockingRequest, &request).await;
        let end = end_of(&mut peer, &id).await;
        let count = node.read("runs").lines().filter(|line| *line == id).count();
        match end {
            Ok(stdout) => {
                assert_eq!((stdout, count), (format!("{id}\n"), 1), "{point:?}");
                ran += 1;
            }
            Err(why) if why.contains("did not run") => assert_eq!(count, 0, "{point:?}: {why}"),
            Err(why) => {
                assert!(why.contains("may have done a part"), "{point:?}: {why}");
                assert!(count <= 1, "{point:?}");
            }
        }
        peer.acknowledge(&id).await;
        node.wait_for_state(&id, "reported").await;
        assert_eq!(program.terminate(), Some(0));
    }
    // What had ended before the agent was killed has its result.
    assert!(ran >= 3, "{ran}");
}

async fn reach(node: &Node, peer: &mut Peer, id: &str, point: Point) {
    match point {
        Point::Sent => {}
        Point::File(name) => {
            let path = node.path(&format!("spool/{id}/{name}"));
            wait_until(name, || path.exists()).await;
        }
        Point::Record(word) => {
            let records = || node.read(&format!("spool/{id}/metadata"));
            wait_until(word, || records().contains(word)).await;
        }
        Point::Answer(kind) => while peer.answer().await.kind != kind {},
    }
}

/// The output of a transaction, or why there is none.
async fn end_of(peer: &mut Peer, id: &str) -> Result<String, String> {
    loop {
        let answer = peer.answer().await;
        if answer.body["transaction_id"] != id {
            continue;
        }
        match answer.kind.as_str() {
            "rpc_non_blocking_response" => {
                return Ok(answer.body["results"]["stdout"]
                    .as_str()
                    .unwrap()
                    .to_owned());
            }
            "rpc_error_message" => {
                return Err(answer.body["description"].as_str().unwrap().to_owned());
            }
            _ => {}
        }
    }
}
