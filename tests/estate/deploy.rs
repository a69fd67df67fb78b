//! `puppet job run`: Puppet itself runs on the nodes, with catalogs of a real Puppet Server, and its
//! reports come to a real PuppetDB with the number of the job.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use lab::{Builder, Lab, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::rules::ask;
use crate::said::{json as document, text};
use crate::stack::Stack;
use crate::support::{NODES, PATIENCE, mesh, puppet};

/// All of [`NODES`], where each agent has the stack's Puppet as its node's.
fn nodes_with_puppet(stack: &Stack, dir: &TempDir) -> Builder {
    let mut builder = mesh(stack, NODES.len());
    for (number, certname) in NODES.iter().enumerate() {
        let program = dir.path().join(certname);
        let puppet = stack.value("PUPPET");
        // The catalogs need no plugins, and those of Debian's modules take minutes to be fetched.
        let text = format!("#!/bin/sh\nNODE={certname} exec {puppet} \"$@\" --pluginsignore '*'\n");
        fs::write(&program, text).expect("a file");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
        let agent = format!("agent-{}", number + 1);
        builder = builder.config(&agent, &format!("puppet-bin: {program:?}"));
    }
    builder
}

/// `puppet job run`: its exit code, the number of the job, and its nodes by name.
fn job(stack: &Stack, lab: &Lab, arguments: &[&str]) -> (Option<i32>, String, Value) {
    let run = [&["job", "run"], arguments, &["--format", "json"]].concat();
    let output = puppet(stack, lab, &run);
    let document = document(&output);
    let number = document["job_id"].as_str();
    let number = number.unwrap_or_else(|| panic!("no job: {}", text(&output)));
    let items = document["items"].as_array().expect("items").clone();
    let named = items.into_iter().map(|item| {
        let name = item["name"].as_str().expect("a name").to_owned();
        (name, item)
    });
    let nodes: BTreeMap<_, _> = named.collect();
    (output.status.code(), number.to_owned(), json!(nodes))
}

/// The reports of a job in PuppetDB, by certname, once all of `nodes` have theirs.
fn reports(stack: &Stack, job: &str, nodes: &[&str]) -> BTreeMap<String, Value> {
    let query = json!({"query": ["=", "job_id", job]});
    let look = || {
        let reports = ask(stack, "/pdb/query/v4/reports", &query);
        let reports = reports.as_array().cloned().unwrap_or_default();
        let named = reports.into_iter().map(|report| {
            let name = report["certname"].as_str().expect("a name").to_owned();
            (name, report)
        });
        let reports: BTreeMap<_, _> = named.collect();
        if nodes.iter().all(|node| reports.contains_key(*node)) {
            Ok(reports)
        } else {
            Err(format!("{:?}", reports.keys()))
        }
    };
    wait_until("the reports are in PuppetDB", PATIENCE, look)
        .unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn puppet_runs_on_the_nodes_and_its_reports_carry_the_job() {
    let Some(stack) = Stack::up() else { return };
    let dir = TempDir::new().expect("a temporary folder");
    let lab = nodes_with_puppet(&stack, &dir);
    let lab = lab.start().expect("the mesh starts");

    // One that changes something, one that does not, one whose resource fails.
    let nodes = ["web1.test", "idle1.test", "fail1.test"];
    let (code, number, items) = job(&stack, &lab, &["--nodes", &nodes.join(",")]);
    assert_eq!(code, Some(1), "{items:#}");
    let reports_of_job = reports(&stack, &number, &nodes);
    for (node, state, status) in [
        ("web1.test", "finished", "changed"),
        ("idle1.test", "finished", "unchanged"),
        ("fail1.test", "failed", "failed"),
    ] {
        let (item, report) = (&items[node], &reports_of_job[node]);
        assert_eq!(item["state"], state, "{item:#}");
        assert_eq!(item["results"]["status"], status, "{item:#}");
        assert_eq!(item["results"]["environment"], "production", "{item:#}");
        assert_eq!(report["status"], status, "{report:#}");
        assert_eq!(item["transaction_uuid"], report["transaction_uuid"]);
    }
    assert!(items["web1.test"]["results"]["metrics"]["changed"].as_u64() >= Some(1));

    // Only to look, and one after the other.
    let nodes = ["web1.test", "web2.test"];
    let list = nodes.join(",");
    let arguments = ["--nodes", &list, "--noop", "--concurrency", "1"];
    let (code, number, items) = job(&stack, &lab, &arguments);
    assert_eq!(code, Some(0), "{items:#}");
    let reports_of_job = reports(&stack, &number, &nodes);
    let mut spans = Vec::new();
    for node in nodes {
        let report = &reports_of_job[node];
        assert_eq!(report["noop"], true, "{report:#}");
        assert_eq!(report["noop_pending"], true, "{report:#}");
        let time = |key: &str| report[key].as_str().expect("a time").to_owned();
        spans.push((time("start_time"), time("end_time")));
    }
    spans.sort();
    assert!(spans[0].1 <= spans[1].0, "at once: {spans:?}");

    // In another environment, which has no class for anybody.
    let arguments = ["--nodes", "web1.test", "--environment", "broken"];
    let (code, number, items) = job(&stack, &lab, &arguments);
    assert_eq!(code, Some(0), "{items:#}");
    // What PuppetDB knew of the node before is noted in the job.
    let (_, told) = lab
        .api_get(&format!("jobs/{number}"))
        .expect("the API answers");
    let notes = told["options"]["notes"].as_array().expect("notes").clone();
    let has = |part: &str| {
        notes
            .iter()
            .filter_map(Value::as_str)
            .any(|it| it.contains(part))
    };
    assert!(has("agent versions: 7."), "{told:#}");
    assert!(has("1 node last seen in another environment"), "{told:#}");
    let results = &items["web1.test"]["results"];
    assert_eq!(results["environment"], "broken", "{items:#}");
    assert_eq!(results["status"], "unchanged", "{items:#}");

    // One that is not there is refused before anything runs.
    let arguments = ["job", "run", "--nodes", "web1.test", "-e", "nowhere"];
    let output = puppet(&stack, &lab, &arguments);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("nowhere"), "{}", text(&output));
}
