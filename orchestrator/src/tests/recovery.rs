//! An orchestrator that ends in the middle, and another that takes up its database.

use std::time::Duration;

use pxp::ActionResult;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::api::known;
use super::fleet::Fleet;
use super::{Home, Server};

#[tokio::test]
async fn a_running_job_survives_and_its_results_are_recorded_once() {
    let home = Home::new();
    let fleet = Fleet::echo(&["a", "b"]);
    fleet.hold();
    let server = home.start(&fleet).await;
    let job = server
        .run("sample::typed", json!({"name": "x"}), &["a", "b"])
        .await;
    fleet.requested(2).await;
    server.stop().await;

    let server = home.start(&fleet).await;
    let before = server.get(&format!("/orchestrator/v1/jobs/{job}")).await;
    assert_eq!(before["state"], "running");
    fleet.release().await;
    let ended = server.end(&job).await;
    assert_eq!(
        (&ended["state"], &ended["node_states"]),
        (&json!("finished"), &json!({"finished": 2}))
    );
    let requests = fleet.spool(|spool| {
        spool
            .values()
            .map(|one| one.requests.len())
            .collect::<Vec<_>>()
    });
    assert_eq!(requests, [1, 1], "an accepted task was requested again");
    fleet.report().await;
    let after = server.end(&job).await;
    assert_eq!(after["node_states"], ended["node_states"]);
}

#[tokio::test]
async fn a_job_that_was_not_sent_is_sent_by_the_next_process_exactly_as_it_was() {
    let home = Home::new();
    let nobody = Fleet::echo(&[]);
    let server = home.start(&nobody).await;
    let fleet = Fleet::echo(&["a"]);
    // The node has been seen, and is on its way back when the process ends.
    server.stop().await;
    let server = home.start(&fleet).await;
    let first = server
        .run("sample::typed", json!({"name": "x"}), &["a"])
        .await;
    server.end(&first).await;
    server.stop().await;

    let server = home.start(&nobody).await;
    let job = server
        .run("sample::typed", json!({"name": "x"}), &["a"])
        .await;
    assert_eq!(
        server.get(&format!("/orchestrator/v1/jobs/{job}")).await["state"],
        "ready"
    );
    server.stop().await;

    let server = home.start(&fleet).await;
    let ended = server.end(&job).await;
    assert_eq!(ended["state"], "finished");
    let requests = fleet.spool(|spool| {
        spool
            .values()
            .flat_map(|one| one.requests.clone())
            .collect::<Vec<_>>()
    });
    assert_eq!(
        requests[0], requests[1],
        "a stored request is not what was sent"
    );
}

#[tokio::test]
async fn ended_jobs_stay_and_late_outcomes_are_taken_off_the_agents() {
    let home = Home::new();
    let fleet = Fleet::echo(&["a"]);
    fleet.hold();
    let server = home.start(&fleet).await;
    let job = server.run("sample::hello", json!({}), &["a"]).await;
    fleet.requested(1).await;
    let stop = json!({"job": job, "force": true});
    server.post("/orchestrator/v1/command/stop", stop).await;
    server.stop().await;

    let server = home.start(&fleet).await;
    fleet.release().await;
    // The outcome of the old job comes before that of the new one.
    let next = server.run("sample::hello", json!({}), &["a"]).await;
    server.end(&next).await;
    assert_eq!(server.nodes(&job).await[0]["state"], "stopped");
    assert_eq!(
        server.get("/orchestrator/v1/jobs").await["pagination"]["total"],
        2
    );
    all_acknowledged(&fleet).await;
}

