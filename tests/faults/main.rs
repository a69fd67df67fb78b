//! Any one process may be killed in the middle of a running job and started again: each node's
//! result is recorded exactly once, and each task ran exactly once.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test says what it expects, and fails by panicking"
)]

mod kills;
mod leases;
#[path = "../midway.rs"]
mod midway;

use std::fs;
use std::path::PathBuf;

use lab::Lab;
use midway::Midway;
use serde_json::json;

const AGENTS: usize = 4;

/// A mesh whose orchestrator has these lines of configuration as well.
fn mesh(orchestrator: &str) -> Lab {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    Lab::builder()
        .compilers(2)
        .agents(AGENTS)
        .modulepath(root.join("modules"))
        .config("orchestrator", orchestrator)
        .start()
        .expect("the mesh starts")
}

#[test]
fn an_agent_killed_under_its_task_delivers_the_result_after_its_restart() {
    let lab = mesh("");
    let midway = Midway::start(&lab);
    midway.lab.kill("agent-2").expect("the agent is killed");
    // The task ends while nobody watches it.
    midway.open_gate();
    midway
        .lab
        .restart("agent-2")
        .expect("the agent starts again");
    midway.ends_with_every_result_exactly_once();
}

#[test]
fn an_agent_restarted_under_its_task_adopts_it_while_it_runs() {
    let lab = mesh("");
    let midway = Midway::start(&lab);
    midway.lab.kill("agent-2").expect("the agent is killed");
    midway
        .lab
        .restart("agent-2")
        .expect("the agent starts again");
    midway.open_gate();
    midway.ends_with_every_result_exactly_once();
}

#[test]
fn a_compiler_killed_under_a_job_loses_no_result() {
    let lab = mesh("");
    let midway = Midway::start(&lab);
    midway
        .lab
        .kill("compiler-1")
        .expect("the compiler is killed");
    midway.open_gate();
    midway
        .lab
        .restart("compiler-1")
        .expect("the compiler starts again");
    midway.ends_with_every_result_exactly_once();
}

#[test]
fn a_compiler_that_stays_away_is_replaced_by_the_other() {
    let lab = mesh("");
    let midway = Midway::start(&lab);
    midway
        .lab
        .kill("compiler-1")
        .expect("the compiler is killed");
    midway.open_gate();
    midway.ends_with_every_result_exactly_once();
}

#[test]
fn the_primary_killed_under_a_job_loses_no_result() {
    let lab = mesh("");
    let midway = Midway::start(&lab);
    midway.lab.kill("primary").expect("the primary is killed");
    midway.open_gate();
    midway
        .lab
        .restart("primary")
        .expect("the primary starts again");
    midway.ends_with_every_result_exactly_once();
}

#[test]
fn the_orchestrator_killed_under_a_job_finds_its_results() {
    let lab = mesh("");
    let midway = Midway::start(&lab);
    midway
        .lab
        .kill("orchestrator")
        .expect("the orchestrator is killed");
    midway.open_gate();
    midway
        .lab
        .restart("orchestrator")
        .expect("the orchestrator starts again");
    midway.ends_with_every_result_exactly_once();
}

#[test]
fn everything_killed_at_once_loses_no_result() {
    let lab = mesh("");
    let midway = Midway::start(&lab);
    let names = [
        "agent-1",
        "compiler-1",
        "compiler-2",
        "primary",
        "orchestrator",
    ];
    for name in names {
        midway.lab.kill(name).expect("the process is killed");
    }
    midway.open_gate();
    for name in names.iter().rev() {
        midway.lab.restart(name).expect("the process starts again");
    }
    midway.ends_with_every_result_exactly_once();
}

#[test]
fn a_job_stopped_by_force_leaves_nothing_running_although_the_orchestrator_dies() {
    let lab = mesh("");
    let midway = Midway::start(&lab);
    let stop = json!({ "job": midway.job, "force": true });
    let (status, answer) = midway
        .lab
        .api_post("command/stop", &stop)
        .expect("the API answers");
    assert_eq!(status, 202, "{answer}");
    midway
        .lab
        .kill("orchestrator")
        .expect("the orchestrator is killed");
    midway
        .lab
        .restart("orchestrator")
        .expect("the orchestrator starts again");
    let nodes = midway.nodes_at_the_end("stopped");
    for node in &nodes {
        assert_eq!(node["state"], "stopped", "{node:#}");
        let message = node["details"]["message"].as_str().unwrap_or_default();
        assert!(message.ends_with("killed on the node"), "{node:#}");
    }
    let gate = midway.gate.display().to_string();
    assert_eq!(
        processes_with(&gate),
        Vec::<u32>::new(),
        "something runs on"
    );

    // What was stopped is run again, as a job of its own, and once.
    let again = json!({ "job": midway.job, "only": "failed" });
    let (status, answer) = midway
        .lab
        .api_post("command/rerun", &again)
        .expect("the API answers");
    assert_eq!(status, 202, "{answer}");
    fs::write(&midway.marks, "").expect("a writable lab");
    midway.open_gate();
    let job = answer["job"]["name"].as_str().expect("a name").to_owned();
    Midway { job, ..midway }.ends_with_every_result_exactly_once();
}

/// Processes in whose environment a text stands.
fn processes_with(text: &str) -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("a /proc");
    all.flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(text)
        })
        .collect()
}
