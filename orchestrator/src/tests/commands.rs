//! Puppet runs, reruns, plan jobs, output and live events, as callers see them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use orchestrator_api::{Job, NodeOutput, PlanEvents, PlanJob, PlanJobs};
use pxp::{ActionResult, PuppetRun};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::fleet::Fleet;
use super::{Home, Server};
use crate::outcome::FoundReport;
use crate::reports::ReportSource;

const V1: &str = "/orchestrator/v1";

fn result(exitcode: i32, stdout: &str) -> ActionResult {
    ActionResult {
        exitcode,
        stdout: Some(stdout.to_owned()),
        stderr: Some("noise".to_owned()),
        usage: None,
    }
}

async fn started(server: &Server, command: &str, body: Value) -> String {
    let (status, body) = server.post(&format!("{V1}/command/{command}"), body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let name = body["job"]["name"].as_str().unwrap().to_owned();
    assert_eq!(
        body["job"]["id"],
        format!("{}{V1}/jobs/{name}", server.base)
    );
    name
}

async fn refused(server: &Server, command: &str, body: Value, kind: &str, part: &str) {
    let shown = body.to_string();
    let (status, error) = server.post(&format!("{V1}/command/{command}"), body).await;
    assert!(status.is_client_error(), "{shown}: {status}");
    let expected = format!("puppetlabs.orchestrator/{kind}");
    assert_eq!(error["kind"], expected, "{shown}: {error}");
    assert!(error["msg"].as_str().unwrap().contains(part), "{error}");
}

#[tokio::test]
async fn puppet_runs_where_it_is_asked_to_and_every_node_has_the_documented_result() {
    let home = Home::new();
    let fleet = Fleet::echo(&["a", "b"]);
    let server = home.start(&fleet).await;
    let body = json!({"environment": "production", "scope": {"nodes": ["a", "b"]}, "noop": true,
        "concurrency": 1, "description": "look", "userdata": {"ticket": 7}, "trace": null});
    let name = started(&server, "deploy", body).await;
    let job = server.end(&name).await;
    assert_eq!(
        (&job["state"], &job["type"]),
        (&json!("finished"), &json!("deploy"))
    );
    assert_eq!(
        (&job["command"], &job["environment"]["name"]),
        (&json!("deploy"), &json!("production"))
    );
    let options = json!({"description": "look", "environment": "production",
        "enforce_environment": true, "scope": {"nodes": ["a", "b"]}, "concurrency": 1,
        "timeout": null, "noop": true});
    assert_eq!(job["options"], options);
    serde_json::from_value::<Job>(job).unwrap();
    let node = &server.nodes(&name).await[0];
    let expected = json!({"hash": null, "noop": {"noop": true, "no_noop": false},
        "status": "changed", "metrics": {"changed": 1, "total": 7}, "environment": "production",
        "configuration_version": null});
    assert_eq!(node["result"], expected);
    assert!(node["transaction_uuid"].is_string());
    let sent: PuppetRun = fleet.spool(|spool| {
        let one = spool.values().next().unwrap();
        serde_json::from_str(&one.requests[0]).unwrap()
    });
    assert_eq!(sent.job, Some(name));
    assert_eq!(
        sent.flags,
        [
            "--noop",
            "--environment",
            "production",
            "--strict_environment_mode"
        ]
    );
    assert!(sent.pxp_mesh.unwrap().time_limit.is_some());
    let list = server.get(&format!("{V1}/jobs?type=deploy")).await;
    assert_eq!(list["pagination"]["total"], 1);
    let nodes = json!({"nodes": ["a"]});
    for (body, kind, part) in [
        (
            json!({"environment": "dev", "scope": nodes}),
            "unknown-environment",
            "dev",
        ),
        (
            json!({"environment": "", "scope": {"nodes": []}}),
            "empty-target",
            "no nodes",
        ),
        (json!({"environment": ""}), "validation-error", "scope"),
        (
            json!({"scope": nodes, "run_as": "root"}),
            "validation-error",
            "run_as",
        ),
        (
            json!({"scope": nodes, "noop": true, "no_noop": true}),
            "validation-error",
            "exclude",
        ),
    ] {
        refused(&server, "deploy", body, kind, part).await;
    }
}

/// Knows every report, a moment later.
#[derive(Debug)]
struct Played;

impl ReportSource for Played {
    fn find(
        &self,
        transaction_uuid: String,
    ) -> std::pin::Pin<Box<dyn Future<Output = Option<FoundReport>> + Send + '_>> {
        Box::pin(async move {
            Some(FoundReport {
                hash: format!("hash-of-{transaction_uuid}"),
                url: Some(format!("https://db/reports/{transaction_uuid}")),
                configuration_version: Some("1450898".to_owned()),
                environment: None,
                status: None,
            })
        })
    }
}

