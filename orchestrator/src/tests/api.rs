//! The API as its callers see it.

use std::time::Duration;

use identity::Identity;
use orchestrator_api::{
    Events, Inventory, Job, Jobs, Nodes, Report, Services, TaskDetail, TaskList,
};
use pxp::ActionResult;
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::fleet::Fleet;
use super::{Home, Server, answer};

const V1: &str = "/orchestrator/v1";

fn typed<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[tokio::test]
async fn a_task_runs_on_all_nodes_and_every_answer_has_the_documented_form() {
    let home = Home::new();
    let fleet = Fleet::new(&["a", "b"], |name, _| match name {
        "a" => ActionResult {
            exitcode: 0,
            stdout: Some(r#"{"x":1}"#.into()),
            stderr: None,
            usage: None,
        },
        _ => ActionResult {
            exitcode: 3,
            stdout: None,
            stderr: Some("no space\n".into()),
            usage: None,
        },
    });
    let server = home.start(&fleet).await;
    let name = server
        .run("sample::hello", json!({}), &["a", "b", "a"])
        .await;
    let job = server.end(&name).await;

    let url = format!("{}{V1}/jobs/{name}", server.base);
    assert_eq!(job["id"], url);
    assert_eq!(job["name"], name);
    assert_eq!(
        (&job["state"], &job["type"]),
        (&json!("failed"), &json!("task"))
    );
    assert_eq!(job["node_states"], json!({"finished": 1, "failed": 1}));
    assert_eq!(job["node_count"], 2);
    assert_eq!(job["owner"]["login"], "ada");
    assert_eq!(job["options"]["scope"], json!({"nodes": ["a", "b", "a"]}));
    assert_eq!(job["events"]["id"], format!("{url}/events"));
    assert!(job["duration"].as_str().unwrap().contains('.'));
    let states: Vec<_> = job["status"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["state"].clone())
        .collect();
    assert_eq!(states, ["new", "ready", "running", "failed"]);
    typed::<Job>(job);

    let nodes = server.nodes(&name).await;
    assert_eq!(
        (&nodes[0]["name"], &nodes[0]["state"]),
        (&json!("a"), &json!("finished"))
    );
    assert_eq!(nodes[0]["result"], json!({"x": 1}));
    assert!(nodes[0]["duration"].is_number());
    let error = json!({"kind": "puppetlabs.tasks/task-error", "msg": "Task exited 3:\nno space",
        "details": {"exitcode": 3}});
    assert_eq!(nodes[1]["result"], json!({"_output": "", "_error": error}));

    let events = server.get(&format!("{V1}/jobs/{name}/events")).await;
    let types: Vec<_> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["type"].clone())
        .collect();
    assert_eq!(types.len(), 5);
    assert_eq!(types.last().unwrap(), "job_finished");
    let next = events["next-events"]["event"].as_str().unwrap();
    let more = server
        .get(&format!("{V1}/jobs/{name}/events?start={next}"))
        .await;
    assert_eq!(more["items"], json!([]));
    typed::<Events>(events);
    typed::<Nodes>(
        server
            .get(&format!(
                "{V1}/jobs/{name}/nodes?order_by=duration&state=failed"
            ))
            .await,
    );
    typed::<Report>(server.get(&format!("{V1}/jobs/{name}/report")).await);
    let jobs: Jobs = typed(
        server
            .get(&format!("{V1}/jobs?limit=5&type=task&order=desc"))
            .await,
    );
    assert_eq!((jobs.items.len(), jobs.pagination.total), (1, 1));
    assert!(fleet.spool(|spool| spool.values().all(|one| one.acknowledged)));
}

