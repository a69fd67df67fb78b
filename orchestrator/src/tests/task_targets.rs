//! Task targets: what is made, what it lets whom do, and what it does not.

use reqwest::Method;
use serde_json::{Value, json};

use super::fleet::Fleet;
use super::{Home, Server};

const V1: &str = "/orchestrator/v1";

async fn make(server: &Server, body: Value) -> String {
    let (status, made) = server
        .post(&format!("{V1}/command/task_target"), body)
        .await;
    assert_eq!(status, 200, "{made}");
    let name = made["task_target"]["name"].as_str().unwrap().to_owned();
    let id = made["task_target"]["id"].as_str().unwrap();
    assert!(
        id.ends_with(&format!("{V1}/scopes/task_targets/{name}")),
        "{id}"
    );
    name
}

#[tokio::test]
async fn a_task_target_is_made_shown_and_removed() {
    let home = Home::new();
    let server = home.start(&Fleet::echo(&["a"])).await;
    let path = format!("{V1}/scopes/task_targets");
    assert_eq!(server.get(&path).await, json!({"items": []}));
    let all = json!({"display_name": "web", "tasks": ["sample::hello", "no::such"],
        "nodes": ["a", "never"], "node_groups": ["00000000-0000-4000-8000-000000000000"],
        "pql_query": "nodes { certname ~ \"web\" }"});
    let name = make(&server, all.clone()).await;
    assert_eq!(name, "1");
    let mut shown = server.get(&format!("{path}/1")).await;
    assert_eq!(server.get(&path).await, json!({"items": [shown]}));
    for key in ["id", "name", "all_tasks"] {
        shown.as_object_mut().unwrap().remove(key).unwrap();
    }
    assert_eq!(shown, all);

    for (body, part) in [
        (json!({"nodes": [], "node_groups": []}), "all_tasks"),
        (
            json!({"tasks": [], "all_tasks": false, "nodes": [], "node_groups": []}),
            "all_tasks",
        ),
        (json!({"all_tasks": true, "node_groups": []}), "nodes"),
        (json!({"all_tasks": true, "nodes": []}), "node_groups"),
        (
            json!({"all_tasks": true, "nodes": ["a b"], "node_groups": []}),
            "a b",
        ),
        (
            json!({"tasks": [""], "nodes": [], "node_groups": []}),
            "empty",
        ),
        (
            json!({"all_tasks": true, "nodes": [], "node_groups": [], "x": 1}),
            "x",
        ),
    ] {
        let (status, error) = server
            .post(&format!("{V1}/command/task_target"), body)
            .await;
        assert_eq!(status, 400, "{error}");
        assert_eq!(error["kind"], "puppetlabs.orchestrator/validation-error");
        assert!(error["msg"].as_str().unwrap().contains(part), "{error}");
    }
    let gone = async |name: &str, status: u16, kind: &str| {
        let path = format!("{path}/{name}");
        for method in [Method::GET, Method::DELETE] {
            let (is, error) = server.call(method, &path, None).await;
            assert_eq!(is, status, "{error}");
            assert_eq!(error["kind"], format!("puppetlabs.orchestrator/{kind}"));
        }
    };
    gone("7", 404, "unknown-task-target").await;
    gone("web", 400, "validation-error").await;
    let (status, _) = server
        .call(Method::DELETE, &format!("{path}/1"), None)
        .await;
    assert_eq!(status, 200);
    gone("1", 404, "unknown-task-target").await;
    // A number is not given twice: somebody may still have a permission for it.
    let body = json!({"all_tasks": true, "nodes": [], "node_groups": []});
    assert_eq!(make(&server, body).await, "2");
}

