//! Which nodes a scope means, asked of a real PuppetDB.

use std::fs;

use lab::Lab;
use serde_json::{Value, json};

use crate::played::{Answer, play};
use crate::said::text;
use crate::stack::Stack;
use crate::support::{bare_mesh, estate, mesh, nodes, puppet, refused, run};

const ALL_NODES: &str = "00000000-0000-4000-8000-000000000000";

#[test]
fn a_task_of_puppet_server_runs_on_the_nodes_of_a_query() {
    let Some(stack) = Stack::up() else { return };
    let lab = mesh(&stack, 4).start().expect("the mesh starts");
    let hello = |scope: &[&str]| {
        let mut arguments = vec!["stacktest::hello", "name=fleet"];
        arguments.extend(scope);
        run(&stack, &lab, &arguments)
    };
    let query = r#"inventory[certname] { certname ~ "^web" }"#;
    let greeting = json!({"greeting": "hello fleet", "task": "stacktest::hello", "noop": ""});
    let expected = ["web1.test", "web2.test"].map(|name| (name.to_owned(), greeting.clone()));
    assert_eq!(hello(&["--query", query]), expected);

    let file = lab.dir().join("query");
    fs::write(
        &file,
        "facts[certname] { name = \"kernel\"\n and certname ~ \"b1\" }\n",
    )
    .expect("a writable lab");
    let at = format!("@{}", file.display());
    assert_eq!(nodes(&hello(&["--query", &at])), ["db1.test", "web1.test"]);

    // Nodes that are named need not be known to PuppetDB.
    let results = hello(&["--nodes", "idle1.test,db1.test"]);
    assert_eq!(nodes(&results), ["db1.test", "idle1.test"]);
    let file = lab.dir().join("nodes");
    fs::write(&file, "web2.test\nidle1.test\n").expect("a writable lab");
    let at = format!("@{}", file.display());
    assert_eq!(
        nodes(&hello(&["--nodes", &at])),
        ["idle1.test", "web2.test"]
    );
}

#[test]
fn a_group_of_a_file_means_the_nodes_of_its_rules() {
    let Some(stack) = Stack::up() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("groups.json");
    // Every node of the stack is this host: certnames are the facts in which they differ.
    let name = ["trusted", "certname"];
    let groups = json!([
        {"id": ALL_NODES, "name": "All Nodes", "parent": ALL_NODES, "rule": ["~", "name", ".*"]},
        {"name": "linux", "parent": ALL_NODES, "rule": ["=", ["fact", "kernel"], "Linux"]},
        {"name": "web", "parent": "linux", "rule": ["and", ["~", name, "^web"],
            ["not", ["=", ["fact", "os", "name"], "windows"]]]},
        {"name": "pinned", "parent": "linux", "rule": ["or", ["=", "name", "web1.test"],
            ["=", "name", "db1.test"]]},
        {"name": "empty", "parent": "web", "rule": ["=", name, "db1.test"]},
        {"name": "folder", "parent": ALL_NODES},
    ]);
    fs::write(&file, groups.to_string()).expect("a writable folder");
    let config = format!("orchestrator.node-groups-file: {file:?}");
    let lab = mesh(&stack, 3)
        .config("orchestrator", &config)
        .start()
        .expect("the mesh starts");
    let group = |group: &str| run(&stack, &lab, &["stacktest::hello", "--node-group", group]);
    assert_eq!(nodes(&group("web")), ["web1.test", "web2.test"]);
    assert_eq!(nodes(&group("pinned")), ["db1.test", "web1.test"]);
    for (group, status, kind) in [
        ("empty", 400, "empty-target"),
        ("folder", 400, "empty-target"),
        ("nowhere", 404, "unknown-node-group"),
    ] {
        let error = refused(&lab, &hello(&json!({"node_group": group})), status, kind);
        assert_eq!(error["details"]["node_group"], group, "{error:#}");
    }
}

