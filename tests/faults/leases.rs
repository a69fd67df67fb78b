//! A running task is a lease that its agent renews: silence makes it unknown, then lost; a node that
//! never answered is told apart from one that went, and what a lost one reports later is kept.

use lab::{Lab, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::midway::{Midway, PATIENCE};
use crate::{AGENTS, mesh};

/// The shortest lease: one question may stay without an answer.
const LEASE: &str = "orchestrator.allowed-pcp-status-requests: 1";

/// A process that is halted, and goes on when this is dropped: the lab could not end it otherwise.
struct Halted(Pid);

impl Halted {
    fn new(lab: &Lab, name: &str) -> Self {
        let pid = lab.pid(name).expect("it runs");
        let pid = Pid::from_raw(pid.try_into().expect("a pid"));
        kill(pid, Signal::SIGSTOP).expect("it is halted");
        Self(pid)
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        // It may have ended meanwhile.
        kill(self.0, Signal::SIGCONT).ok();
    }
}

/// Waits until a node of the job is as it should be.
fn wait_for(midway: &Midway<'_>, node: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let path = format!("jobs/{}/nodes", midway.job);
    wait_until(what, PATIENCE, || match midway.lab.api_get(&path) {
        Ok((200, answer)) => {
            let items = answer["items"].as_array().cloned().unwrap_or_default();
            let found = items.into_iter().find(|item| item["name"] == node);
            found
                .filter(|item| fits(item))
                .ok_or_else(|| format!("{answer:#}"))
        }
        other => Err(format!("{other:?}")),
    })
    .expect(what)
}

#[test]
fn a_silent_agent_is_unknown_then_lost_and_what_it_says_later_is_kept() {
    let lab = mesh(LEASE);
    let midway = Midway::submit(&lab, "");
    midway.wait_begun(AGENTS);
    let halted = Halted::new(&lab, "agent-1");
    midway.open_gate();

    let node = wait_for(&midway, "agent-1", "it is unknown", |node| {
        !node["details"]["unknown-since"].is_null()
    });
    assert_eq!(node["state"], "running", "{node:#}");
    let node = wait_for(&midway, "agent-1", "it is lost", |node| {
        node["state"] == "failed"
    });
    assert_eq!(
        node["result"]["_error"]["details"]["reason"], "lost",
        "{node:#}"
    );
    let message = node["details"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("has not been heard of for"), "{node:#}");

    // The others have ended well, and so has the job, which waits for nobody for ever.
    let nodes = midway.nodes_at_the_end("failed");
    for node in nodes.iter().filter(|node| node["name"] != "agent-1") {
        assert_eq!(node["state"], "finished", "{node:#}");
    }

    drop(halted);
    let node = wait_for(&midway, "agent-1", "its result came late", |node| {
        !node["details"]["late"].is_null()
    });
    assert_eq!(node["state"], "failed", "an end does not change: {node:#}");
    assert_eq!(node["details"]["late"]["state"], "finished", "{node:#}");
    assert!(
        node["details"]["late"]["result"]["token"].is_string(),
        "{node:#}"
    );
    assert_eq!(midway.marks().len(), AGENTS, "no task ran twice");
}

#[test]
fn a_node_that_never_answered_is_told_apart_from_one_that_is_gone() {
    let lab = mesh("orchestrator.pcp-timeout: 4s");
    lab.kill("agent-1").expect("the agent is killed");
    wait_until("its broker misses it", PATIENCE, || match lab.connected() {
        Ok(names) if names.iter().all(|name| name != "agent-1") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .expect("it is missed");
    let halted = Halted::new(&lab, "agent-2");
    let body = json!({"task": "probe::mark", "params": {"file": lab.dir().join("marks")},
        "scope": {"nodes": ["agent-1", "agent-2", "nobody"]}});
    let (status, answer) = lab.api_post("command/task", &body).expect("an answer");
    assert_eq!(status, 202, "{answer}");
    let job = answer["job"]["name"].as_str().expect("a name").to_owned();
    let (marks, gate) = (lab.dir().join("marks"), lab.dir().join("gate"));
    let midway = Midway {
        lab: &lab,
        job,
        marks,
        gate,
        nodes: vec![
            "agent-1".to_owned(),
            "agent-2".to_owned(),
            "nobody".to_owned(),
        ],
    };
    let nodes = midway.nodes_at_the_end("failed");
    drop(halted);
    let reasons: Vec<_> = nodes
        .iter()
        .map(|node| {
            assert_eq!(node["state"], "errored", "{node:#}");
            let reason = node["result"]["details"]["reason"].as_str();
            let message = node["details"]["message"].as_str().unwrap_or_default();
            (reason.unwrap_or_default().to_owned(), message.to_owned())
        })
        .collect();
    let reason = |index: usize| reasons[index].0.as_str();
    assert_eq!(reason(0), "not-connected", "{nodes:#?}");
    assert_eq!(reason(1), "no-answer", "{nodes:#?}");
    assert_eq!(reason(2), "never-connected", "{nodes:#?}");
}
