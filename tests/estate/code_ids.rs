//! Versioned code: Puppet Server names the id of an environment's code with each file, and a job runs
//! the files of the id that it began with, whatever is deployed meanwhile.

use std::fs;
use std::path::Path;

use lab::wait_until;
use serde_json::json;

use crate::stack::Stack;
use crate::support::{PATIENCE, accepted, mesh, run, wait_for_node};

/// The environment whose code has ids (`stack/up`).
const ENVIRONMENT: &str = "versioned";

/// Deploys code whose task tells this id, and waits for a gate if it is given one.
fn deploy(stack: &Stack, id: &str) {
    let environments = Path::new(stack.value("ENVIRONMENTS_DIR"));
    let versions = environments.join("../versions");
    let script = format!(
        "#!/bin/sh\nwhile [ -n \"$PT_gate\" ] && [ ! -e \"$PT_gate\" ]; do sleep 0.1; done\n\
         echo '{{\"code\": \"{id}\"}}'\n"
    );
    for root in [versions.join(id), environments.join(ENVIRONMENT)] {
        let tasks = root.join("modules/stackcode/tasks");
        fs::create_dir_all(&tasks).expect("a writable stack");
        let new = root.join("new");
        fs::write(&new, &script).expect("a writable stack");
        fs::rename(new, tasks.join("which.sh")).expect("a writable stack");
    }
    let new = versions.join("new");
    fs::write(&new, id).expect("a writable stack");
    fs::rename(new, versions.join("now")).expect("a writable stack");
}

#[test]
fn a_job_runs_the_code_that_it_began_with_whatever_is_deployed_meanwhile() {
    let Some(stack) = Stack::up() else { return };
    deploy(&stack, "first");
    let lab = mesh(&stack, 2).start().expect("the mesh starts");
    let path = format!("tasks/stackcode/which?environment={ENVIRONMENT}");
    let (status, task) = lab.api_get(&path).expect("the API answers");
    assert_eq!(status, 200, "{task:#}");
    let uri = &task["files"][0]["uri"];
    let place = uri["path"].as_str().expect("a path");
    assert!(
        place.starts_with("/puppet/v3/static_file_content/"),
        "{uri}"
    );
    assert_eq!(uri["params"]["code_id"], "first", "{uri}");

    // The second node's turn comes when other code is deployed.
    let gate = lab.dir().join("gate");
    let job = accepted(
        &lab,
        &json!({"task": "stackcode::which", "environment": ENVIRONMENT, "concurrency": 1,
            "params": {"gate": gate}, "scope": {"nodes": ["web1.test", "web2.test"]}}),
    );
    let running = || match lab.api_get(&format!("jobs/{job}/nodes")) {
        Ok((200, nodes)) => {
            let items = nodes["items"].as_array().cloned().unwrap_or_default();
            let in_state = |state| items.iter().filter(|node| node["state"] == state).count();
            match (in_state("running"), in_state("ready")) {
                (1, 1) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        }
        other => Err(format!("{other:?}")),
    };
    wait_until("one runs and one waits", PATIENCE, running).expect("a running job");
    deploy(&stack, "second");
    fs::write(&gate, "").expect("a writable lab");
    for node in ["web1.test", "web2.test"] {
        let node = wait_for_node(&lab, &job, node, "finished");
        assert_eq!(node["result"], json!({"code": "first"}), "{node:#}");
    }
    // A new job has the new code, once what Puppet Server said of the task is not used again any more.
    let deployed = || match lab.api_get(&path) {
        Ok((200, task)) if task["files"][0]["uri"]["params"]["code_id"] == "second" => Ok(()),
        other => Err(format!("{other:?}")),
    };
    wait_until("the new code is known", PATIENCE, deployed).expect("the new code");
    let arguments = [
        "stackcode::which",
        "-e",
        ENVIRONMENT,
        "-n",
        "web1.test,web2.test",
    ];
    for (_, result) in run(&stack, &lab, &arguments) {
        assert_eq!(result, json!({"code": "second"}));
    }
}