#[test]
fn a_group_of_a_classifier_means_the_nodes_of_its_translation() {
    let Some(stack) = Stack::up() else { return };
    let (web, broken) = (
        "6c1f1a3e-0000-4000-8000-000000000001",
        "6c1f1a3e-0000-4000-8000-000000000002",
    );
    let rule = json!(["and", ["~", "name", "^web"], ["~", "name", ".*"]]);
    let classifier = play(&stack, move |request| {
        let odd = json!(["=", ["fact", "odd"], "1"]);
        match request.line.as_str() {
            line if line == format!("GET /classifier-api/v1/groups/{web}/rules") => {
                Answer::json(&json!({"rule": rule[1], "rule_with_inherited": rule,
                    "translated": {}}))
            }
            line if line == format!("GET /classifier-api/v1/groups/{broken}/rules") => {
                Answer::json(&json!({"rule": odd, "rule_with_inherited": odd}))
            }
            "POST /classifier-api/v1/rules/translate?format=inventory" => {
                if serde_json::from_str(&request.body).ok().as_ref() == Some(&rule) {
                    Answer::json(&json!([
                        "and",
                        ["~", "certname", "^web"],
                        ["~", "certname", ".*"]
                    ]))
                } else {
                    let error =
                        json!({"kind": "untranslatable-rule", "msg": "cannot be expressed"});
                    Answer::json(&error).with_status(422)
                }
            }
            _ => Answer::json(&json!({"kind": "not-found", "msg": "?"})).with_status(404),
        }
    });
    let config = format!("orchestrator.classifier-service: \"{classifier}/classifier-api\"");
    let lab = mesh(&stack, 2)
        .config("orchestrator", &config)
        .start()
        .expect("the mesh starts");
    let results = run(&stack, &lab, &["stacktest::hello", "--node-group", web]);
    assert_eq!(nodes(&results), ["web1.test", "web2.test"]);
    for (group, status, kind) in [
        (broken, 400, "query-error"),
        (ALL_NODES, 404, "unknown-node-group"),
        ("web", 400, "validation-error"),
    ] {
        let error = refused(&lab, &hello(&json!({"node_group": group})), status, kind);
        assert_eq!(error["details"]["node_group"], group, "{error:#}");
    }
}

#[test]
fn nodes_that_the_caller_may_not_use_are_left_out_and_named() {
    let Some(stack) = Stack::up() else { return };
    let lab = mesh(&stack, 3).start().expect("the mesh starts");
    administer(&lab, &["role", "add", "webmasters"]);
    administer(
        &lab,
        &[
            "role",
            "grant",
            "webmasters",
            "tasks:run",
            "--nodes",
            "web*",
        ],
    );
    administer(&lab, &["role", "grant", "webmasters", "orchestrator:view"]);
    administer(
        &lab,
        &[
            "user",
            "add",
            "wendy",
            "--no-password",
            "--role",
            "webmasters",
        ],
    );
    let token = administer(&lab, &["create-token", "wendy"]);
    let file = lab.dir().join("wendy");
    fs::write(&file, token).expect("a writable lab");
    let file = file.display().to_string();
    let as_wendy = |query: &str| {
        let run = [
            "task",
            "run",
            "stacktest::hello",
            "--token-file",
            &file,
            "--query",
            query,
        ];
        puppet(&stack, &lab, &run)
    };
    let output = as_wendy("nodes[certname] { certname ~ \"^(web|db)\" }");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let said = text(&output);
    assert!(said.contains("2/2 nodes succeeded"), "{said}");
    assert!(
        said.contains("db1.test"),
        "who is left out is named: {said}"
    );

    let output = as_wendy("nodes[certname] { certname ~ \"^db\" }");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("wendy may not run stacktest::hello"),
        "{}",
        text(&output)
    );
}

#[test]
fn an_answer_of_fifty_thousand_nodes_is_read_as_it_comes() {
    const NODES: usize = 50_000;
    /// What PuppetDB may say of a node beside its name.
    const MORE: usize = 2048;
    let Some(stack) = Stack::up() else { return };
    let puppetdb = play(&stack, |_| {
        let more = "x".repeat(MORE);
        let row = move |n: usize| {
            let start = if n == 0 { "[" } else { "," };
            format!("{start}{{\"certname\": \"node{n}.test\", \"more\": \"{more}\"}}")
        };
        let rows = (0..NODES).map(row).chain(["]".to_owned()]);
        Answer {
            status: 200,
            body: Box::new(rows),
        }
    });
    let config = estate(stack.value("PUPPET_URL"), &puppetdb);
    let lab = bare_mesh(&stack, 0)
        .config("orchestrator", &config)
        .start()
        .expect("the mesh starts");
    let before = peak(&lab);
    // The nodes are all found, and then there is a fault that keeps the job from being made.
    let request = json!({"task": "stacktest::hello", "params": {"name": ["no text"]},
        "scope": {"query": "nodes[certname] {}"}});
    refused(&lab, &request, 400, "validation-error");
    let grown = peak(&lab) - before;
    // 100 MiB have been read. Fifty thousand certnames, each twice, are some 5 MiB.
    assert!(grown < 40 << 10, "{grown} KiB for {NODES} nodes");
}

/// The most memory that the orchestrator has had so far, in KiB.
fn peak(lab: &Lab) -> u64 {
    let pid = lab.pid("orchestrator").expect("a running orchestrator");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.expect("a peak")
}

/// `pxp-orchestrator …` beside the running one: what it has printed.
fn administer(lab: &Lab, arguments: &[&str]) -> String {
    let config = lab.site().config("orchestrator");
    let output = lab
        .operator_command("pxp-orchestrator")
        .arg("--config")
        .arg(config.parent().expect("a folder"))
        .args(arguments)
        .output()
        .expect("pxp-orchestrator starts");
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A request that has no fault but perhaps its scope.
fn hello(scope: &Value) -> Value {
    json!({"task": "stacktest::hello", "scope": scope})
}
