//! `task stop`: what is asked to end ends, and the answer comes when nothing of it is left.

use pxp::MessageKind::{BlockingRequest, NonBlockingRequest, ProvisionalResponse};
use pxp::{StopResult, StopState};
use serde_json::Value;

use crate::node::{Node, params, task, wait_until};
use crate::played::{Peer, blocking};

async fn stop(peer: &mut Peer, id: &str) -> StopState {
    let params = format!(r#"{{"transaction_id":"{id}"}}"#);
    let result: StopResult = peer.ask("task", "stop", &params).await;
    assert_eq!(result.transaction_id.as_str(), id);
    result.state
}

/// Asks to stop and takes the answer and the outcome, in whatever order they come.
pub(crate) async fn stop_and_outcome(peer: &mut Peer, id: &str) -> (Value, Value) {
    let params = format!(r#"{{"transaction_id":"{id}"}}"#);
    peer.request(BlockingRequest, &blocking("task", "stop", &params))
        .await;
    let (mut stopped, mut outcome) = (None, None);
    while stopped.is_none() || outcome.is_none() {
        let answer = peer.answer().await;
        match &*answer.kind {
            "rpc_blocking_response" => stopped = Some(answer.body["results"].clone()),
            _ => outcome = Some(answer.body),
        }
    }
    (stopped.unwrap(), outcome.unwrap())
}

#[tokio::test]
async fn a_running_task_is_ended_with_all_that_it_started() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let pids = node.path("pids");
    // A daemon of its own session, and a main process; both ignore SIGTERM.
    let script = format!(
        "#!/bin/sh\ntrap '' TERM\necho begun\n\
         setsid sh -c 'trap \"\" TERM; echo $$ >>{0}; while :; do sleep 1; done' &\n\
         echo $$ >>{0}\nwhile :; do sleep 1; done\n",
        pids.display()
    );
    let digest = node.broker.has(script.as_bytes());
    let (_agent, mut peer) = node.start().await;
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    wait_until("both run", || node.read("pids").lines().count() == 2).await;
    let (stopped, outcome) = stop_and_outcome(&mut peer, t1).await;
    assert_eq!(stopped["state"], "stopped");
    let results = &outcome["results"];
    assert_eq!(results["usage"]["killed_by"], "stop");
    assert_eq!(results["exitcode"], 143);
    assert_eq!(results["stdout"], "begun\n");
    let stderr = results["stderr"].as_str().unwrap();
    assert!(stderr.contains("the task was stopped"), "{stderr}");
    let cgroup_or_namespace = |name: &str| std::fs::read_dir(format!("/sys/fs/cgroup/{name}"));
    assert!(cgroup_or_namespace(t1).is_err());
    // Once more changes nothing, before and after the acknowledgement.
    assert_eq!(stop(&mut peer, t1).await, StopState::Finished);
    peer.acknowledge(t1).await;
    node.wait_for_state(t1, "reported").await;
    assert_eq!(stop(&mut peer, t1).await, StopState::Finished);
    assert_eq!(stop(&mut peer, "nobody").await, StopState::Unknown);
}

#[tokio::test]
async fn what_waits_for_a_place_or_for_its_files_never_starts() {
    let Some(node) = Node::new("task-concurrency: 1") else {
        return;
    };
    let (t1, t2) = (&node.id("t1"), &node.id("t2"));
    let digest = node.broker.has(b"#!/bin/sh\n");
    node.broker.withholds(digest);
    let (_agent, mut peer) = node.start().await;
    for id in [t1, t2] {
        peer.request(NonBlockingRequest, &task(id, digest, "{}", ""))
            .await;
        peer.expect(ProvisionalResponse).await;
    }
    // The first waits for its file, the second for the first one's place.
    for id in [t2, t1] {
        let (stopped, outcome) = stop_and_outcome(&mut peer, id).await;
        assert_eq!(stopped["state"], "not_started");
        let why = outcome["description"].as_str().unwrap();
        assert!(why.contains("stopped before it was started"), "{why}");
    }
    assert_eq!(stop(&mut peer, t1).await, StopState::Finished);
}

#[tokio::test]
async fn a_task_of_an_earlier_agent_is_stopped_by_the_next_one() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = node
        .broker
        .has(b"#!/bin/sh\necho begun\nwhile :; do sleep 1; done\n");
    let (program, mut peer) = node.spawn().await;
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    let stdout = format!("spool/{t1}/stdout");
    wait_until("it runs", || node.read(&stdout) == "begun\n").await;
    program.kill();
    peer.drop_connection().await;
    let (_program, mut peer) = node.spawn().await;
    let (stopped, outcome) = stop_and_outcome(&mut peer, t1).await;
    assert_eq!(stopped["state"], "stopped");
    assert_eq!(outcome["results"]["usage"]["killed_by"], "stop");
}

#[tokio::test]
async fn what_a_requester_waits_for_can_be_stopped_and_has_a_time_limit_too() {
    let Some(node) = Node::new("task-concurrency: 1") else {
        return;
    };
    let gate = node.path("begun");
    let script = format!(
        "#!/bin/sh\necho x >>{}\nwhile :; do sleep 1; done\n",
        gate.display()
    );
    let digest = node.broker.has(script.as_bytes());
    let (_agent, mut peer) = node.start().await;
    let request = |id: &str, rest: &str| {
        let body = blocking("task", "run", &params(digest, "{}", rest));
        body.replace(
            r#""transaction_id":"q""#,
            &format!(r#""transaction_id":"{id}""#),
        )
    };
    peer.request(BlockingRequest, &request("one", "")).await;
    wait_until("it runs", || gate.exists()).await;
    // The other waits for a place, and never has one.
    peer.request(BlockingRequest, &request("two", "")).await;
    for (id, state) in [("two", "not_started"), ("one", "stopped")] {
        let ask = format!(r#"{{"transaction_id":"{id}"}}"#);
        peer.request(BlockingRequest, &blocking("task", "stop", &ask))
            .await;
        let (mut stopped, mut ended) = (None, None);
        while stopped.is_none() || ended.is_none() {
            let answer = peer.answer().await;
            if answer.body["transaction_id"] == "q" {
                stopped = Some(answer.body["results"]["state"].clone());
            } else {
                assert_eq!(answer.body["transaction_id"], id);
                ended = Some(answer.body);
            }
        }
        assert_eq!(stopped.unwrap(), state);
        let ended = ended.unwrap();
        match state {
            "stopped" => assert_eq!(ended["results"]["usage"]["killed_by"], "stop"),
            _ => assert!(
                ended["description"]
                    .as_str()
                    .unwrap()
                    .contains("stopped before")
            ),
        }
    }
    assert_eq!(stop(&mut peer, "one").await, StopState::Unknown);
    assert_eq!(node.read("begun"), "x\n");
    peer.request(BlockingRequest, &request("three", r#","timeout":1"#))
        .await;
    let ended = peer.answer().await.body;
    assert_eq!(ended["results"]["usage"]["killed_by"], "time-limit");
}
