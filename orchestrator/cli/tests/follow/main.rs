//! The real binary against a played orchestrator on loopback: what it asks, what it prints, and how
//! it ends.

#[expect(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a request that is not as expected fails the test"
)]
mod access;
#[expect(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a request that is not as expected fails the test"
)]
mod jobs;
#[expect(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a request that is not as expected fails the test"
)]
mod runs;
mod support;

use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};
use support::{Answer, Orchestrator, lines};

const UNAUTHENTICATED: &str = "puppetlabs.rbac/user-unauthenticated";

#[test]
fn a_job_is_followed_to_its_end_and_told_in_plain_lines() {
    let orchestrator = Orchestrator::start(|request| {
        let node = |name: &str, state: &str, result: &Value| support::node(name, state, result);
        match request.route() {
            ("POST", "/orchestrator/v1/command/task") => {
                assert_eq!(request.header("x-authentication"), Some("secret-token"));
                let expected = json!({"task": "a::b", "params": {"count": 3, "name": "x"},
                    "scope": {"nodes": ["n1", "n2"]}, "environment": "dev", "noop": true});
                assert_eq!(request.json(), expected);
                Answer::new(202, json!({"job": {"id": "u", "name": "7"}}))
            }
            ("GET", "/orchestrator/v1/jobs/7") => Answer::new(
                200,
                support::job("failed", &json!({"finished": 1, "failed": 1})),
            ),
            ("GET", "/orchestrator/v1/jobs/7/events") => Answer::new(
                200,
                match request.query("start") {
                    None => support::events(11, &[("node_running", "n1"), ("node_running", "n2")]),
                    Some("11") => support::events(12, &[("node_finished", "n2")]),
                    Some("12") => {
                        support::events(14, &[("node_failed", "n1"), ("job_finished", "")])
                    }
                    other => panic!("asked for events from {other:?}"),
                },
            ),
            ("GET", "/orchestrator/v1/jobs/7/nodes") => {
                let items = match (request.query("state"), request.query("offset")) {
                    (Some("finished"), Some("0")) => {
                        vec![node(
                            "n2",
                            "finished",
                            &json!({"_output": "\u{1b}[31mred\n"}),
                        )]
                    }
                    (Some("failed"), Some("0")) => {
                        vec![node(
                            "n1",
                            "failed",
                            &json!({"_error": {"msg": "no", "kind": "k"}}),
                        )]
                    }
                    _ => vec![],
                };
                Answer::new(200, support::nodes(&items))
            }
            other => panic!("asked for {other:?}"),
        }
    });
    let output = orchestrator.puppet_task(
        &[
            "run", "a::b", "count=3", "name=x", "-n", "n1,n2", "-e", "dev", "--noop",
        ],
        "",
    );
    assert_eq!(
        lines(&output.stdout),
        [
            "Starting job ...",
            "New job ID: 7",
            "Nodes: 2",
            "",
            "Started on n1 ...",
            "Started on n2 ...",
            "Finished on node n2",
            "  STDOUT:",
            "    \\x1b[31mred",
            "Failed on node n1",
            "  Error: no",
            "  Kind: k",
            "",
            "Job failed. 1 node failed, 0 nodes skipped, 1 node succeeded.",
            "Duration: 1.5 sec",
        ]
    );
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(lines(&output.stderr), [""; 0]);
}

#[test]
fn one_json_document_and_nothing_else() {
    let orchestrator = Orchestrator::start(|request| match request.route() {
        ("POST", "/orchestrator/v1/command/task") => {
            assert_eq!(request.json()["scope"], json!({"nodes": ["n1"]}));
            Answer::new(202, json!({"job": {"id": "u", "name": "7"}}))
        }
        ("GET", "/orchestrator/v1/jobs/7") => {
            Answer::new(200, support::job("finished", &json!({"finished": 1})))
        }
        ("GET", "/orchestrator/v1/jobs/7/events") => Answer::new(
            200,
            support::events(3, &[("node_finished", "n1"), ("job_finished", "")]),
        ),
        ("GET", "/orchestrator/v1/jobs/7/nodes") => {
            let result = json!({"_output": "\u{9b}x"});
            let first = request.query("offset") == Some("0");
            let items = first.then(|| support::node("n1", "finished", &result));
            Answer::new(200, support::nodes(&items.into_iter().collect::<Vec<_>>()))
        }
        other => panic!("asked for {other:?}"),
    });
    let arguments = ["run", "a", "--nodes", "-", "--format", "json"];
    let output = orchestrator.puppet_task(&arguments, "# the first\nn1\n");
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains('\u{9b}'), "{text:?}");
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["job_id"], "7");
    assert_eq!(document["state"], "finished");
    assert_eq!(document["items"][0]["name"], "n1");
    assert_eq!(
        document["items"][0]["results"],
        json!({"_output": "\u{9b}x"})
    );
    assert_eq!(lines(&output.stderr), [""; 0]);
}