#[tokio::test]
async fn a_role_with_a_task_target_runs_its_tasks_on_its_nodes_and_nothing_else() {
    let mut home = Home::new();
    let groups = home.path("groups.conf");
    let file = json!([{"id": "11111111-0000-4000-8000-000000000000", "name": "webs",
        "rule": ["~", "name", "^web"]}]);
    std::fs::write(&groups, file.to_string()).unwrap();
    home.more = format!(
        "orchestrator.node-groups-file: {:?}",
        groups.display().to_string()
    );
    home.admins(&[
        "role add some",
        "role grant some task_target:run_with_constraints --task-target 1",
        "user add bob --role some",
        "user add otto --role Operators",
    ])
    .await;
    let server = home.start(&Fleet::echo(&["a", "web1", "b"])).await;
    let bob = server.token_of("bob").await;
    // The number alone permits nothing.
    assert_eq!(server.task(&bob, "sample::hello", &["a"]).await.0, 403);
    let target = json!({"tasks": ["sample::hello"], "nodes": ["a"],
        "node_groups": ["11111111-0000-4000-8000-000000000000"]});
    make(&server, target).await;

    super::api::known(&server, "web1", true).await;
    let (status, accepted) = server
        .task(&bob, "sample::hello", &["a", "web1", "b"])
        .await;
    assert_eq!(status, 202, "{accepted}");
    let job = accepted["job"]["name"].as_str().unwrap();
    let seen = server.end(job).await;
    assert_eq!(seen["node_count"], 2, "{seen}");
    let note = "1 node is left out, where bob may not run sample::hello: b";
    assert_eq!(seen["options"]["notes"], json!([note]));
    assert_eq!(server.task(&bob, "sample::hello", &["b"]).await.0, 403);
    assert_eq!(server.task(&bob, "sample::typed", &["a"]).await.0, 403);
    let (_, tasks) = server
        .call_as(Some(&bob), Method::GET, &format!("{V1}/tasks"), None)
        .await;
    let permitted = |name: &str| {
        let items = tasks["items"].as_array().unwrap();
        items.iter().find(|it| it["name"] == name).unwrap()["permitted"] == true
    };
    assert!(
        permitted("sample::hello") && !permitted("sample::typed"),
        "{tasks}"
    );

    // Who runs everything makes no task targets, and who has one does not see them.
    let otto = server.token_of("otto").await;
    let body = json!({"all_tasks": true, "nodes": [], "node_groups": []});
    let path = format!("{V1}/command/task_target");
    let made = server
        .call_as(Some(&otto), Method::POST, &path, Some(body))
        .await;
    assert_eq!(made.0, 403, "{made:?}");
    let path = format!("{V1}/scopes/task_targets");
    assert_eq!(
        server.call_as(Some(&bob), Method::GET, &path, None).await.0,
        403
    );
    assert_eq!(
        server
            .call_as(Some(&otto), Method::GET, &path, None)
            .await
            .0,
        200
    );
    let path = format!("{path}/1");
    let kept = server
        .call_as(Some(&otto), Method::DELETE, &path, None)
        .await;
    assert_eq!(kept.0, 403, "{kept:?}");
    assert_eq!(server.call(Method::DELETE, &path, None).await.0, 200);
    assert_eq!(server.task(&bob, "sample::hello", &["a"]).await.0, 403);
}

#[tokio::test]
async fn a_query_of_a_task_target_that_cannot_be_asked_permits_nobody_and_says_so() {
    let home = Home::new();
    home.admins(&[
        "role add some",
        "role grant some task_target:run_with_constraints --task-target 1",
        "user add bob --role some",
    ])
    .await;
    let server = home.start(&Fleet::echo(&["a", "b"])).await;
    let bob = server.token_of("bob").await;
    let target = json!({"all_tasks": true, "nodes": ["a"], "node_groups": [],
        "pql_query": "nodes { }"});
    make(&server, target).await;
    let (status, refused) = server.task(&bob, "sample::hello", &["a", "b"]).await;
    assert_eq!(status, 400, "{refused}");
    assert_eq!(refused["kind"], "puppetlabs.orchestrator/puppetdb-error");
    assert_eq!(refused["details"]["task_target"], "1");
}
