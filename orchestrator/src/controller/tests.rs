//! The controller against agents, a mesh that loses messages, and crashes at every point. What must
//! hold whatever happens: no agent runs a transaction twice, every node's end is recorded once,
//! every job ends, and a result counts as delivered only once it is recorded.

mod world;

use orchestrator_api::{JobState, NodeState};
use pcp::body::{self, ErrorKind};
use pcp::uri::ClientType;
use proptest::prelude::*;
use pxp::{MessageKind, TransactionId};

use crate::job::{JobId, Stop};
use world::{LEASE, TIME_LIMIT, World, kind_of, of_broker, outcome, uri};

#[derive(Debug, Clone)]
enum Event {
    ToMesh { index: usize, lose: bool },
    ToOrchestrator { index: usize, lose: bool },
    Finish(usize),
    Report(usize),
    Toggle(usize),
    Pass(u64),
    Crash { decided: bool },
    Mesh(bool),
    Stop(i64, Stop),
    Found(usize, bool),
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn event() -> impl Strategy<Value = Event> {
    let mode = prop_oneof![4 => Just(Stop::Gentle), 1 => Just(Stop::Force)];
    prop_oneof![
        12 => (0..3_usize, prop::bool::weighted(0.2)).prop_map(|(index, lose)| Event::ToMesh { index, lose }),
        12 => (0..3_usize, prop::bool::weighted(0.2)).prop_map(|(index, lose)| Event::ToOrchestrator { index, lose }),
        5 => (0..4_usize).prop_map(Event::Finish),
        3 => (0..4_usize).prop_map(Event::Report),
        3 => (0..4_usize).prop_map(Event::Toggle),
        4 => (0..20_000_u64).prop_map(Event::Pass),
        1 => any::<bool>().prop_map(|decided| Event::Crash { decided }),
        2 => any::<bool>().prop_map(Event::Mesh),
        2 => (0..2_usize, any::<bool>()).prop_map(|(index, found)| Event::Found(index, found)),
        1 => (1..4_i64, mode).prop_map(|(job, mode)| Event::Stop(job, mode)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_end_is_recorded_once_whatever_is_lost(
        events in prop::collection::vec(event(), 0..120),
        sensitive in any::<bool>(),
        reports in any::<bool>(),
    ) {
        let mut world = World::new(&NAMES);
        if reports {
            world.look_for_reports();
        }
        world.connect();
        world.submit(1, &NAMES, sensitive);
        world.submit(2, &["b", "c"], false);
        world.submit_puppet(3, &["a", "c"], None);
        for event in events {
            match event {
                Event::ToMesh { index, lose: false } => world.deliver_to_mesh(index),
                Event::ToMesh { index, .. } => {
                    if index < world.to_mesh.len() {
                        world.to_mesh.remove(index);
                    }
                }
                Event::ToOrchestrator { index, lose: false } => world.deliver_to_orchestrator(index),
                Event::ToOrchestrator { index, .. } => {
                    // A link to a broker loses what agents send, never what the broker itself says.
                    let lost = world.to_orchestrator.get(index).is_some_and(|m| kind_of(m).is_some());
                    if lost {
                        world.to_orchestrator.remove(index);
                    }
                }
                Event::Finish(agent) => world.finish(NAMES[agent]),
                Event::Report(agent) => world.report(NAMES[agent]),
                Event::Toggle(agent) => world.toggle(NAMES[agent]),
                Event::Pass(millis) => world.pass(millis),
                Event::Crash { decided } => {
                    if decided && world.mesh && !world.to_orchestrator.is_empty() {
                        let message = world.to_orchestrator.remove(0);
                        let now = world.now();
                        world.controller.message(now, &message);
                    }
                    world.crash(decided);
                }
                Event::Mesh(true) => world.connect(),
                Event::Mesh(false) => world.disconnect(),
                Event::Found(index, found) => world.found(index, found),
                Event::Stop(job, mode) => {
                    let now = world.now();
                    world.controller.stop(now, JobId(job), mode);
                    world.flush();
                }
            }
            // A job's end and its nodes' ends are never seen apart.
            for job in world.disk.jobs.values() {
                let open = job.nodes.iter().any(|node| !node.state.is_final());
                prop_assert_eq!(open, !job.state.is_final());
            }
        }
        world.heal();
        for job in world.disk.jobs.values() {
            prop_assert!(job.state.is_final());
            for node in &job.nodes {
                prop_assert_eq!(node.ends, 1);
                let spooled = world.agents[node.certname.as_str()].spool.get(&node.transaction);
                if node.state == NodeState::Finished {
                    prop_assert!(spooled.is_some_and(|spooled| spooled.finished));
                }
                if node.state == NodeState::Skipped {
                    prop_assert!(spooled.is_none(), "a skipped node ran");
                }
                prop_assert!(spooled.is_none_or(|spooled| spooled.acknowledged));
            }
        }
        prop_assert_eq!(world.controller.counts().jobs, 0);
        prop_assert!(world.controller.transactions.is_empty());
        prop_assert!(world.controller.requests.is_empty());
        prop_assert!(world.controller.interest.is_empty());
        let places = &world.controller.places;
        prop_assert_eq!((places.tasks, places.compiles), (0, 0));
    }
}

#[test]
fn a_node_that_was_never_connected_is_errored_at_once() {
    let mut world = World::new(&["a"]);
    world.connect();
    world.settle();
    world.submit(1, &["a", "nobody"], false);
    let (state, nodes) = world.state(1);
    assert_eq!(
        (state, nodes),
        (
            JobState::Running,
            vec![NodeState::Running, NodeState::Errored]
        )
    );
    world.heal();
    assert_eq!(world.state(1).0, JobState::Failed);
}

#[test]
fn news_that_overtakes_the_inventory_is_not_lost() {
    let mut world = World::new(&["a", "b"]);
    world.toggle("b");
    world.connect();
    // The inventory is on its way, without the node, which comes then.
    world.deliver_to_mesh(0);
    world.toggle("b");
    world.deliver_to_orchestrator(1);
    world.settle();
    world.submit(1, &["b"], false);
    assert_eq!(world.state(1).1, [NodeState::Running]);
}

#[test]
fn an_inventory_that_was_asked_for_twice_is_not_taken_back_by_the_later_answer() {
    let mut world = World::new(&["a", "b"]);
    world.toggle("b");
    world.connect();
    world.deliver_to_mesh(0);
    world.pass(5_000);
    // Both answers are on their way, and the node comes and goes and comes meanwhile.
    world.deliver_to_mesh(0);
    for _ in 0..3 {
        world.toggle("b");
    }
    assert_eq!(world.to_orchestrator.len(), 5);
    for _ in 0..3 {
        world.deliver_to_orchestrator(2);
    }
    assert_eq!(world.controller.early_news.len(), 1);
    world.settle();
    world.submit(1, &["b"], false);
    assert_eq!(world.state(1).1, [NodeState::Running]);
}

#[test]
fn an_inventory_of_an_earlier_session_is_not_taken_for_that_of_the_next() {
    let mut world = World::new(&["a", "b"]);
    world.toggle("b");
    world.connect();
    world.deliver_to_mesh(0);
    let late = world.to_orchestrator.remove(0);
    world.disconnect();
    world.toggle("b");
    world.connect();
    world.to_orchestrator.insert(0, late);
    world.deliver_to_orchestrator(0);
    world.settle();
    world.submit(1, &["b"], false);
    assert_eq!(world.state(1).1, [NodeState::Running]);
}

#[test]
fn a_node_that_just_went_is_waited_for() {
    let mut world = World::new(&["a", "b"]);
    world.connect();
    world.settle();
    world.toggle("a");
    world.toggle("b");
    world.settle();
    world.submit(1, &["a", "b"], false);
    assert_eq!(world.state(1).1, [NodeState::Ready, NodeState::Ready]);
    world.pass(20_000);
    world.toggle("a");
    world.settle();
    assert_eq!(world.state(1).1, [NodeState::Running, NodeState::Ready]);
    world.pass(10_000);
    assert_eq!(world.state(1).1, [NodeState::Running, NodeState::Errored]);
    let message = world.disk.jobs[&JobId(1)].nodes[1].message.clone();
    assert_eq!(
        message.as_deref(),
        Some("the node is not connected to any broker")
    );
}

#[test]
fn a_request_is_sent_again_until_it_is_accepted_and_never_after() {
    let mut world = World::new(&["a"]);
    world.connect();
    world.settle();
    world.submit(1, &["a"], false);
    world.to_mesh.clear();
    world.pass(4_999);
    assert_eq!(world.waiting(MessageKind::NonBlockingRequest), 0);
    world.pass(1);
    assert_eq!(world.waiting(MessageKind::NonBlockingRequest), 1);
    world.settle();
    world.pass(59_000);
    assert_eq!(world.to_mesh.len(), 0);
    world.pass(1_000);
    assert_eq!(world.waiting(MessageKind::BlockingRequest), 1);
    assert_eq!(world.waiting(MessageKind::NonBlockingRequest), 0);
}

#[test]
fn a_node_that_does_not_answer_is_errored() {
    let mut world = World::new(&["a"]);
    world.connect();
    world.settle();
    world.submit(1, &["a"], false);
    world.to_mesh.clear();
    world.pass(30_000);
    assert_eq!(world.state(1), (JobState::Failed, vec![NodeState::Errored]));
}

#[test]
fn without_a_broker_a_job_waits_a_while_and_is_errored() {
    let mut world = World::new(&["a"]);
    world.submit(1, &["a"], false);
    world.pass(29_000);
    assert_eq!(world.state(1).1, [NodeState::Ready]);
    world.pass(1_000);
    assert_eq!(world.state(1), (JobState::Failed, vec![NodeState::Errored]));
}

#[test]
fn a_node_whose_agent_never_comes_back_is_lost() {
    let mut world = World::new(&["a"]);
    world.connect();
    world.settle();
    world.submit(1, &["a"], false);
    world.settle();
    world.toggle("a");
    world.settle();
    world.pass(TIME_LIMIT * 1000 + super::run::MARGIN);
    assert_eq!(world.state(1), (JobState::Failed, vec![NodeState::Failed]));
}

#[test]
fn an_agent_that_forgot_an_accepted_task_is_lost_and_not_asked_to_run_it_again() {
    let mut world = World::new(&["a"]);
    world.connect();
    world.settle();
    world.submit(1, &["a"], false);
    world.settle();
    world.agents.get_mut("a").unwrap().spool.clear();
    world.crash(false);
    world.settle();
    assert_eq!(world.state(1), (JobState::Failed, vec![NodeState::Failed]));
    assert!(world.agents["a"].spool.is_empty());
}

#[test]
fn secrets_that_were_not_sent_before_a_restart_are_an_error() {
    let mut world = World::new(&["a", "b", "c", "d"]);
    world.connect();
    world.settle();
    world.submit(1, &["a", "b", "c", "d"], true);
    world.settle();
    world.crash(false);
    let (state, nodes) = world.state(1);
    assert_eq!(state, JobState::Running);
    assert_eq!(nodes[3], NodeState::Errored);
    world.heal();
    let (state, nodes) = world.state(1);
    assert_eq!(state, JobState::Failed);
    assert_eq!(nodes[..3], [NodeState::Finished; 3]);
}

#[test]
fn jobs_take_turns() {
    let names: Vec<String> = (0..20).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new(&names);
    world.connect();
    world.settle();
    world.submit(1, &names, false);
    world.submit(2, &names[..2], false);
    world.settle();
    // Two ends of the large job make room for one node of each.
    for name in ["n0", "n1"] {
        world.finish(name);
        world.settle();
    }
    let running = |world: &World, job| {
        let nodes = world.state(job).1;
        nodes
            .iter()
            .filter(|state| **state == NodeState::Running)
            .count()
    };
    assert!(
        running(&world, 2) >= 1,
        "the small job waits for the large one"
    );
    assert_eq!(running(&world, 1) + running(&world, 2), 3);
}

#[test]
fn nobody_answers_for_another_node() {
    let mut world = World::new(&["a", "b"]);
    world.connect();
    world.settle();
    world.submit(1, &["a"], false);
    world.settle();
    let transaction: TransactionId = "1-a".parse().unwrap();
    let now = world.now();
    world
        .controller
        .message(now, &outcome("b", &transaction, 0));
    world.flush();
    assert_eq!(world.state(1).1, [NodeState::Running]);
    assert_eq!(world.to_mesh.len(), 0);
    let mut forged = outcome("a", &transaction, 0);
    forged.envelope.sender = uri("a", ClientType::parse("controller").unwrap());
    world.controller.message(now, &forged);
    world.flush();
    assert_eq!(world.state(1).1, [NodeState::Running]);
}

#[test]
fn a_broker_that_refuses_ends_the_node_with_its_reason() {
    let mut world = World::new(&["a"]);
    world.connect();
    world.settle();
    world.submit(1, &["a"], false);
    let sent = world.to_mesh.remove(0);
    let body = ErrorKind::NotAuthorized.body();
    let refusal = of_broker(body::error_message(), Some(sent.envelope.id), body);
    world.to_orchestrator.push(refusal);
    world.settle();
    assert_eq!(world.state(1), (JobState::Failed, vec![NodeState::Errored]));
    let message = world.disk.jobs[&JobId(1)].nodes[0].message.clone();
    assert!(message.unwrap().contains("Message not authorized."));
}

#[test]
fn a_request_larger_than_we_may_send_is_an_error_whatever_the_broker_takes() {
    let mut world = World::new(&["a"]);
    world.limit(10);
    world.connect();
    world.settle();
    world.submit(1, &["a"], false);
    assert_eq!(world.state(1), (JobState::Failed, vec![NodeState::Errored]));
    let message = world.disk.jobs[&JobId(1)].nodes[0].message.clone();
    assert!(message.unwrap().ends_with("at most 10 are sent"));
}

#[test]
fn an_outcome_that_comes_again_is_acknowledged_again() {
    let mut world = World::new(&["a"]);
    world.connect();
    world.settle();
    world.submit(1, &["a"], false);
    world.heal();
    assert_eq!(world.state(1).0, JobState::Finished);
    world
        .agents
        .get_mut("a")
        .unwrap()
        .spool
        .values_mut()
        .for_each(|s| s.acknowledged = false);
    world.report("a");
    world.settle();
    assert!(
        world.agents["a"]
            .spool
            .values()
            .all(|spooled| spooled.acknowledged)
    );
    assert_eq!(world.disk.jobs[&JobId(1)].nodes[0].ends, 1);
}

#[test]
fn what_runs_is_killed_by_its_agent_before_a_job_that_is_stopped_by_force_ends() {
    let mut world = World::new(&["a"]);
    world.connect();
    world.settle();
    world.submit(1, &["a"], false);
    world.settle();
    let now = world.now();
    world.controller.stop(now, JobId(1), Stop::Force);
    world.flush();
    assert_eq!(
        world.state(1),
        (JobState::Stopping, vec![NodeState::Stopping])
    );
    world.settle();
    assert_eq!(
        world.state(1),
        (JobState::Stopped, vec![NodeState::Stopped])
    );
    assert!(
        world.agents["a"]
            .spool
            .values()
            .all(|spooled| spooled.killed)
    );
    let node = &world.disk.jobs[&JobId(1)].nodes[0];
    assert!(
        node.message
            .as_ref()
            .unwrap()
            .ends_with("the task was killed on the node")
    );
    assert!(node.result.is_some(), "what it had written is lost");
    assert!(!node.given_up);
}

#[test]
fn a_forced_stop_survives_a_crash_and_admits_what_it_does_not_know() {
    let mut world = World::new(&["a", "b"]);
    world.connect();
    world.settle();
    world.submit(1, &["a", "b"], false);
    world.settle();
    world.toggle("b");
    world.settle();
    let now = world.now();
    world.controller.stop(now, JobId(1), Stop::Force);
    world.flush();
    world.crash(false);
    world.settle();
    assert_eq!(world.state(1).1, [NodeState::Stopped, NodeState::Stopping]);
    world.pass(super::run::STOP_ANSWER);
    assert_eq!(
        world.state(1),
        (JobState::Stopped, vec![NodeState::Stopped; 2])
    );
    let message = world.disk.jobs[&JobId(1)].nodes[1].message.clone().unwrap();
    assert!(
        message.ends_with("not connected; the task may still run there"),
        "{message}"
    );
    // What the node reports after all is kept.
    world.heal();
    let node = &world.disk.jobs[&JobId(1)].nodes[1];
    assert_eq!(
        (node.state, node.late),
        (NodeState::Stopped, Some(NodeState::Finished))
    );
}

#[test]
fn an_agent_that_cannot_kill_says_so_in_the_node() {
    let mut world = World::new(&["a"]);
    world.connect();
    world.settle();
    world.submit(1, &["a"], false);
    world.settle();
    let now = world.now();
    world.controller.stop(now, JobId(1), Stop::Force);
    world.flush();
    world.to_mesh.clear();
    let error = pxp::RpcError {
        transaction_id: "stop-1-a".parse().unwrap(),
        id: "x".to_owned(),
        description: "unknown action 'stop' for module 'task'".to_owned(),
    };
    let error = world::of_agent("a", MessageKind::Error, &error);
    // Once may be a moment of its own, after a restart; it is asked again.
    for _ in 0..3 {
        assert_eq!(world.state(1).1, [NodeState::Stopping]);
        world.controller.message(now, &error);
        world.flush();
    }
    assert_eq!(
        world.state(1),
        (JobState::Stopped, vec![NodeState::Stopped])
    );
    let message = world.disk.jobs[&JobId(1)].nodes[0].message.clone().unwrap();
    assert!(
        message.contains("may still run: unknown action"),
        "{message}"
    );
}

#[test]
fn a_task_whose_agent_is_silent_is_unknown_then_lost_and_its_late_result_is_kept() {
    let mut world = World::new(&["a", "b"]);
    world.connect();
    world.settle();
    world.submit_long(1, &["a"]);
    world.settle();
    let reason = |world: &World| {
        let result = world.disk.jobs[&JobId(1)].nodes[0].result.clone();
        result.unwrap_or_default()["_error"]["details"]["reason"].clone()
    };
    // As long as the agent says that it runs, it runs.
    for _ in 0..100 {
        world.pass(12_000);
        world.settle();
    }
    assert_eq!(world.state(1).1, [NodeState::Running]);
    assert_eq!(world.disk.jobs[&JobId(1)].nodes[0].unknown, None);
    world.toggle("a");
    world.settle();
    world.pass(120_000);
    let since = world.disk.jobs[&JobId(1)].nodes[0].unknown;
    assert!(since.is_some());
    // It comes back and goes on.
    world.toggle("a");
    world.settle();
    world.pass(12_000);
    world.settle();
    assert_eq!(world.disk.jobs[&JobId(1)].nodes[0].unknown, None);
    world.toggle("a");
    world.settle();
    world.pass(LEASE);
    assert_eq!(world.state(1), (JobState::Failed, vec![NodeState::Failed]));
    assert_eq!(reason(&world), "lost");
    world.toggle("a");
    world.settle();
    world.finish("a");
    world.settle();
    let node = &world.disk.jobs[&JobId(1)].nodes[0];
    assert_eq!((node.ends, node.late), (1, Some(NodeState::Finished)));
    assert!(
        world.agents["a"]
            .spool
            .values()
            .all(|spooled| spooled.acknowledged)
    );
}

#[test]
fn without_a_broker_silence_says_nothing_about_agents() {
    let mut world = World::new(&["a"]);
    world.connect();
    world.settle();
    world.submit_long(1, &["a"]);
    world.settle();
    world.disconnect();
    world.pass(3 * LEASE);
    assert_eq!(world.state(1).1, [NodeState::Running]);
    assert_eq!(world.disk.jobs[&JobId(1)].nodes[0].unknown, None);
    world.connect();
    world.heal();
    assert_eq!(world.state(1).0, JobState::Finished);
}

#[test]
fn puppet_runs_have_places_of_their_own_and_jobs_their_own_limit() {
    let mut world = World::new(&NAMES);
    world.connect();
    world.settle();
    world.submit_puppet(1, &NAMES, None);
    world.submit(2, &NAMES, false);
    let running = |world: &World, job| {
        let nodes = world.state(job).1;
        let running = nodes.iter().filter(|node| **node == NodeState::Running);
        running.count()
    };
    // One compile and three tasks at once.
    assert_eq!((running(&world, 1), running(&world, 2)), (1, 3));
    world.heal();
    assert_eq!(world.state(1).0, JobState::Finished);
    let result = world.disk.jobs[&JobId(1)].nodes[0].result.clone().unwrap();
    assert_eq!(
        result["noop"],
        serde_json::json!({"noop": true, "no_noop": false})
    );
    assert_eq!(result["status"], "changed");
    let jobs: Vec<_> = world.agents["a"]
        .spool
        .values()
        .map(|s| s.job.clone())
        .collect();
    assert!(jobs.contains(&Some("1".to_owned())));
}

#[test]
fn the_report_of_a_puppet_run_is_waited_for_and_a_crash_in_between_loses_nothing() {
    let mut world = World::new(&["a"]);
    world.look_for_reports();
    world.connect();
    world.settle();
    world.submit_puppet(1, &["a"], None);
    world.settle();
    world.finish("a");
    world.settle();
    assert_eq!(world.state(1).1, [NodeState::Running]);
    assert!(
        world.agents["a"]
            .spool
            .values()
            .all(|spooled| !spooled.acknowledged)
    );
    world.crash(false);
    world.settle();
    assert_eq!(world.wanted.len(), 1, "it is looked for again");
    world.found(0, true);
    world.settle();
    assert_eq!(
        world.state(1),
        (JobState::Finished, vec![NodeState::Finished])
    );
    let node = &world.disk.jobs[&JobId(1)].nodes[0];
    assert_eq!(
        (node.ends, &node.result.as_ref().unwrap()["hash"]),
        (1, &"d7ec".into())
    );
    assert!(
        world.agents["a"]
            .spool
            .values()
            .all(|spooled| spooled.acknowledged)
    );
    // Without a report, the run is recorded all the same.
    world.submit_puppet(2, &["a"], None);
    world.settle();
    world.finish("a");
    world.settle();
    world.pass(super::report::REPORT);
    assert_eq!(
        world.state(2),
        (JobState::Finished, vec![NodeState::Finished])
    );
}
