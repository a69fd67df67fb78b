//! A job that is in the middle of its way while something happens to the mesh.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use lab::{Lab, wait_until};
use serde_json::{Value, json};

/// Long enough for time-outs of connections (45 s) and redelivery to do their work on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);

/// A mesh with a job whose tasks have all begun and wait for the gate.
pub(crate) struct Midway<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) job: String,
    pub(crate) marks: PathBuf,
    pub(crate) gate: PathBuf,
    /// On which nodes.
    pub(crate) nodes: Vec<String>,
}

impl<'a> Midway<'a> {
    pub(crate) fn start(lab: &'a Lab) -> Self {
        let midway = Self::submit(lab, "");
        midway.wait_begun(midway.nodes.len());
        midway
    }

    /// A job on all agents; its files bear the name of the round.
    pub(crate) fn submit(lab: &'a Lab, round: &str) -> Self {
        let marks = lab.dir().join(format!("marks{round}"));
        let gate = lab.dir().join(format!("gate{round}"));
        fs::write(&marks, "").expect("a writable lab");
        let nodes = lab.agents();
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
            nodes,
        }
    }

    /// Waits until the task has begun on so many nodes.
    pub(crate) fn wait_begun(&self, nodes: usize) {
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
    pub(crate) fn marks(&self) -> Vec<String> {
        fs::read_to_string(&self.marks)
            .expect("readable marks")
            .lines()
            .map(str::to_owned)
            .collect()
    }

    pub(crate) fn open_gate(&self) {
        fs::write(&self.gate, "").expect("a writable lab");
    }

    /// Waits for the job's end, which must be this, and gives its nodes.
    pub(crate) fn nodes_at_the_end(&self, end: &str) -> Vec<Value> {
        let Self { lab, job, .. } = self;
        let path = format!("jobs/{job}");
        let state = wait_until("the job has ended", PATIENCE, || match lab.api_get(&path) {
            Ok((200, answer)) => match answer["state"].as_str() {
                Some(state @ ("finished" | "failed" | "stopped")) => Ok(state.to_owned()),
                // Who is missing, and who of them is there, tells where to look.
                _ => Err(format!(
                    "{} {}; connected: {:?}",
                    answer["state"],
                    self.states(),
                    lab.connected()
                )),
            },
            other => Err(format!("{other:?}")),
        })
        .expect("the job ends");
        let nodes = self.node_items();
        assert_eq!(state, end, "{nodes:#?}");
        nodes
    }

    /// The nodes as the API tells them.
    pub(crate) fn node_items(&self) -> Vec<Value> {
        let (_, nodes) = self
            .lab
            .api_get(&format!("jobs/{}/nodes", self.job))
            .expect("the API answers");
        nodes["items"].as_array().expect("a list of nodes").clone()
    }

    /// The state of each node.
    pub(crate) fn states(&self) -> String {
        let items = self.node_items();
        let states = items
            .iter()
            .map(|item| format!("{} {}", item["name"], item["state"]));
        states.collect::<Vec<_>>().join(", ")
    }

    /// Waits for the job's end and holds it to the promise.
    pub(crate) fn ends_with_every_result_exactly_once(&self) {
        let items = self.nodes_at_the_end("finished");
        let Self {
            lab, job, nodes, ..
        } = self;
        let nodes = nodes.len();
        assert_eq!(items.len(), nodes);
        let results: BTreeSet<_> = items
            .iter()
            .map(|item| item["result"]["token"].as_str().unwrap_or("none"))
            .collect();
        let marks = self.marks();
        assert_eq!(
            marks.len(),
            nodes,
            "a task ran twice, or not at all: {marks:?}"
        );
        assert_eq!(
            results,
            marks.iter().map(String::as_str).collect(),
            "{items:#?}"
        );

        let (_, events) = lab
            .api_get(&format!("jobs/{job}/events"))
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
            nodes,
            "a result was recorded twice, or not at all: {events:#?}"
        );
        assert_eq!(distinct.len(), nodes);
        assert_eq!(
            events.last().map(|e| e["type"].clone()),
            Some(Value::from("job_finished"))
        );
    }
}
