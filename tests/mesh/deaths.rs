//! Hosts that die with all that runs on them, and brokers that are restarted one after the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use lab::network::Path;

use crate::midway::Midway;
use crate::support::{
    COMPILERS, PRIMARIES, agent_uri, mesh, network, wait_finished, wait_known, wait_one_truth,
};

#[test]
fn a_host_killed_under_its_task_costs_its_own_result_alone() {
    let Some(lab) = mesh() else { return };
    let midway = Midway::start(&lab);
    network(&lab)
        .around("agent-1", Path::cut())
        .expect("the switch answers");
    lab.kill("agent-1").expect("the agent is killed");
    network(&lab).kill_all("agent-1").expect("and its task");
    midway.open_gate();
    wait_finished(&midway, &["agent-2", "agent-3", "agent-4"]);
    network(&lab)
        .around("agent-1", Path::good())
        .expect("the switch answers");
    lab.restart("agent-1").expect("the host is back");
    let nodes = midway.nodes_at_the_end("failed");
    for node in &nodes {
        let state = if node["name"] == "agent-1" {
            "errored"
        } else {
            "finished"
        };
        assert_eq!(node["state"], state, "{node:#}");
    }
    assert_eq!(midway.marks().len(), nodes.len(), "no task ran twice");
    wait_one_truth(&lab);
}

#[test]
fn a_primary_whose_host_dies_under_a_job_is_replaced_by_the_other() {
    let Some(lab) = mesh() else { return };
    let midway = Midway::start(&lab);
    network(&lab)
        .around("primary", Path::cut())
        .expect("the switch answers");
    lab.kill("primary").expect("the primary is killed");
    midway.open_gate();
    midway.ends_with_every_result_exactly_once();
    wait_known(&lab, "primary-2", "all clients are there", |known| {
        let mut agents = lab.agents();
        agents.retain(|name| !known.contains_key(&agent_uri(name)));
        agents.is_empty()
    });
    network(&lab)
        .around("primary", Path::good())
        .expect("the switch answers");
    lab.restart("primary").expect("the host is back");
    wait_one_truth(&lab);
}

#[test]
fn all_brokers_restarted_in_turn_under_a_stream_of_jobs_fail_none() {
    let Some(lab) = mesh() else { return };
    let restarted = AtomicBool::new(false);
    thread::scope(|scope| {
        let jobs = scope.spawn(|| {
            let mut round = 0;
            // One more behind the last restart.
            loop {
                let last = restarted.load(Ordering::Relaxed);
                let midway = Midway::submit(&lab, &format!("-{round}"));
                midway.open_gate();
                midway.ends_with_every_result_exactly_once();
                round += 1;
                if last {
                    return round;
                }
            }
        });
        // However this ends, the jobs do.
        let end = Restarted(&restarted);
        for broker in PRIMARIES.iter().chain(&COMPILERS) {
            lab.stop(broker).expect("the broker stops");
            lab.restart(broker).expect("the broker starts again");
            wait_one_truth(&lab);
        }
        drop(end);
        let rounds = jobs.join().expect("all jobs end well");
        assert!(rounds > PRIMARIES.len() + COMPILERS.len(), "{rounds} jobs");
    });
    wait_one_truth(&lab);
}

/// Says so when it is dropped.
struct Restarted<'a>(&'a AtomicBool);

impl Drop for Restarted<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
