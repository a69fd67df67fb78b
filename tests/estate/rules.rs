//! Rules of node groups mean to a real PuppetDB what they mean to the classifier: over facts of every
//! kind, facts that a node has not, and nodes that are gone.

use std::fs;
use std::process::Command;

use lab::wait_until;
use serde_json::{Value, json};

use crate::stack::Stack;
use crate::support::{PATIENCE, accepted, mesh, nodes_of_job, refused};

/// Nodes of no other test begin so.
const OURS: &str = "^rule-";

#[test]
fn rules_mean_the_same_nodes_to_puppetdb() {
    let Some(stack) = Stack::up() else { return };
    let facts = [
        (
            "rule-a.test",
            json!({"cores": 4, "text": "4", "flag": true, "list": ["x", {"y": 1}],
                "os": {"name": "Debian", "release": {"major": "12"}}, "my fact": "v",
                "trusted": {"extensions": {"pp_role": "db"}}}),
        ),
        (
            "rule-b.test",
            json!({"cores": 16, "text": "16", "flag": "true", "list": ["y"],
                "os": {"name": "RedHat", "release": {"major": "9"}}, "load": 0.5,
                "trusted": {"extensions": {"pp_role": "web", "1.3.6.1.4.1.34380.1.2.1": "x"}}}),
        ),
        (
            "rule-c.test",
            json!({"bare": true, "trusted": {"extensions": {}}}),
        ),
        (
            "rule-d.test",
            json!({"cores": "8", "flag": false, "trusted": {"extensions": {}}}),
        ),
        ("rule-gone.test", json!({"cores": 4, "flag": true})),
    ];
    for (certname, values) in &facts {
        replace_facts(&stack, certname, values);
    }
    deactivate(&stack, "rule-gone.test");

    let fact = |name: &str| json!(["fact", name]);
    let cores = fact("cores");
    let major = json!(["fact", "os", "release", "major"]);
    let role = json!(["trusted", "extensions", "pp_role"]);
    let oid = json!(["trusted", "extensions", "1.3.6.1.4.1.34380.1.2.1"]);
    let cases = [
        (json!(["~", "name", "."]), "abcd"),
        // Numbers in order. What a fact holds as text is no number to PuppetDB.
        (json!([">", cores, "4"]), "b"),
        (json!([">=", cores, "4"]), "ab"),
        (json!(["<", cores, "16"]), "a"),
        (json!(["<=", cores, "16"]), "ab"),
        (json!(["<", fact("load"), "0.75"]), "b"),
        // A fact that is not there is in no relation to anything.
        (json!(["not", [">", cores, "4"]]), "acd"),
        (json!(["not", ["<", cores, "100"]]), "cd"),
        (json!(["not", ["=", cores, "4"]]), "bcd"),
        (json!(["not", ["~", ["fact", "os", "name"], "^Deb"]]), "bcd"),
        (
            json!(["not", ["not", ["~", ["fact", "os", "name"], "^Deb"]]]),
            "a",
        ),
        (
            json!([
                "not",
                ["and", ["=", fact("flag"), "true"], [">", cores, "4"]]
            ]),
            "acd",
        ),
        (
            json!([
                "not",
                [
                    "or",
                    ["=", fact("flag"), "true"],
                    ["=", fact("bare"), "true"]
                ]
            ]),
            "d",
        ),
        // Values are texts to the classifier, whatever they are to PuppetDB.
        (json!(["=", cores, "4"]), "a"),
        (json!(["=", cores, "8"]), "d"),
        (json!(["=", fact("text"), "4"]), "a"),
        (json!(["=", fact("flag"), "true"]), "ab"),
        (json!(["=", fact("flag"), "false"]), "d"),
        (json!(["=", fact("load"), "0.5"]), "b"),
        (json!(["=", major, "12"]), "a"),
        (json!(["~", major, "^[19]"]), "ab"),
        (json!(["~", ["fact", "os", "name"], "Hat"]), "b"),
        (json!(["~", cores, "^1"]), "b"),
        (json!(["~", fact("flag"), "^t"]), "ab"),
        // Values that are no numbers are in no relation to numbers.
        (json!([">", fact("flag"), "0"]), ""),
        (json!([">", fact("os"), "0"]), ""),
        (json!(["<", ["fact", "os", "name"], "0"]), ""),
        (json!(["not", [">", fact("flag"), "0"]]), "abcd"),
        // Ways into facts.
        (json!(["=", ["fact", "list", 0], "y"]), "b"),
        (json!(["=", ["fact", "list", 1, "y"], "1"]), "a"),
        (json!(["=", fact("my fact"), "v"]), "a"),
        (json!(["=", role, "web"]), "b"),
        (json!(["not", ["=", role, "web"]]), "acd"),
        (json!(["=", oid, "x"]), "b"),
        (
            json!(["or", ["=", "name", "rule-c.test"], ["=", role, "db"]]),
            "ac",
        ),
    ];
    let groups: Vec<Value> = cases
        .iter()
        .enumerate()
        .map(|(number, (rule, _))| {
            json!({"name": number.to_string(), "rule": ["and", ["~", "name", OURS], rule]})
        })
        .chain([json!({"name": "no number", "rule": [">", cores, "many"]})])
        .chain([json!({"name": "no regex", "rule": ["~", "name", "we(b"]})])
        .collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("groups.json");
    fs::write(&file, json!(groups).to_string()).expect("a writable folder");
    let lab = mesh(&stack, 0)
        .config(
            "orchestrator",
            &format!("orchestrator.node-groups-file: {file:?}"),
        )
        .start()
        .expect("the mesh starts");
    let request = |group: &str| json!({"task": "stacktest", "scope": {"node_group": group}});
    // All but the one that is gone.
    wait_for_facts(&stack, facts.len() - 1);
    let mut wrong = Vec::new();
    for (number, (rule, expected)) in cases.iter().enumerate() {
        if expected.is_empty() {
            refused(&lab, &request(&number.to_string()), 400, "empty-target");
            continue;
        }
        let job = accepted(&lab, &request(&number.to_string()));
        let nodes = nodes_of_job(&lab, &job);
        let letters: String = nodes
            .iter()
            .map(|node| node.trim_start_matches("rule-").trim_end_matches(".test"))
            .collect();
        if letters != *expected {
            wrong.push(format!("{rule}: {letters:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for group in ["no number", "no regex"] {
        let error = refused(&lab, &request(group), 400, "query-error");
        assert_eq!(error["details"]["node_group"], group, "{error:#}");
    }
}

/// Waits until PuppetDB has taken in all that it was sent: it answers at once and works later.
fn wait_for_facts(stack: &Stack, nodes: usize) {
    let has = |query: String, count: usize| {
        let rows = ask(stack, "/pdb/query/v4", &json!({ "query": query }));
        match rows.as_array() {
            Some(list) if list.len() == count => Ok(()),
            _ => Err(rows.to_string()),
        }
    };
    let settled = || {
        has(
            format!("inventory[certname] {{ certname ~ \"{OURS}\" }}"),
            nodes,
        )?;
        let gone =
            format!("nodes[certname] {{ certname ~ \"{OURS}\" and node_state = \"inactive\" }}");
        has(gone, 1)
    };
    wait_until("PuppetDB has the facts", PATIENCE, settled).unwrap_or_else(|e| panic!("{e}"));
}

fn replace_facts(stack: &Stack, certname: &str, values: &Value) {
    let facts = json!({"certname": certname, "environment": "production", "producer": null,
        "producer_timestamp": now(), "values": values});
    command(stack, "replace_facts", 5, certname, &facts);
}

fn deactivate(stack: &Stack, certname: &str) {
    let node = json!({"certname": certname, "producer_timestamp": now()});
    command(stack, "deactivate_node", 3, certname, &node);
}

fn command(stack: &Stack, command: &str, version: u8, certname: &str, body: &Value) {
    let path = format!("/pdb/cmd/v1?command={command}&version={version}&certname={certname}");
    let answer = ask(stack, &path, body);
    assert!(
        answer["uuid"].is_string(),
        "{command} of {certname}: {answer}"
    );
}

/// `POST` to PuppetDB as the orchestrator, whose allow-list lets it write, too.
pub(crate) fn ask(stack: &Stack, path: &str, body: &Value) -> Value {
    let of = |folder: &str| stack.ssl_dir().join(folder).join("orchestrator.test.pem");
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "60",
        ])
        .args(["--cacert", stack.value("CA_CERTS"), "--cert"])
        .arg(of("certs"))
        .arg("--key")
        .arg(of("private_keys"))
        .args([
            "--header",
            "Content-Type: application/json",
            "--data",
            &body.to_string(),
        ])
        .arg(format!("{}{path}", stack.value("PUPPETDB_URL")))
        .output()
        .expect("curl starts");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{path}: {error}: {}", crate::said::text(&output));
    })
}

/// RFC 3339, as PuppetDB orders what it is told by.
fn now() -> String {
    let output = Command::new("date").args(["--utc", "+%FT%T.%3NZ"]).output();
    let output = output.expect("date starts");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