#[tokio::test]
async fn a_job_whose_nodes_all_succeed_is_finished() {
    let home = Home::new();
    let server = home.start(&Fleet::echo(&["a"])).await;
    let params = json!({"name": "x", "password": "hunter2"});
    let body = json!({"task": "sample::typed", "params": params, "scope": {"nodes": ["a"]},
        "noop": true, "environment": null, "description": "why", "userdata": {"ticket": 7}});
    let (status, body) = server.post("/orchestrator/v1/command/task", body).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let name = body["job"]["name"].as_str().unwrap();
    let job = server.end(name).await;
    assert_eq!(job["state"], "finished");
    assert_eq!(job["description"], "why");
    assert_eq!(job["userdata"], json!({"ticket": 7}));
    assert_eq!(job["options"]["params"], json!({"name": "x", "count": 3}));
    assert_eq!(job["options"]["sensitive"], json!(["password"]));
    assert_eq!(job["options"]["noop"], true);
    // The agent got it all, and the metaparameter; the test's agent prints its input.
    let nodes = server.nodes(name).await;
    let input = json!({"_noop": true, "name": "x", "count": 3, "password": "hunter2"});
    assert_eq!(nodes[0]["result"], input);
}

#[tokio::test]
async fn sensitive_parameters_are_in_no_file() {
    let home = Home::new();
    let fleet = Fleet::new(&["a"], |_, _| ActionResult {
        exitcode: 0,
        stdout: None,
        stderr: None,
        usage: None,
    });
    let server = home.start(&fleet).await;
    let params = json!({"name": "x", "password": "hunter2-is-secret"});
    let name = server.run("sample::typed", params, &["a"]).await;
    server.end(&name).await;
    let sent = fleet.spool(|spool| spool.values().next().unwrap().requests[0].clone());
    assert!(sent.contains("hunter2-is-secret"));
    for file in ["orchestrator.db", "orchestrator.db-wal"] {
        let bytes = std::fs::read(home.path(file)).unwrap_or_default();
        let secret = b"hunter2-is-secret";
        assert!(
            !bytes.windows(secret.len()).any(|part| part == secret),
            "{file}"
        );
    }
}

#[tokio::test]
async fn each_wrong_request_has_its_kind_and_status() {
    let home = Home::new();
    let server = home.start(&Fleet::echo(&["a"])).await;
    let nodes = json!({"nodes": ["a"]});
    let table = [
        (
            json!({"task": "sample::nothere", "scope": nodes}),
            "unknown-task",
            404,
        ),
        (
            json!({"task": "other::x", "scope": nodes}),
            "unknown-task",
            404,
        ),
        (
            json!({"task": "No Such", "scope": nodes}),
            "validation-error",
            400,
        ),
        (
            json!({"task": "sample::broken", "scope": nodes}),
            "unknown-error",
            500,
        ),
        (
            json!({"task": "sample::hello", "scope": nodes, "environment": "dev"}),
            "unknown-environment",
            404,
        ),
        (
            json!({"task": "sample::hello", "scope": {"nodes": []}}),
            "empty-target",
            400,
        ),
        (
            json!({"task": "sample::hello", "scope": {"nodes": ["../x"]}}),
            "validation-error",
            400,
        ),
        (
            json!({"task": "sample::hello", "scope": {"query": "nodes {}"}}),
            "puppetdb-error",
            400,
        ),
        (
            json!({"task": "sample::hello", "scope": {"node_group": "g"}}),
            "unknown-node-group",
            404,
        ),
        (
            json!({"task": "sample::hello", "scope": {}}),
            "validation-error",
            400,
        ),
        (json!({"task": "sample::hello"}), "validation-error", 400),
        (
            json!({"task": "sample::hello", "scope": nodes, "noop": true}),
            "validation-error",
            400,
        ),
        (
            json!({"task": "sample::hello", "scope": nodes, "targets": []}),
            "validation-error",
            400,
        ),
        (
            json!({"task": "sample::hello", "scope": nodes, "timeout": 0}),
            "validation-error",
            400,
        ),
        (
            json!({"task": "sample::hello", "scope": nodes, "params": {"_noop": true}}),
            "validation-error",
            400,
        ),
        (
            json!({"task": "sample::typed", "scope": nodes, "params": {"name": 1}}),
            "validation-error",
            400,
        ),
        (
            json!({"task": "sample::typed", "scope": nodes}),
            "validation-error",
            400,
        ),
        (json!([]), "validation-error", 400),
    ];
    for (body, kind, status) in table {
        let shown = body.to_string();
        let (code, error) = server.post("/orchestrator/v1/command/task", body).await;
        let kind = format!("puppetlabs.orchestrator/{kind}");
        assert_eq!(
            (code.as_u16(), &error["kind"]),
            (status, &json!(kind)),
            "{shown}: {error}"
        );
        assert!(!error["msg"].as_str().unwrap().is_empty());
    }
    let jobs = server.get(&format!("{V1}/jobs")).await;
    assert_eq!(
        jobs["pagination"]["total"], 0,
        "a refused request left a job"
    );
    let body = json!({"task": "sample::hello", "scope": nodes, "environment": "dev"});
    let (_, error) = server.post("/orchestrator/v1/command/task", body).await;
    assert_eq!(error["msg"], "Unknown environment dev");
    assert_eq!(error["details"], json!({"environment": "dev"}));
}