#[test]
fn an_orchestrator_that_is_away_for_a_while_is_borne_with() {
    let mut refusals = 2;
    let orchestrator = Orchestrator::start(move |request| match request.route() {
        ("POST", _) => Answer::new(202, json!({"job": {"id": "u", "name": "7"}})),
        ("GET", "/orchestrator/v1/jobs/7") => {
            Answer::new(200, support::job("finished", &json!({"finished": 1})))
        }
        ("GET", "/orchestrator/v1/jobs/7/events") if refusals > 0 => {
            refusals -= 1;
            let kind = "puppetlabs.orchestrator/unavailable";
            Answer::new(503, json!({"kind": kind, "msg": "starting", "details": {}}))
        }
        ("GET", "/orchestrator/v1/jobs/7/events") => Answer::new(
            200,
            support::events(3, &[("node_finished", "n1"), ("job_finished", "")]),
        ),
        ("GET", _) => {
            let node = support::node("n1", "finished", &json!({"ok": true}));
            Answer::new(200, support::nodes(&[node]))
        }
        other => panic!("asked for {other:?}"),
    });
    let output = orchestrator.puppet_task(&["run", "a", "-n", "n1"], "");
    assert_eq!(output.status.code(), Some(0));
    let remarks = lines(&output.stderr);
    assert!(
        remarks[0].starts_with("Lost the orchestrator: starting"),
        "{remarks:?}"
    );
    assert_eq!(remarks[1], "The orchestrator is back.");
    assert!(lines(&output.stdout).contains(&"Finished on node n1".to_owned()));
}

#[test]
fn ctrl_c_stops_the_job_once_and_waits_for_what_runs() {
    let (followed, is_followed) = mpsc::channel();
    let mut stops = 0;
    let orchestrator = Orchestrator::start(move |request| match request.route() {
        ("POST", "/orchestrator/v1/command/task") => {
            Answer::new(202, json!({"job": {"id": "u", "name": "7"}}))
        }
        ("POST", "/orchestrator/v1/command/stop") => {
            stops += 1;
            assert_eq!(request.json(), json!({"job": "7"}));
            assert_eq!(stops, 1);
            let nodes = json!({"new": 0, "running": 1, "failed": 0, "errored": 0, "skipped": 1, "finished": 0});
            Answer::new(
                202,
                json!({"job": {"id": "u", "name": "7", "nodes": nodes}}),
            )
        }
        ("GET", "/orchestrator/v1/jobs/7") => Answer::new(
            200,
            support::job("stopped", &json!({"finished": 1, "skipped": 1})),
        ),
        ("GET", "/orchestrator/v1/jobs/7/events") if stops == 0 => {
            // The test may have gone on, and does not listen any more.
            followed.send(()).unwrap_or_default();
            Answer::new(200, support::events(1, &[]))
        }
        ("GET", "/orchestrator/v1/jobs/7/events") => {
            let last = [
                ("job_stopping", ""),
                ("node_finished", "n1"),
                ("node_skipped", "n2"),
                ("job_aborted", ""),
            ];
            Answer::new(200, support::events(5, &last))
        }
        ("GET", _) => {
            let items = match request.query("state") {
                Some("finished") => vec![support::node("n1", "finished", &json!({"ok": true}))],
                Some("skipped") => vec![support::node("n2", "skipped", &Value::Null)],
                _ => vec![],
            };
            Answer::new(200, support::nodes(&items))
        }
        other => panic!("asked for {other:?}"),
    });
    let child = orchestrator.spawn(&["run", "a", "-n", "n1,n2"]);
    is_followed.recv_timeout(Duration::from_secs(30)).unwrap();
    support::interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(lines(&output.stderr)[0].starts_with("Stopping job 7:"));
    assert_eq!(
        lines(&output.stdout)[4..],
        [
            "The job is stopping ...",
            "Finished on node n1",
            "  ok : true",
            "Skipped node n2",
            "",
            "Job stopped. 0 nodes failed, 1 node skipped, 1 node succeeded.",
            "Duration: 1.5 sec",
        ]
    );
}