#[tokio::test]
async fn the_report_of_a_puppet_run_is_in_its_result() {
    let home = Home::new();
    let server = home
        .start_with(&Fleet::echo(&["a"]), Some(Arc::new(Played)))
        .await;
    let body = json!({"environment": "", "enforce_environment": false, "scope": {"nodes": ["a"]}});
    let name = started(&server, "deploy", body).await;
    assert_eq!(server.end(&name).await["state"], "finished");
    let node = &server.nodes(&name).await[0];
    let uuid = node["transaction_uuid"].as_str().unwrap();
    assert_eq!(node["result"]["hash"], format!("hash-of-{uuid}"));
    assert_eq!(node["result"]["configuration_version"], "1450898");
    assert_eq!(
        node["details"]["report-url"],
        format!("https://db/reports/{uuid}")
    );
}

#[tokio::test]
async fn the_events_of_a_puppet_runs_resources_are_in_the_jobs_report() {
    let mut home = Home::new();
    let ssl = home
        .ca
        .issue("puppetdb", &["localhost".to_owned()])
        .unwrap();
    let asked = Arc::new(Mutex::new(vec![]));
    let queries = Arc::clone(&asked);
    let answer = move |body: String| {
        let query: Value = serde_json::from_str(&body).unwrap();
        let rows = match query["query"].as_array() {
            Some(tree) if tree[1] == "events" => {
                let report = tree[2][2][2][1][0].clone();
                queries.lock().unwrap().push(report.clone());
                json!([
                    {"report": report, "resource_type": "File", "status": "success"},
                    {"report": report, "resource_type": "Service", "status": "failure"},
                ])
            }
            _ => json!([]),
        };
        async move { rows.to_string() }
    };
    let router = axum::Router::new().route("/pdb/query/v4", axum::routing::post(answer));
    let puppetdb = super::played::Played::start(&ssl, router).await;
    home.more = format!("orchestrator.puppetdb-url: {:?}", puppetdb.address.as_str());
    let server = home
        .start_with(&Fleet::echo(&["a"]), Some(Arc::new(Played)))
        .await;
    let body = json!({"environment": "", "enforce_environment": false, "scope": {"nodes": ["a"]}});
    let name = started(&server, "deploy", body).await;
    server.end(&name).await;
    let report = server.get(&format!("{V1}/jobs/{name}/report")).await;
    let uuid = server.nodes(&name).await[0]["transaction_uuid"].clone();
    let hash = format!("hash-of-{}", uuid.as_str().unwrap());
    assert_eq!(*asked.lock().unwrap(), [json!(hash)]);
    assert_eq!(
        report["items"][0]["events"],
        json!([{"resource_type": "File", "status": "success"},
            {"resource_type": "Service", "status": "failure"}])
    );

    // A task has none, and nobody is asked for them.
    let task = server.run("sample::hello", json!({}), &["a"]).await;
    server.end(&task).await;
    let report = server.get(&format!("{V1}/jobs/{task}/report")).await;
    assert_eq!(report["items"][0]["events"], json!([]));
    assert_eq!(asked.lock().unwrap().len(), 1);
    // Clients wait for jobs by their reports: they come without a PuppetDB as well.
    drop(puppetdb);
    let report = server.get(&format!("{V1}/jobs/{name}/report")).await;
    assert_eq!(report["items"][0]["state"], "finished");
}