#[tokio::test]
async fn everything_is_answered_in_json() {
    let home = Home::new();
    let server = home.start(&Fleet::echo(&["a"])).await;
    let job = server.run("sample::hello", json!({}), &["a"]).await;
    server.end(&job).await;
    let other = server.run("sample::hello", json!({}), &["a"]).await;
    server.end(&other).await;
    let table = [
        (
            Method::GET,
            "/orchestrator/v1/jobs/x".into(),
            400,
            "validation-error",
        ),
        (
            Method::GET,
            "/orchestrator/v1/jobs/%FF".into(),
            400,
            "validation-error",
        ),
        (
            Method::GET,
            "/orchestrator/v1/jobs/99".into(),
            404,
            "unknown-job",
        ),
        (
            Method::GET,
            "/orchestrator/v1/jobs/99/nodes".into(),
            404,
            "unknown-job",
        ),
        (
            Method::GET,
            "/orchestrator/v1/jobs/99/events".into(),
            404,
            "unknown-job",
        ),
        (
            Method::GET,
            "/orchestrator/v1/jobs/1/events?start=x".into(),
            400,
            "validation-error",
        ),
        (
            Method::GET,
            format!("/orchestrator/v1/jobs/{other}/events?start=1"),
            404,
            "mismatched-job-event-id",
        ),
        (
            Method::GET,
            "/orchestrator/v1/jobs?limit=x".into(),
            400,
            "validation-error",
        ),
        (
            Method::GET,
            "/orchestrator/v1/jobs?type=deploy&task=x".into(),
            400,
            "validation-error",
        ),
        (
            Method::GET,
            "/orchestrator/v1/nothing".into(),
            404,
            "not-found",
        ),
        (Method::GET, "/nothing".into(), 404, "not-found"),
        (
            Method::POST,
            "/orchestrator/v1/command/reboot".into(),
            404,
            "not-found",
        ),
        (
            Method::DELETE,
            "/orchestrator/v1/jobs".into(),
            405,
            "method-not-allowed",
        ),
        (
            Method::GET,
            "/orchestrator/v1/command/task".into(),
            405,
            "method-not-allowed",
        ),
        (
            Method::POST,
            "/orchestrator/v1/command/task".into(),
            400,
            "validation-error",
        ),
        (
            Method::POST,
            "/orchestrator/v1/inventory".into(),
            400,
            "validation-error",
        ),
        (
            Method::GET,
            "/orchestrator/v1/tasks/sample/NOT".into(),
            400,
            "validation-error",
        ),
        (
            Method::GET,
            "/orchestrator/v1/tasks/sample/nothere".into(),
            404,
            "unknown-task",
        ),
        (
            Method::GET,
            "/orchestrator/v1/tasks?environment=dev".into(),
            404,
            "unknown-environment",
        ),
    ];
    for (method, path, status, kind) in table {
        let (code, error) = server.call(method.clone(), &path, None).await;
        let kind = format!("puppetlabs.orchestrator/{kind}");
        assert_eq!(
            (code.as_u16(), &error["kind"]),
            (status, &json!(kind)),
            "{method} {path}: {error}"
        );
    }
    let url = format!("{}{V1}/command/stop", server.base);
    let request = server
        .client
        .post(&url)
        .header("X-Authentication", &server.token)
        .body("{");
    let (code, error) = answer(request).await;
    assert_eq!(
        (code.as_u16(), &error["kind"]),
        (400, &json!("puppetlabs.orchestrator/validation-error"))
    );
    let large = vec![b' '; 17 * 1024 * 1024];
    let request = server
        .client
        .post(&url)
        .header("X-Authentication", &server.token)
        .body(large);
    let (code, error) = answer(request).await;
    assert_eq!(
        (code.as_u16(), &error["kind"]),
        (413, &json!("puppetlabs.orchestrator/too-large"))
    );
}