async fn all_acknowledged(fleet: &Fleet) {
    let mut polls = tokio::time::interval(Duration::from_millis(10));
    let wait = async {
        while !fleet.spool(|spool| spool.values().all(|one| one.acknowledged)) {
            polls.tick().await;
        }
    };
    tokio::time::timeout(super::DEADLINE, wait).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_acknowledges_nothing() {
    let home = Home::new();
    let fleet = Fleet::new(&["a"], |_, _| ActionResult {
        exitcode: 0,
        stdout: Some("x".repeat(500_000)),
        stderr: None,
        usage: None,
    });
    fleet.hold();
    let server = home.start(&fleet).await;
    let job = server.run("sample::hello", json!({}), &["a"]).await;
    fleet.requested(1).await;
    server.store.limit_pages(1).await;
    fleet.release().await;
    refused(&server).await;
    assert!(fleet.spool(|spool| spool.values().all(|one| !one.acknowledged)));
    let description = "x".repeat(4000);
    let nodes = vec!["a"; 20_000];
    let body =
        json!({"task": "sample::hello", "description": description, "scope": {"nodes": nodes}});
    let (status, error) = server.post("/orchestrator/v1/command/task", body).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        error["msg"].as_str().unwrap().contains("the disk is full"),
        "{error}"
    );

    server.store.limit_pages(1_000_000).await;
    assert_eq!(server.end(&job).await["state"], "finished");
    all_acknowledged(&fleet).await;
    let jobs = server.get("/orchestrator/v1/jobs").await;
    assert_eq!(
        jobs["pagination"]["total"], 1,
        "a refused request became a job"
    );
}

#[tokio::test]
async fn a_job_whose_caller_goes_away_while_it_is_stored_is_run_all_the_same() {
    let home = Home::new();
    let fleet = Fleet::echo(&["a"]);
    let server = home.start(&fleet).await;
    // Behind its end nothing else is written.
    let first = server.run("sample::hello", json!({}), &["a"]).await;
    server.end(&first).await;
    let disk = server.store.hold_writes().await;
    let body = json!({"task": "sample::hello", "scope": {"nodes": ["a"]}});
    tokio::select! {
        answer = server.post("/orchestrator/v1/command/task", body) => panic!("{answer:?}"),
        () = server.store.write_waits() => {}
    }
    // It comes on the same connection, behind the news that the caller has gone away.
    server.get("/status/v1/services").await;
    drop(disk);
    // Writes are done in their order: behind this one, the job is stored.
    server.store.limit_pages(1_000_000).await;
    assert_eq!(server.end("2").await["state"], "finished");
}

#[tokio::test]
async fn what_the_disk_refused_is_stored_before_the_end_with_what_was_decided_since() {
    let home = Home::new();
    let fleet = Fleet::new(&["a", "b", "c"], |_, _| ActionResult {
        exitcode: 0,
        stdout: Some("x".repeat(500_000)),
        stderr: None,
        usage: None,
    });
    fleet.hold();
    let server = home.start(&fleet).await;
    known(&server, "c", true).await;
    fleet.leave("c").await;
    known(&server, "c", false).await;
    let job = server
        .run("sample::hello", json!({}), &["a", "b", "c"])
        .await;
    fleet.requested(2).await;
    server.store.limit_pages(1).await;
    fleet.report_of(|name| name == "a").await;
    refused(&server).await;
    let stop = json!({"job": job});
    let mut polls = tokio::time::interval(Duration::from_millis(10));
    let is_decided = async {
        let path = "/status/v1/services/orchestrator-service?level=debug";
        while server.call(Method::GET, path, None).await.1["status"]["waiting_nodes"] != 0 {
            polls.tick().await;
        }
    };
    tokio::select! {
        answer = server.post("/orchestrator/v1/command/stop", stop) => panic!("{answer:?}"),
        () = is_decided => {}
    }
    server.store.limit_pages(1_000_000).await;
    server.stop().await;

    let server = home.start(&fleet).await;
    let job = server.get(&format!("/orchestrator/v1/jobs/{job}")).await;
    assert_eq!(
        (&job["state"], &job["node_states"]),
        (
            &json!("stopping"),
            &json!({"finished": 1, "running": 1, "skipped": 1})
        )
    );
}

/// Waits until the database refuses what is decided.
async fn refused(server: &Server) {
    let mut polls = tokio::time::interval(Duration::from_millis(10));
    let refused = async {
        while server
            .client
            .get(format!("{}/status/v1/simple", server.base))
            .send()
            .await
            .unwrap()
            .status()
            != StatusCode::SERVICE_UNAVAILABLE
        {
            polls.tick().await;
        }
    };
    tokio::time::timeout(super::DEADLINE, refused)
        .await
        .unwrap();
}