#[test]
fn a_second_ctrl_c_leaves_at_once() {
    let (stopped, is_stopped) = mpsc::channel();
    let orchestrator = Orchestrator::start(move |request| match request.route() {
        ("POST", "/orchestrator/v1/command/task") => {
            stopped.send(()).unwrap_or_default();
            Answer::new(202, json!({"job": {"id": "u", "name": "7"}}))
        }
        ("POST", "/orchestrator/v1/command/stop") => {
            stopped.send(()).unwrap_or_default();
            let nodes = json!({"new": 0, "running": 1, "failed": 0, "errored": 0, "skipped": 0, "finished": 0});
            Answer::new(
                202,
                json!({"job": {"id": "u", "name": "7", "nodes": nodes}}),
            )
        }
        ("GET", "/orchestrator/v1/jobs/7") => {
            Answer::new(200, support::job("running", &json!({"running": 1})))
        }
        ("GET", "/orchestrator/v1/jobs/7/events") => Answer::new(200, support::events(1, &[])),
        other => panic!("asked for {other:?}"),
    });
    let child = orchestrator.spawn(&["run", "a", "-n", "n1"]);
    for _ in 0..2 {
        // First the start of the job, then its stop.
        is_stopped.recv_timeout(Duration::from_secs(30)).unwrap();
        support::interrupt(&child);
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let remarks = lines(&output.stderr);
    assert!(
        remarks.contains(&"Error: interrupted".to_owned()),
        "{remarks:?}"
    );
}

#[test]
fn refusals_are_one_line_with_a_next_step_and_a_truthful_exit_code() {
    for (status, kind, details, code, step) in [
        (401, UNAUTHENTICATED, json!({}), 3, "puppet access login"),
        (
            404,
            "puppetlabs.orchestrator/unknown-task",
            json!({}),
            1,
            "puppet-task show",
        ),
        (
            400,
            "puppetlabs.orchestrator/validation-error",
            json!({"task": "a", "parameters": [{"parameter": "v",
                "problem": "expects String, got Integer 5"}]}),
            1,
            "NAME='\"5\"'",
        ),
    ] {
        let body = json!({"kind": kind, "msg": "the cause\u{1b}[2J", "details": details});
        let orchestrator = Orchestrator::start(move |_| Answer::new(status, body.clone()));
        let arguments = ["run", "a", "v=5", "-n", "n1", "--format", "json"];
        let output = orchestrator.puppet_task(&arguments, "");
        assert_eq!(output.status.code(), Some(code), "{kind}");
        let remarks = lines(&output.stderr);
        assert_eq!(remarks[0], "Error: the cause\\x1b[2J");
        assert!(remarks[1].contains(step), "{remarks:?}");
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["kind"], kind);
    }
}

#[test]
fn what_is_no_orchestrator_is_said_to_be_none() {
    let orchestrator = Orchestrator::start(|_| Answer::new(200, json!("hello")));
    let output = orchestrator.puppet_task(&["show"], "");
    assert_eq!(output.status.code(), Some(3));
    assert!(lines(&output.stderr)[0].contains("does not answer as an orchestrator does"));
}

#[test]
fn what_is_wrong_with_the_usage_is_said_before_anything_is_asked() {
    let orchestrator = Orchestrator::start(|request| panic!("asked for {:?}", request.route()));
    for (arguments, cause) in [
        (
            &["run", "a", "-n", "-", "--params", "-"][..],
            "standard input can be either",
        ),
        (&["run", "a", "-n", " , "][..], "names no node"),
        (&["run", "a", "b", "-n", "x"][..], "NAME=VALUE"),
        (
            &["run", "a", "-n", "@/nonexistent/nodes"][..],
            "/nonexistent/nodes",
        ),
        (&["run", "a"][..], "required"),
    ] {
        let output = orchestrator.puppet_task(arguments, "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(cause), "{text}");
    }
}

#[test]
fn the_list_leaves_out_what_is_private_unless_asked() {
    let orchestrator = Orchestrator::start(|request| {
        assert_eq!(request.route(), ("GET", "/orchestrator/v1/tasks"));
        assert_eq!(request.query("environment"), Some("dev"));
        let item = |name: &str, private: bool| json!({"id": "u", "name": name, "permitted": true, "description": "d", "private": private});
        let items = [item("a", false), item("b", true)];
        Answer::new(
            200,
            json!({"environment": {"name": "dev", "code_id": null}, "items": items}),
        )
    });
    let output = orchestrator.puppet_task(&["show", "-e", "dev"], "");
    assert_eq!(lines(&output.stdout), ["a  d"]);
    let output = orchestrator.puppet_task(&["show", "-e", "dev", "--all"], "");
    assert_eq!(lines(&output.stdout), ["a  d", "b  d  [private]"]);
}