#[tokio::test]
async fn an_ended_job_is_run_again_on_the_nodes_that_did_not_end_well() {
    let home = Home::new();
    let fleet = Fleet::new(&["a", "b", "c"], |name, _| match name {
        "b" => result(1, "no"),
        _ => result(0, "yes"),
    });
    let server = home.start(&fleet).await;
    let params = json!({"name": "x", "password": "hunter2"});
    let first = server.run("sample::typed", params, &["a", "b", "c"]).await;
    server.end(&first).await;
    let body = json!({"job": first, "only": "failed"});
    refused(&server, "rerun", body, "validation-error", "password").await;
    let body = json!({"job": first, "only": "failed", "params": {"password": "hunter3"}});
    let again = started(&server, "rerun", body).await;
    let job = server.end(&again).await;
    assert_eq!(job["options"]["scope"], json!({"nodes": ["b"]}));
    assert_eq!(job["options"]["rerun_of"], first);
    assert_eq!(job["options"]["params"], json!({"name": "x", "count": 3}));
    let all = json!({"job": first, "params": {"password": "x", "name": "y"}});
    let all = server.end(&started(&server, "rerun", all).await).await;
    assert_eq!(
        (&all["node_count"], &all["options"]["params"]["name"]),
        (&json!(3), &json!("y"))
    );

    let good = server.run("sample::hello", json!({}), &["a"]).await;
    server.end(&good).await;
    let body = json!({"job": good, "only": "failed"});
    refused(&server, "rerun", body, "empty-target", "ended well").await;
    refused(&server, "rerun", json!({"job": "99"}), "unknown-job", "99").await;
    refused(
        &server,
        "rerun",
        json!({"job": "x"}),
        "validation-error",
        "x",
    )
    .await;
    fleet.hold();
    let running = server.run("sample::hello", json!({}), &["a"]).await;
    refused(
        &server,
        "rerun",
        json!({"job": running}),
        "validation-error",
        "not ended",
    )
    .await;
    let deploy = json!({"environment": "", "scope": {"nodes": ["a"]}, "noop": true});
    fleet.release().await;
    let deploy = started(&server, "deploy", deploy).await;
    server.end(&deploy).await;
    let again = started(&server, "rerun", json!({"job": deploy})).await;
    assert_eq!(server.end(&again).await["options"]["noop"], true);
}

#[tokio::test]
async fn a_client_that_runs_a_plan_finds_it_as_a_plan_job() {
    let home = Home::new();
    let server = home.start(&Fleet::echo(&["a"])).await;
    let body = json!({"plan_name": "facts", "description": null,
        "params": {"password": "hunter2"}});
    let (status, body) = server.post(&format!("{V1}/command/plan_start"), body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let plan = body["name"].as_str().unwrap().to_owned();
    let task = json!({"task": "sample::hello", "params": {}, "environment": null, "noop": null,
        "scope": {"nodes": ["a"]}, "plan_job": plan});
    let job = started(&server, "plan_task", task.clone()).await;
    let ended = server.end(&job).await;
    assert_eq!(
        (&ended["type"], &ended["options"]["plan_job"]),
        (&json!("plan_task"), &json!(plan))
    );
    refused(
        &server,
        "task",
        task.clone(),
        "validation-error",
        "plan_task",
    )
    .await;
    let finish = json!({"plan_job": plan, "result": {"x": 1}, "status": "success"});
    let (status, _) = server
        .post(&format!("{V1}/command/plan_finish"), finish.clone())
        .await;
    assert!(status.is_success());
    refused(
        &server,
        "plan_finish",
        finish,
        "plan-already-finished",
        "finished",
    )
    .await;
    refused(
        &server,
        "plan_task",
        task,
        "plan-already-finished",
        "finished",
    )
    .await;

    let text = server.get(&format!("{V1}/plan_jobs/{plan}")).await;
    assert!(!text.to_string().contains("hunter2"));
    let found: PlanJob = serde_json::from_value(text).unwrap();
    assert_eq!(
        (found.result, found.options.sensitive),
        (Some(json!({"x": 1})), vec!["password".into()])
    );
    assert_eq!(found.status[&job].len(), 4);
    let list: PlanJobs = serde_json::from_value(
        server
            .get(&format!("{V1}/plan_jobs?results=exclude&limit=5"))
            .await,
    )
    .unwrap();
    assert_eq!(
        (list.items[0].result.clone(), list.pagination.total),
        (None, 1)
    );
    let events = server.get(&format!("{V1}/plan_jobs/{plan}/events")).await;
    let types: Vec<_> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["type"].clone())
        .collect();
    assert_eq!(types, ["plan_start", "task_start", "plan_finished"]);
    let id = events["items"][1]["id"].as_str().unwrap();
    let one = server
        .get(&format!("{V1}/plan_jobs/{plan}/event/{id}"))
        .await;
    assert_eq!(one["details"]["job-id"], job);
    serde_json::from_value::<PlanEvents>(events).unwrap();
    for (path, status) in [
        ("9", 404),
        ("x", 400),
        ("9/events", 404),
        ("1/event/99", 404),
    ] {
        let path = format!("{V1}/plan_jobs/{path}");
        assert_eq!(
            server.call(Method::GET, &path, None).await.0.as_u16(),
            status,
            "{path}"
        );
    }
}