#[tokio::test]
async fn only_a_token_opens_the_api_and_the_status_needs_none() {
    let home = Home::new();
    let server = home.start(&Fleet::echo(&["a"])).await;
    let ask = |path: &str| server.client.get(format!("{}{path}", server.base));
    for path in [
        "/orchestrator/v1",
        "/orchestrator/v1/jobs",
        "/orchestrator/v1/inventory/a",
    ] {
        let (code, error) = answer(ask(path)).await;
        assert_eq!(
            (code.as_u16(), &error["kind"]),
            (401, &json!("puppetlabs.rbac/user-unauthenticated"))
        );
        let (code, _) = answer(ask(path).header("X-Authentication", "wrong")).await;
        assert_eq!(code, StatusCode::UNAUTHORIZED);
    }
    let (code, _) = answer(ask(&format!(
        "/orchestrator/v1/jobs?token={}",
        server.token
    )))
    .await;
    assert_eq!(code, StatusCode::OK);
    let (code, body) = answer(ask("/status/v1/services?level=debug")).await;
    let services: Services = typed(body);
    assert_eq!(code, StatusCode::OK);
    assert!(services.contains_key("orchestrator-service"));
    for (path, status) in [
        ("/status/v1/services/orchestrator-service", 200),
        ("/status/v1/services/other", 404),
        ("/status/v1/services?level=loud", 400),
        ("/status/v1/simple/orchestrator-service", 200),
    ] {
        assert_eq!(answer(ask(path)).await.0.as_u16(), status, "{path}");
    }
    assert_eq!(answer(ask("/status/v1/simple")).await.1, "running");
}

#[tokio::test]
async fn tasks_are_listed_and_described() {
    let home = Home::new();
    let server = home.start(&Fleet::echo(&["a"])).await;
    let list: TaskList = typed(server.get(&format!("{V1}/tasks")).await);
    let names: Vec<_> = list
        .items
        .iter()
        .map(|task| (task.name.as_str(), task.private))
        .collect();
    assert_eq!(names, [("sample::hello", false), ("sample::typed", true)]);
    assert_eq!(list.items[0].description, "Says hello");
    let path = list.items[0].id.strip_prefix(&server.base).unwrap();
    let task: TaskDetail = typed(server.get(path).await);
    assert_eq!(task.metadata["description"], "Says hello");
    assert_eq!(task.files[0].filename, "hello.sh");
    assert_eq!(task.files[0].sha256.len(), 64);
    let empty: TaskList = typed(server.get(&format!("{V1}/tasks?environment=empty")).await);
    assert_eq!(
        (empty.environment.name.as_str(), empty.items.len()),
        ("empty", 0)
    );
    let index = server.get(V1).await;
    assert_eq!(
        index["collections"][0]["id"],
        format!("{}{V1}/jobs", server.base)
    );
}

