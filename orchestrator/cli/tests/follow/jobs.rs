//! `puppet-job`, and `puppet-task why`.

use serde_json::{Value, json};

use super::support::{self, Answer, Orchestrator, lines};

fn not_found() -> Answer {
    let msg = "Unknown job 8";
    Answer::new(
        404,
        json!({"kind": "puppetlabs.orchestrator/unknown-job", "msg": msg, "details": {"job": "8"}}),
    )
}

fn played() -> Orchestrator {
    Orchestrator::start(|request| match request.route() {
        ("GET", "/orchestrator/v1/jobs") => {
            assert_eq!(request.query("order"), Some("desc"));
            let pagination = json!({"limit": 1, "offset": 0, "order": "desc",
                "order_by": "timestamp", "total": 3, "type": null});
            let states = json!({"failed": 1});
            let items = [support::job("failed", &states)];
            Answer::new(200, json!({"items": items, "pagination": pagination}))
        }
        ("GET", "/orchestrator/v1/jobs/7") => Answer::new(
            200,
            support::job("failed", &json!({"finished": 2, "errored": 1})),
        ),
        ("GET", "/orchestrator/v1/jobs/7/events") => Answer::new(
            200,
            support::events(3, &[("node_finished", "n1"), ("job_finished", "")]),
        ),
        ("GET", "/orchestrator/v1/jobs/7/nodes") => {
            let nodes = [
                support::node("n1", "finished", &json!({"_output": "same\n"})),
                support::node("n2", "finished", &json!({"_output": "same\n"})),
                support::node(
                    "n3",
                    "errored",
                    &json!({"kind": "k", "msg": "n3 is not connected"}),
                ),
            ];
            let state = request.query("state");
            let page: Vec<Value> = match request.query("offset") {
                Some("0") => nodes
                    .into_iter()
                    .filter(|node| state.is_none_or(|state| node["state"] == state))
                    .collect(),
                _ => vec![],
            };
            Answer::new(200, support::nodes(&page))
        }
        ("POST", "/orchestrator/v1/command/stop") => {
            assert_eq!(request.json()["force"], json!(true));
            let nodes = json!({"new": 1, "running": 2, "finished": 3, "failed": 0, "errored": 0,
                "skipped": 0, "stopped": 0});
            Answer::new(
                202,
                json!({"job": {"id": "u", "name": "7", "nodes": nodes}}),
            )
        }
        ("GET", "/status/v1/services") => {
            let status = json!({"service_version": "0.1.0", "service_status_version": 1,
                "detail_level": "debug", "state": "running", "active_alerts": [],
                "status": {"broker": "primary", "connected_nodes": 2}});
            Answer::new(200, json!({"orchestrator-service": status}))
        }
        ("GET", "/rbac-api/v1/users/current") => Answer::new(
            200,
            json!({"id": "ada", "login": "ada", "display_name": "ada", "is_revoked": false,
                "is_superuser": false, "last_login": null, "roles": [],
                "permissions": ["tasks:run"]}),
        ),
        ("GET", path) if path.starts_with("/orchestrator/v1/inventory/") => {
            let name = path.rsplit('/').next().unwrap_or_default();
            let is_there = name == "n1";
            let broker = is_there.then_some("pcp://compiler-1/server");
            let at = "2026-11-22T14:30:00Z";
            Answer::new(
                200,
                json!({"name": name, "connected": is_there, "broker": broker, "timestamp": at}),
            )
        }
        ("GET", _) => not_found(),
        other => panic!("asked for {other:?}"),
    })
}

#[test]
fn a_job_is_shown_with_its_nodes_by_state() {
    let orchestrator = played();
    let output = orchestrator.puppet_job(&["show", "7"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = lines(&output.stdout);
    assert_eq!(shown[0], "Status:          failed");
    let at = shown.iter().position(|line| line.is_empty()).unwrap();
    assert_eq!(
        shown[at..],
        [
            "",
            "SUCCEEDED (2/3)",
            "  Finished on nodes (2): n1, n2",
            "    STDOUT:",
            "      same",
            "",
            "ERRORED (1/3)",
            "  Error on node n3",
            "    Error: n3 is not connected",
            "    Kind: k",
        ]
    );
    let output = orchestrator.puppet_job(&["show", "7", "--format", "json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["items"].as_array().unwrap().len(), 3);
    let output = orchestrator.puppet_job(&["show", "8"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        lines(&output.stderr),
        ["Error: Unknown job 8", "'puppet-job list' lists the jobs."]
    );
}

#[test]
fn jobs_are_listed_in_a_table() {
    let orchestrator = played();
    for arguments in [&["list", "--limit", "1"][..], &["show", "--limit", "1"]] {
        let output = orchestrator.puppet_job(arguments);
        assert_eq!(
            lines(&output.stdout),
            [
                "ID  STATUS  JOB TYPE  TIMESTAMP             TARGET",
                "7   failed  task      2026-11-22T14:30:00Z  a on n1",
            ]
        );
        let remark = "1 of 3 jobs; --limit and --offset show others.";
        assert_eq!(lines(&output.stderr), [remark]);
    }
}

#[test]
fn a_job_is_watched_as_if_it_had_been_started_here() {
    let output = played().puppet_job(&["watch", "7"]);
    assert_eq!(output.status.code(), Some(1), "a node failed");
    let shown = lines(&output.stdout);
    assert_eq!(shown[0], "Finished on node n1");
    assert!(shown.contains(&"Error on node n3".to_owned()), "{shown:?}");
    assert!(
        shown.iter().any(|line| line.starts_with("Job failed.")),
        "{shown:?}"
    );
}

#[test]
fn stopping_by_force_says_what_is_left() {
    let output = played().puppet_job(&["stop", "7", "--force"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        lines(&output.stdout),
        [
            "Job 7 ends at once, also on nodes where it runs.",
            "Nodes: 1 waiting, 2 running, 3 finished",
        ]
    );
}

#[test]
fn why_follows_the_chain_to_the_node() {
    let orchestrator = played();
    let output = orchestrator.puppet_task(&["why", "n1"], "");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = lines(&output.stdout).join("\n");
    assert!(
        shown.contains("is connected to pcp://compiler-1/server since 2026"),
        "{shown}"
    );
    assert!(
        shown.contains("ok    last run      job 7: finished"),
        "{shown}"
    );
    let output = orchestrator.puppet_task(&["why", "n3"], "");
    assert_eq!(output.status.code(), Some(1));
    let shown = lines(&output.stdout).join("\n");
    assert!(
        shown.contains("FAIL  connection    n3 is not connected; it went at"),
        "{shown}"
    );
    assert!(
        shown.contains("warn  last run      job 7: errored: Error: n3 is not"),
        "{shown}"
    );
    let output = orchestrator.puppet_task(&["why", "n3", "--format", "json"], "");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["ok"], json!(false));
}