#[tokio::test]
async fn what_a_task_writes_is_seen_while_it_runs_and_afterwards() {
    let home = Home::new();
    let fleet = Fleet::new(&["a", "b"], |name, _| match name {
        "a" => result(0, r#"{ "x" : 1 }"#),
        _ => result(0, r#"{"_sensitive": {"password": "hunter2"}}"#),
    });
    fleet.hold();
    let server = home.start(&fleet).await;
    let job = server.run("sample::hello", json!({}), &["a", "b"]).await;
    fleet.requested(2).await;
    let read = |node: &str, query: &str| {
        let path = format!("{V1}/jobs/{job}/nodes/{node}/output{query}");
        let server = &server;
        async move { serde_json::from_value::<NodeOutput>(server.get(&path).await).unwrap() }
    };
    let piece = read("a", "?stdout=1&wait=5").await;
    assert_eq!(
        (piece.stdout.data.as_deref(), piece.stdout.next, piece.end),
        (Some(" \""), 3, false)
    );
    fleet.release().await;
    server.end(&job).await;
    let rest = read("a", "?stdout=3").await;
    assert_eq!(
        (rest.stdout.data.as_deref(), rest.end),
        (Some("x\" : 1 }"), true)
    );
    assert_eq!(read("a", "").await.stderr.data.as_deref(), Some("noise"));
    let secret = read("b", "").await.stdout.data.unwrap();
    assert!(
        !secret.contains("hunter2") && secret.contains("redacted"),
        "{secret}"
    );
    let nodes = server.nodes(&job).await;
    assert_eq!(
        nodes[1]["result"]["_sensitive"],
        "Sensitive [value redacted]"
    );
    let asked = format!("{V1}/jobs/{job}/nodes?sensitive=include");
    let nodes = server.get(&asked).await;
    assert_eq!(
        nodes["items"][1]["result"]["_sensitive"]["password"],
        "hunter2"
    );
    for (path, status) in [
        (format!("{V1}/jobs/{job}/nodes/z/output"), 404),
        (format!("{V1}/jobs/99/nodes/a/output"), 404),
        (format!("{V1}/jobs/x/nodes/a/output"), 400),
        (format!("{V1}/jobs/{job}/nodes/a/output?wait=9999"), 400),
        (format!("{V1}/jobs/{job}/nodes/a/output?stdout=-1"), 400),
    ] {
        assert_eq!(
            server.call(Method::GET, &path, None).await.0.as_u16(),
            status,
            "{path}"
        );
    }
}

#[tokio::test]
async fn events_stream_while_they_happen_and_end_with_the_job() {
    let home = Home::new();
    let fleet = Fleet::echo(&["a", "b"]);
    fleet.hold();
    let server = home.start(&fleet).await;
    let job = server.run("sample::hello", json!({}), &["a", "b"]).await;
    fleet.requested(2).await;
    let url = format!("{}{V1}/jobs/{job}/events", server.base);
    let ask = || {
        let request = server
            .client
            .get(&url)
            .header("accept", "text/event-stream");
        request.header("X-Authentication", &server.token)
    };
    let mut response = ask().send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    let read = async {
        while let Some(chunk) = response.chunk().await.unwrap() {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
            if text.matches("event: node_running").count() == 2 {
                // Seen while both nodes run; now they end.
                fleet.release().await;
            }
        }
    };
    tokio::time::timeout(super::DEADLINE, read).await.unwrap();
    let listed = server.get(&format!("{V1}/jobs/{job}/events")).await;
    let listed = listed["items"].as_array().unwrap();
    let streamed: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert_eq!(&streamed, listed);
    assert_eq!(listed.last().unwrap()["type"], "job_finished");
    // Whoever comes back goes on where it was.
    let last = listed[2]["id"].as_str().unwrap();
    let rest = ask()
        .header("last-event-id", last)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(rest.matches("data: ").count(), listed.len() - 3);
    let end = listed.last().unwrap()["id"].as_str().unwrap();
    let none = ask()
        .header("last-event-id", end)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(none, "");
}

#[tokio::test]
async fn a_stop_does_not_overtake_the_job_that_it_stops() {
    let home = Home::new();
    let fleet = Fleet::echo(&["a"]);
    fleet.hold();
    let server = home.start(&fleet).await;
    // A job that is stored, and whose submission has not handed it on yet.
    let submitting = server.submissions.clone().read_owned().await;
    let new = crate::store::tests::new_job("sample::hello", &["t1"], 1);
    let id = server.store.add_job(new).await.unwrap();
    let stop = server.post(
        "/orchestrator/v1/command/stop",
        json!({"job": id.to_string()}),
    );
    let mut stop = std::pin::pin!(stop);
    let early = tokio::time::timeout(Duration::from_millis(200), &mut stop).await;
    assert!(
        early.is_err(),
        "answered although the job could still begin: {early:?}"
    );
    drop(submitting);
    assert_eq!(stop.await.0, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn what_is_not_supported_is_refused_by_name() {
    let home = Home::new();
    let server = home.start(&Fleet::echo(&["a"])).await;
    for (method, path, part) in [
        (Method::POST, "command/schedule_task", "schedules"),
        (Method::GET, "scheduled_jobs", "schedules"),
        (Method::GET, "scheduled_jobs/environment_jobs", "schedules"),
        (Method::POST, "command/plan_run", "Bolt"),
        (Method::GET, "plans/facts/init", "Bolt"),
    ] {
        let (status, error) = server.call(method, &format!("{V1}/{path}"), None).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert!(
            error["msg"].as_str().unwrap().contains(part),
            "{path}: {error}"
        );
    }
}

#[tokio::test]
async fn every_endpoint_that_is_described_is_there() {
    let home = Home::new();
    let server = home.start(&Fleet::echo(&["a"])).await;
    let job = server.run("sample::hello", json!({}), &["a"]).await;
    server.end(&job).await;
    let described = server.get(&format!("{V1}/openapi.json")).await;
    assert_eq!(described, orchestrator_api::openapi::document());
    let paths = described["paths"].as_object().unwrap();
    for (path, operations) in paths {
        let path = path
            .replace("{job}", &job)
            .replace("{node}", "a")
            .replace("{module}/{task}", "sample/hello")
            .replace("{plan}", "1")
            .replace("{event}", "1")
            .replace("{target}", "1");
        for method in operations.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let body = (method == Method::POST).then(|| json!({}));
            let (status, answer) = server.call(method.clone(), &path, body).await;
            let is_unknown = path.contains("plan_jobs/") || path.contains("task_targets/");
            let expected = match &method {
                &Method::POST => StatusCode::BAD_REQUEST,
                _ if is_unknown => StatusCode::NOT_FOUND,
                _ => StatusCode::OK,
            };
            assert_eq!(status, expected, "{method} {path}: {answer}");
            let msg = answer["msg"].as_str().unwrap_or_default();
            assert!(!msg.contains("no such endpoint"), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn usage_counts_what_was_done_today() {
    let home = Home::new();
    let server = home.start(&Fleet::echo(&["a", "b"])).await;
    let job = server.run("sample::hello", json!({}), &["a", "b"]).await;
    server.end(&job).await;
    let again = server
        .run("sample::hello", json!({}), &["a", "never"])
        .await;
    server.end(&again).await;
    let deploy = json!({"environment": "", "scope": {"nodes": ["a"]}});
    let deploy = started(&server, "deploy", deploy).await;
    server.end(&deploy).await;
    let usage = server.get(&format!("{V1}/usage")).await;
    let today = &usage["items"][0];
    let counts = [
        ("total_nodes", 2),
        ("nodes_with_agent", 2),
        ("nodes_without_agent", 0),
        ("nodes_affected_by_task_runs", 2),
        ("nodes_affected_by_plan_runs", 0),
        ("intentional_agent_changes", 1),
        ("corrective_agent_changes", 0),
    ];
    for (name, count) in counts {
        assert_eq!(today[name], count, "{name}: {today}");
    }
    assert_eq!(usage["pagination"]["total"], 31);
    assert_eq!(usage["items"][1]["nodes_affected_by_task_runs"], 0);
    let day = today["date"].as_str().unwrap();
    let one = format!("{V1}/usage?start_date={day}&end_date={day}&events=exclude");
    let one = server.get(&one).await;
    assert_eq!(one["items"].as_array().unwrap().len(), 1);
    assert!(one["items"][0].get("corrective_agent_changes").is_none());
    for query in [
        "start_date=x",
        "start_date=1000-01-01",
        "start_date=2026-01-02&end_date=2026-01-01",
    ] {
        let path = format!("{V1}/usage?{query}");
        let (status, _) = server.call(Method::GET, &path, None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
    }
}