#[tokio::test]
async fn the_inventory_tells_who_is_connected() {
    let home = Home::new();
    let fleet = Fleet::echo(&["a", "b"]);
    let server = home.start(&fleet).await;
    known(&server, "b", true).await;
    fleet.leave("b").await;
    known(&server, "b", false).await;
    let inventory: Inventory = typed(server.get(&format!("{V1}/inventory")).await);
    let [a, b] = inventory.items.as_slice() else {
        panic!("{inventory:?}");
    };
    assert_eq!((a.name.as_str(), a.connected), ("a", true));
    assert_eq!(a.broker.as_deref(), Some("pcp://compiler/server"));
    assert!(a.timestamp.is_some());
    assert_eq!((b.name.as_str(), b.connected), ("b", false));
    assert_eq!(b.broker, None);
    assert!(b.timestamp.is_some());
    fleet.moved("a", "other").await;
    let moved = json!("pcp://other/server");
    known_as(&server, "a", |item| item["broker"] == moved).await;
    let body = json!({"nodes": ["never", "a"]});
    let (_, body) = server.post("/orchestrator/v1/inventory", body).await;
    let inventory: Inventory = typed(body);
    let nodes: Vec<_> = inventory
        .items
        .iter()
        .map(|item| (item.name.as_str(), item.connected))
        .collect();
    assert_eq!(nodes, [("a", true), ("never", false)]);
    let one = server.get(&format!("{V1}/inventory/never")).await;
    assert_eq!(one, json!({"name": "never", "connected": false}));
}

/// Waits until the inventory says so.
pub(super) async fn known(server: &Server, name: &str, connected: bool) {
    known_as(server, name, |item| item["connected"] == connected).await;
}

async fn known_as(server: &Server, name: &str, is_right: impl Fn(&Value) -> bool) {
    let mut polls = tokio::time::interval(Duration::from_millis(10));
    let wait = async {
        loop {
            polls.tick().await;
            let path = format!("{V1}/inventory/{name}");
            let (status, item) = server.call(Method::GET, &path, None).await;
            // 500 until the broker has told who is there.
            if status == StatusCode::OK && is_right(&item) {
                return;
            }
        }
    };
    tokio::time::timeout(super::DEADLINE, wait).await.unwrap();
}

#[tokio::test]
async fn nodes_that_have_ended_are_read_on_from_where_they_were_left() {
    let home = Home::new();
    let names = ["a", "b", "c", "d", "e"];
    let server = home.start(&Fleet::echo(&names)).await;
    let job = server.run("sample::hello", json!({}), &names).await;
    server.end(&job).await;
    let path = format!("{V1}/jobs/{job}/nodes?state=finished&order_by=finish_timestamp&limit=2");
    let mut seen = vec![];
    let mut mark = String::new();
    for expected in [2, 2, 1] {
        let page = server.get(&format!("{path}{mark}")).await;
        let items = page["items"].as_array().unwrap();
        assert_eq!(items.len(), expected, "{page}");
        seen.extend(items.iter().map(|it| it["name"].clone()));
        mark = format!("&after={}", page["next-nodes"].as_str().unwrap());
    }
    let rest = server.get(&format!("{path}{mark}")).await;
    assert_eq!(rest["items"], json!([]));
    assert!(rest.get("next-nodes").is_none(), "{rest}");
    seen.sort_by_key(ToString::to_string);
    assert_eq!(seen, names);
    for query in [
        "order_by=finish_timestamp&after=x",
        "order_by=finish_timestamp&after=1",
        "order_by=finish_timestamp&order=desc&after=1.1",
        "after=1.1",
    ] {
        let path = format!("{V1}/jobs/{job}/nodes?{query}");
        let (status, error) = server.call(Method::GET, &path, None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {error}");
    }
}

#[tokio::test]
async fn nodes_that_are_not_there_are_errored_and_the_others_run() {
    let home = Home::with_pcp_timeout(1);
    let fleet = Fleet::echo(&["a", "b"]);
    let server = home.start(&fleet).await;
    known(&server, "b", true).await;
    fleet.leave("b").await;
    known(&server, "b", false).await;
    let job = server
        .run("sample::hello", json!({}), &["a", "b", "never"])
        .await;
    let ended = server.end(&job).await;
    assert_eq!(ended["state"], "failed");
    assert_eq!(ended["node_states"], json!({"finished": 1, "errored": 2}));
    for node in &server.nodes(&job).await[1..] {
        let message = node["details"]["message"].as_str().unwrap();
        assert!(message.contains("not connected"), "{message}");
        assert_eq!(
            node["result"]["kind"],
            "puppetlabs.orchestrator/execution-failure"
        );
        assert_eq!(node["result"]["details"]["node"], node["name"]);
    }
}

#[tokio::test]
async fn stop_waits_for_what_runs_and_force_does_not() {
    let home = Home::new();
    let fleet = Fleet::echo(&["a"]);
    fleet.hold();
    let server = home.start(&fleet).await;
    let job = server.run("sample::hello", json!({}), &["a"]).await;
    fleet.requested(1).await;
    let stop = |job: &str, force: bool| {
        server.post(
            "/orchestrator/v1/command/stop",
            json!({"job": job, "force": force}),
        )
    };
    let (status, body) = stop(&job, false).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    assert_eq!(body["job"]["nodes"]["running"], 1);
    assert_eq!(
        server.get(&format!("{V1}/jobs/{job}")).await["state"],
        "stopping"
    );
    assert_eq!(stop(&job, false).await.0, StatusCode::ACCEPTED);
    fleet.release().await;
    let ended = server.end(&job).await;
    assert_eq!(
        (&ended["state"], &ended["node_states"]),
        (&json!("stopped"), &json!({"finished": 1}))
    );
    let events = server.get(&format!("{V1}/jobs/{job}/events")).await;
    let types: Vec<_> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["type"].clone())
        .collect();
    assert_eq!(
        types,
        [
            "node_running",
            "job_stopping",
            "node_finished",
            "job_aborted"
        ]
    );

    fleet.hold();
    let job = server.run("sample::hello", json!({}), &["a"]).await;
    fleet.requested(2).await;
    let (status, body) = stop(&job, true).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let ended = server.end(&job).await;
    assert_eq!(ended["state"], "stopped");
    assert!(fleet.spool(|spool| spool.values().any(|spooled| spooled.killed)));
    let node = &server.nodes(&job).await[0];
    let message = node["details"]["message"].as_str().unwrap();
    assert!(
        message.ends_with("the task was killed on the node"),
        "{message}"
    );
    let (_, body) = stop(&job, true).await;
    assert_eq!(body["job"]["nodes"]["stopped"], 1);
    // An end that comes again changes nothing.
    fleet.release().await;
    let more = server.run("sample::hello", json!({}), &["a"]).await;
    server.end(&more).await;
    assert_eq!(server.nodes(&job).await[0]["state"], "stopped");
    let (status, body) = stop("99", false).await;
    assert_eq!(
        (status, &body["kind"]),
        (
            StatusCode::NOT_FOUND,
            &json!("puppetlabs.orchestrator/unknown-job")
        )
    );
}

