//! Any one process may be killed in the middle of a running job and started again: each node's
//! result is recorded exactly once, and each task ran exactly once.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test says what it expects, and fails by panicking"
)]

mod kills;
mod leases;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use lab::{Lab, wait_until};
use serde_json::{Value, json};

const AGENTS: usize = 4;

/// Long enough for time-outs of connections (45 s) and redelivery to do their work on a slow machine.
const PATIENCE: Duration = Duration::from_secs(150);

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

/// A mesh with a job whose tasks have all begun and wait for the gate.
struct Midway {
    lab: Lab,
    job: String,
    marks: PathBuf,
    gate: PathBuf,
}

impl Midway {
    fn start() -> Self {
        let midway = Self::submit(mesh(""), "");
        midway.wait_begun(AGENTS);
        midway
    }

    /// A job on all agents; its files bear the name of the round.
    fn submit(lab: Lab, round: &str) -> Self {
        let marks = lab.dir().join(format!("marks{round}"));
        let gate = lab.dir().join(format!("gate{round}"));
        fs::write(&marks, "").expect("a writable lab");
        let nodes: Vec<_> = (1..=AGENTS).map(|n| format!("agent-{n}")).collect();
        let body = json!({
            "task": "probe::mark",
            "params": { "file": marks, "gate": gate },
            "scope": { "nodes": nodes },
        });
        let (status, answer) = lab
            .api_post("command/task", &body)
            .expect("the API answers");
        assert_eq!(status, 202, "{answer}");
        let job = answer["job"]["name"]
            .as_str()
            .expect("a job name")
            .to_owned();
        Self {
            lab,
            job,
            marks,
            gate,
        }
    }

    /// Waits until the task has begun on so many nodes.
    fn wait_begun(&self, nodes: usize) {
        wait_until("tasks have begun", PATIENCE, || {
            let begun = self.marks().len();
            if begun >= nodes {
                Ok(())
            } else {
                Err(format!("{begun} of {nodes} have begun"))
            }
        })
        .expect("the job runs");
    }

    /// One line a run of the task, on whichever node.
    fn marks(&self) -> Vec<String> {
        fs::read_to_string(&self.marks)
            .expect("readable marks")
            .lines()
            .map(str::to_owned)
            .collect()
    }

    fn open_gate(&self) {
        fs::write(&self.gate, "").expect("a writable lab");
    }

    /// Waits for the job's end, which must be this, and gives its nodes.
    fn nodes_at_the_end(&self, end: &str) -> Vec<Value> {
        let Self { lab, job, .. } = self;
        let path = format!("jobs/{job}");
        let state = wait_until("the job has ended", PATIENCE, || match lab.api_get(&path) {
            Ok((200, answer)) => match answer["state"].as_str() {
                Some(state @ ("finished" | "failed" | "stopped")) => Ok(state.to_owned()),
                _ => Err(format!("{} {}", answer["state"], answer["node_states"])),
            },
            other => Err(format!("{other:?}")),
        })
        .expect("the job ends");
        let (_, nodes) = lab
            .api_get(&format!("{path}/nodes"))
            .expect("the API answers");
        assert_eq!(state, end, "{nodes:#}");

        nodes["items"].as_array().expect("a list of nodes").clone()
    }

    /// Waits for the job's end and holds it to the promise.
    fn ends_with_every_result_exactly_once(&self) {
        let nodes = self.nodes_at_the_end("finished");
        let items = &nodes;
        let Self { lab, job, .. } = self;
        let path = format!("jobs/{job}");
        assert_eq!(items.len(), AGENTS);
        let results: BTreeSet<_> = items
            .iter()
            .map(|item| item["result"]["token"].as_str().unwrap_or("none"))
            .collect();
        let marks = self.marks();
        assert_eq!(
            marks.len(),
            AGENTS,
            "a task ran twice, or not at all: {marks:?}"
        );
        assert_eq!(
            results,
            marks.iter().map(String::as_str).collect(),
            "{nodes:#?}"
        );

        let (_, events) = lab
            .api_get(&format!("{path}/events"))
            .expect("the API answers");
        let events = events["items"].as_array().expect("a list of events");
        let finished: Vec<_> = events
            .iter()
            .filter(|e| e["type"] == "node_finished")
            .collect();
        let distinct: BTreeSet<_> = finished
            .iter()
            .map(|e| e["details"]["node"].to_string())
            .collect();
        assert_eq!(
            finished.len(),
            AGENTS,
            "a result was recorded twice, or not at all: {events:#?}"
        );
        assert_eq!(distinct.len(), AGENTS);
        assert_eq!(
            events.last().map(|e| e["type"].clone()),
            Some(Value::from("job_finished"))
        );
    }
}

#[test]
fn an_agent_killed_under_its_task_delivers_the_result_after_its_restart() {
    let midway = Midway::start();
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
    let midway = Midway::start();
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
    let midway = Midway::start();
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
    let midway = Midway::start();
    midway
        .lab
        .kill("compiler-1")
        .expect("the compiler is killed");
    midway.open_gate();
    midway.ends_with_every_result_exactly_once();
}

#[test]
fn the_primary_killed_under_a_job_loses_no_result() {
    let midway = Midway::start();
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
    let midway = Midway::start();
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
    let midway = Midway::start();
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
    let midway = Midway::start();
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
