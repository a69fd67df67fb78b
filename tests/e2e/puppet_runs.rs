//! Puppet runs from the orchestrator's API to a Puppet on each node, which is played
//! (`tests/played/puppet`), and back.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use lab::{Lab, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);

/// What a run does that goes well.
const REPORTS: &str = "report changed production";

/// A mesh whose nodes have a Puppet each.
struct Estate {
    lab: Lab,
    dir: TempDir,
}

impl Estate {
    fn start(doing: &[&str]) -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        let mut builder = Lab::builder().compilers(1).agents(doing.len());
        for (number, doing) in doing.iter().enumerate() {
            let name = format!("agent-{}", number + 1);
            let own = dir.path().join(&name);
            fs::create_dir_all(own.join("state")).expect("a folder");
            fs::write(own.join("doing"), doing).expect("a file");
            let puppet = own.join("puppet");
            let played = concat!(env!("CARGO_MANIFEST_DIR"), "/played/puppet");
            fs::copy(played, &puppet).expect("a copy");
            builder = builder.config(&name, &format!("puppet-bin: {puppet:?}"));
        }
        let lab = builder.start().expect("the mesh starts");
        Self { lab, dir }
    }

    fn path(&self, node: &str, name: &str) -> PathBuf {
        self.dir.path().join(node).join(name)
    }

    fn calls(&self, node: &str) -> Vec<String> {
        let calls = fs::read_to_string(self.path(node, "calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    fn deploy(&self, request: &Value) -> String {
        let answer = self.lab.api_post("command/deploy", request);
        let (status, answer) = answer.expect("the API answers");
        assert_eq!(status, 202, "{request}: {answer}");
        answer["job"]["name"].as_str().expect("a name").to_owned()
    }

    /// Waits for the end of a job; its nodes by name.
    fn nodes(&self, job: &str, state: &str) -> BTreeMap<String, Value> {
        wait_until("the job has ended", PATIENCE, || {
            match self.lab.api_get(&format!("jobs/{job}")) {
                Ok((200, job)) if job["state"] == state => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .unwrap_or_else(|error| panic!("{error}"));
        let nodes = self.lab.api_get(&format!("jobs/{job}/nodes"));
        let (_, nodes) = nodes.expect("the API answers");
        let items = nodes["items"].as_array().expect("items").clone();
        let named = items.into_iter().map(|node| {
            let name = node["name"].as_str().expect("a name").to_owned();
            (name, node)
        });
        named.collect()
    }
}

#[test]
fn each_node_runs_puppet_as_asked_and_its_report_is_the_result() {
    let estate = Estate::start(&[REPORTS, "report unchanged production"]);
    let job = estate.deploy(&json!({
        "environment": "production",
        "scope": {"nodes": ["agent-1", "agent-2"]},
        "noop": true,
        "tags": ["web", "db"],
    }));
    let nodes = estate.nodes(&job, "finished");
    for (node, status) in [("agent-1", "changed"), ("agent-2", "unchanged")] {
        let call = format!(
            "agent --noop --environment production --strict_environment_mode --tags web,db \
             --onetime --no-daemonize --verbose --color false --job-id {job}"
        );
        assert_eq!(estate.calls(node), [call]);
        let uuid = fs::read_to_string(estate.path(node, "uuids")).expect("a run");
        let node = &nodes[node];
        assert_eq!(node["state"], "finished", "{node:#}");
        assert_eq!(node["transaction_uuid"], uuid.trim(), "{node:#}");
        let result = &node["result"];
        assert_eq!(result["status"], status, "{node:#}");
        assert_eq!(result["metrics"], json!({"total": 9, "changed": 2}));
        assert_eq!(result["environment"], "production");
        assert_eq!(result["noop"], json!({"noop": true, "no_noop": false}));
    }
}

#[test]
fn a_run_that_was_not_is_told_apart_from_one_that_failed() {
    let disabled = "echo '{\"disabled_message\":\"until Monday\"}' \
                    >$state/agent_disabled.lock; exit 1";
    let estate = Estate::start(&[disabled, "report failed production; exit 1", REPORTS]);
    let job = estate.deploy(&json!({
        "enforce_environment": false,
        "scope": {"nodes": ["agent-1", "agent-2", "agent-3"]},
    }));
    let nodes = estate.nodes(&job, "failed");
    let state = |name: &str| nodes[name]["state"].clone();
    assert_eq!(state("agent-1"), "errored", "{:#}", nodes["agent-1"]);
    let why = nodes["agent-1"]["result"]["msg"]
        .as_str()
        .expect("a reason");
    assert!(why.contains("disabled on this node: until Monday"), "{why}");
    assert_eq!(state("agent-2"), "failed", "{:#}", nodes["agent-2"]);
    assert_eq!(nodes["agent-2"]["result"]["status"], "failed");
    assert_eq!(state("agent-3"), "finished", "{:#}", nodes["agent-3"]);
}

#[test]
fn no_more_nodes_run_at_once_than_the_job_allows() {
    // Whoever finds the folder there is not alone.
    let alone = format!(
        "mkdir $dir/../alone || echo overlap >$dir/../overlap\n{REPORTS}\nrmdir $dir/../alone"
    );
    let estate = Estate::start(&[&alone, &alone, &alone, &alone]);
    let job = estate.deploy(&json!({
        "enforce_environment": false,
        "scope": {"nodes": ["agent-1", "agent-2", "agent-3", "agent-4"]},
        "concurrency": 1,
    }));
    let nodes = estate.nodes(&job, "finished");
    assert_eq!(nodes.len(), 4);
    assert!(!estate.dir.path().join("overlap").exists());
}

#[test]
fn a_run_survives_its_agent_and_the_orchestrator_and_is_recorded_once() {
    let gated = format!("until [ -e $dir/gate ]; do sleep 0.05; done\n{REPORTS}");
    let estate = Estate::start(&[&gated]);
    let lab = &estate.lab;
    let job =
        estate.deploy(&json!({"enforce_environment": false, "scope": {"nodes": ["agent-1"]}}));
    let runs = || match estate.calls("agent-1").len() {
        0 => Err("not yet"),
        _ => Ok(()),
    };
    wait_until("Puppet runs", PATIENCE, runs).unwrap_or_else(|error| panic!("{error}"));
    lab.kill("agent-1").expect("the agent is killed");
    lab.kill("orchestrator")
        .expect("the orchestrator is killed");
    fs::write(estate.path("agent-1", "gate"), "").expect("a file");
    lab.restart("orchestrator")
        .expect("the orchestrator starts again");
    lab.restart("agent-1").expect("the agent starts again");
    let nodes = estate.nodes(&job, "finished");
    assert_eq!(nodes["agent-1"]["result"]["status"], "changed");
    assert_eq!(estate.calls("agent-1").len(), 1);
    let (_, events) = lab.api_get(&format!("jobs/{job}/events")).expect("events");
    let ends = events["items"].as_array().expect("items");
    let ends = ends.iter().filter(|event| event["type"] == "node_finished");
    assert_eq!(ends.count(), 1, "{events:#}");
}

#[test]
fn a_stop_by_force_ends_puppet_on_the_node() {
    let estate = Estate::start(&["touch $dir/begun; while :; do sleep 1; done"]);
    let job =
        estate.deploy(&json!({"enforce_environment": false, "scope": {"nodes": ["agent-1"]}}));
    let begun = estate.path("agent-1", "begun");
    let runs = || {
        if begun.exists() {
            Ok(())
        } else {
            Err("not yet")
        }
    };
    wait_until("Puppet runs", PATIENCE, runs).unwrap_or_else(|error| panic!("{error}"));
    let stop = json!({"job": job, "force": true});
    let (status, answer) = estate
        .lab
        .api_post("command/stop", &stop)
        .expect("the API answers");
    assert_eq!(status, 202, "{answer}");
    let nodes = estate.nodes(&job, "stopped");
    assert_eq!(
        nodes["agent-1"]["state"], "stopped",
        "{:#}",
        nodes["agent-1"]
    );
}