#[tokio::test]
async fn clients_of_old_are_served() {
    let home = Home::new();
    let server = home.start(&Fleet::echo(&["a"])).await;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    // Another test of this process may have been first.
    drop(provider.install_default());
    let ca = std::fs::read(home.ssl.ca()).unwrap();
    let client = reqwest::Client::builder()
        .tls_certs_only(reqwest::Certificate::from_pem_bundle(&ca).unwrap())
        .tls_version_max(reqwest::tls::Version::TLS_1_2)
        .http1_only()
        .build()
        .unwrap();
    let url = format!("{}{V1}/jobs", server.base);
    let (status, _) = answer(client.get(url).header("X-Authentication", &server.token)).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_asked_does_not_keep_its_place() {
    let home = Home::new();
    let server = home.start(&Fleet::echo(&[])).await;
    let identity = Identity::load(&home.config().ssl).unwrap();
    let port = server.base.rsplit_once(':').unwrap().1.parse().unwrap();
    let mut connections = vec![];
    for protocol in ["h2", "http/1.1"] {
        let tls = identity.client_config(&[protocol.as_bytes()]).unwrap();
        let stream = TcpStream::connect(("localhost", port)).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let connected = TlsConnector::from(tls).connect(name, stream).await;
        connections.push((protocol, connected.unwrap()));
    }
    // When this is answered, the server has seen the ends of the handshakes.
    server.get("/status/v1/services").await;
    tokio::time::pause();
    for (protocol, mut connection) in connections {
        let read = async { while connection.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0) {} };
        let closed = tokio::time::timeout(Duration::from_secs(3600), read).await;
        assert!(closed.is_ok(), "{protocol}");
    }
}
