//! `puppet-job run` and `rerun`: what is asked of the orchestrator, and what is told of the runs.

use std::sync::mpsc;

use serde_json::{Value, json};

use super::support::{self, Answer, Orchestrator, lines};

/// A job that runs Puppet on `n1`, and has ended well.
fn job() -> Value {
    let mut job = support::job("finished", &json!({"finished": 1}));
    job["command"] = json!("deploy");
    job["type"] = json!("deploy");
    job["options"] = json!({"description": "", "environment": "dev", "enforce_environment": true,
        "scope": {"nodes": ["n1"]}, "concurrency": 4, "timeout": null, "noop": true});
    job
}

fn node() -> Value {
    let result = json!({"hash": "d7ec", "status": "changed", "environment": "dev",
        "configuration_version": "17", "noop": {"noop": true, "no_noop": false},
        "metrics": {"total": 9, "changed": 2, "failed": 0, "skipped": 0}});
    let mut node = support::node("n1", "finished", &result);
    node["transaction_uuid"] = json!("u-1");
    node["details"] = json!({"report-url": "https://db/d7ec"});
    node
}

/// Answers for that job; what is asked to start it goes to the receiver.
fn played() -> (Orchestrator, mpsc::Receiver<(String, Value)>) {
    let (asked, is_asked) = mpsc::channel();
    let orchestrator = Orchestrator::start(move |request| match request.route() {
        ("POST", path) => {
            let command = path.rsplit('/').next().unwrap_or_default().to_owned();
            // The test may have seen enough.
            asked.send((command, request.json())).unwrap_or_default();
            Answer::new(202, json!({"job": {"id": "u", "name": "7"}}))
        }
        ("GET", "/orchestrator/v1/jobs/7") => Answer::new(200, job()),
        ("GET", "/orchestrator/v1/jobs/7/events") => {
            let last = [("node_finished", "n1"), ("job_finished", "")];
            Answer::new(200, support::events(3, &last))
        }
        ("GET", "/orchestrator/v1/jobs/7/nodes") => {
            let first = request.query("offset") == Some("0");
            let items: Vec<Value> = first.then(node).into_iter().collect();
            Answer::new(200, support::nodes(&items))
        }
        other => panic!("asked for {other:?}"),
    });
    (orchestrator, is_asked)
}

#[test]
fn a_puppet_run_is_asked_for_and_told_of() {
    let (orchestrator, asked) = played();
    let line = "run -n n1,n2 -e dev --noop --concurrency 4 --tags web,db --description why";
    let arguments: Vec<&str> = line.split(' ').collect();
    let output = orchestrator.puppet_job(&arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let expected = json!({"environment": "dev", "scope": {"nodes": ["n1", "n2"]},
        "concurrency": 4, "description": "why", "noop": true, "tags": "web,db"});
    assert_eq!(asked.recv().unwrap(), ("deploy".to_owned(), expected));
    assert_eq!(
        lines(&output.stdout),
        [
            "Starting job ...",
            "New job ID: 7",
            "Nodes: 1",
            "",
            "Finished on node n1",
            "  Status: changed",
            "  Resources: 2 changed, 7 unchanged",
            "  Environment: dev",
            "  Configuration version: 17",
            "  Transaction: u-1",
            "  Report: https://db/d7ec",
            "",
            "Success! 1/1 runs succeeded.",
            "Duration: 1.5 sec",
        ]
    );
}

#[test]
fn a_puppet_run_as_a_document_has_the_counts_that_programs_read() {
    let (orchestrator, asked) = played();
    let line = "run -n n1 --no-noop --no-enforce-environment --format json";
    let arguments: Vec<&str> = line.split(' ').collect();
    let output = orchestrator.puppet_job(&arguments);
    let expected = json!({"scope": {"nodes": ["n1"]}, "enforce_environment": false,
        "no_noop": true});
    assert_eq!(asked.recv().unwrap(), ("deploy".to_owned(), expected));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let item = &document["items"][0];
    assert_eq!(
        item["metrics"],
        json!({"failed": 0, "changed": 2, "skipped": 0, "unchanged": 7, "noop": 0})
    );
    assert_eq!(item["detail"]["report-url"], "https://db/d7ec");
    assert_eq!(document["noop"], true);
}

#[test]
fn a_rerun_names_the_ended_job_and_gives_secrets_again() {
    let (orchestrator, asked) = played();
    let arguments = ["rerun", "6", "--failed", "--params", r#"{"password":"x"}"#];
    let output = orchestrator.puppet_job(&arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let expected = json!({"job": "6", "only": "failed", "params": {"password": "x"}});
    assert_eq!(asked.recv().unwrap(), ("rerun".to_owned(), expected));
    let output = orchestrator.puppet_job(&["rerun", "6", "--no-wait"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let expected = json!({"job": "6", "params": {}});
    assert_eq!(asked.recv().unwrap(), ("rerun".to_owned(), expected));
}

#[test]
fn what_a_node_writes_is_shown_while_it_writes_it_and_its_end_comes_after() {
    let mut asked = 0;
    let orchestrator = Orchestrator::start(move |request| match request.route() {
        ("GET", "/orchestrator/v1/jobs/7") => {
            Answer::new(200, support::job("failed", &json!({"failed": 1})))
        }
        ("GET", "/orchestrator/v1/jobs/7/events") => {
            assert!(
                request
                    .header("accept")
                    .unwrap_or_default()
                    .contains("text/event-stream")
            );
            Answer::stream(&support::events(
                4,
                &[
                    ("node_running", "n1"),
                    ("node_failed", "n1"),
                    ("job_finished", ""),
                ],
            ))
        }
        ("GET", "/orchestrator/v1/jobs/7/nodes/n1/output") => {
            let offset = request.query("stdout").unwrap_or_default().to_owned();
            asked += 1;
            let (text, next) = match asked {
                1 => {
                    assert_eq!(offset, "0");
                    ("one\ntw", 6)
                }
                _ => {
                    assert_eq!(offset, "6");
                    ("o\n", 8)
                }
            };
            let stdout =
                json!({"offset": next - text.len(), "next": next, "total": 8, "data": text});
            let stderr = json!({"offset": 0, "next": 0, "total": 0, "data": ""});
            Answer::new(
                200,
                json!({"node": "n1", "state": "running", "stdout": stdout, "stderr": stderr,
                    "end": asked > 1}),
            )
        }
        ("GET", _) => {
            let result = json!({"_error": {"msg": "no", "kind": "k"}, "_output": "one\ntwo\n"});
            let is_asked =
                request.query("state") == Some("failed") && request.query("offset") == Some("0");
            let items = is_asked.then(|| support::node("n1", "failed", &result));
            Answer::new(200, support::nodes(&items.into_iter().collect::<Vec<_>>()))
        }
        other => panic!("asked for {other:?}"),
    });
    let output = orchestrator.puppet_job(&["watch", "7", "--follow"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(
        lines(&output.stdout),
        [
            "Started on n1 ...",
            "[n1] one",
            "[n1] two",
            "Failed on node n1",
            "  Error: no",
            "  Kind: k",
            "",
            "Job failed. 1 node failed, 0 nodes skipped, 0 nodes succeeded.",
            "Duration: 1.5 sec",
        ]
    );
}
