//! Puppet Server and PuppetDB go away and come back in the middle of a job: no job is lost, errors
//! say what is the matter, and work that needs neither goes on.

use std::fs;
use std::path::Path;

use lab::Lab;
use serde_json::{Value, json};

use crate::gate::Gate;
use crate::stack::Stack;
use crate::support::{PATIENCE, accepted, bare_mesh, estate, mesh, refused, wait_for_node};

/// A node may be away for longer than any outage here.
const PATIENT: &str = "orchestrator.pcp-timeout: 10m";

#[test]
fn work_that_needs_neither_service_goes_on_while_the_way_to_both_is_cut() {
    let Some(stack) = Stack::up() else { return };
    let server = Gate::to(stack.value("PUPPET_URL"));
    let puppetdb = Gate::to(stack.value("PUPPETDB_URL"));
    let lab = bare_mesh(&stack, 3)
        .config("orchestrator", &estate(&server.address, &puppetdb.address))
        .config("orchestrator", &on_disk())
        .config("orchestrator", PATIENT)
        .start()
        .expect("the mesh starts");
    let cut = || {
        server.shut();
        puppetdb.shut();
    };
    let mend = || {
        server.open();
        puppetdb.open();
    };
    outage(&stack, &lab, &server.address, &puppetdb.address, cut, mend);
}

#[test]
fn both_services_may_be_stopped_and_started_in_the_middle_of_a_job() {
    let Some(stack) = Stack::up_alone() else {
        return;
    };
    let lab = mesh(&stack, 3)
        .config("orchestrator", &on_disk())
        .config("orchestrator", PATIENT)
        .start()
        .expect("the mesh starts");
    let (server, puppetdb) = (stack.value("PUPPET_URL"), stack.value("PUPPETDB_URL"));
    outage(
        &stack,
        &lab,
        server,
        puppetdb,
        || stack.stop(),
        || stack.start(),
    );
}

/// One environment that needs no Puppet Server: the tests' own modules.
fn on_disk() -> String {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("modules");
    format!("orchestrator.environments.disk.modulepath: [{modules:?}]")
}

fn outage(
    stack: &Stack,
    lab: &Lab,
    server: &str,
    puppetdb: &str,
    cut: impl FnOnce(),
    mend: impl FnOnce(),
) {
    let module = stack.module("outage");
    let wait = "#!/bin/sh\nuntil [ -e \"$PT_gate\" ]; do sleep 0.05; done\necho done\n";
    module.task("wait.sh", wait);
    let (first, second) = (lab.dir().join("first"), lab.dir().join("second"));
    let request = |gate: &Path, scope: Value| json!({"task": "outage::wait", "params": {"gate": gate}, "scope": scope});
    let web = json!({"query": "nodes[certname] { certname ~ \"^web\" }"});

    // One node has begun; the other one is not there yet, and has none of the task's files.
    lab.stop("agent-2").expect("the agent ends");
    let job = accepted(lab, &request(&first, web.clone()));
    wait_for_node(lab, &job, "web1.test", "running");
    cut();

    let marks = lab.dir().join("marks");
    let on_disk = |scope: Value| {
        json!({"task": "probe::mark", "environment": "disk", "params": {"file": marks},
            "scope": scope})
    };
    let error = refused(lab, &on_disk(web.clone()), 400, "puppetdb-error");
    let said = error["msg"].as_str().expect("a text");
    let expected = format!("PuppetDB cannot be reached at {puppetdb}");
    assert!(said.starts_with(&expected), "{error:#}");
    // Of this task nothing has been asked before, and what is known of environments is soon stale.
    let unheard = json!({"task": "stacktest::hello", "scope": {"nodes": ["db1.test"]}});
    let error = refused(lab, &unheard, 503, "unavailable");
    let said = error["msg"].as_str().expect("a text");
    let expected = format!("Puppet Server cannot be reached at {server}");
    assert!(said.starts_with(&expected), "{error:#}");

    // What needs neither: reading, tasks on disk, nodes that come late to a job that has begun.
    let (status, jobs) = lab.api_get("jobs").expect("the API answers");
    assert_eq!(
        (status, jobs["items"].as_array().map(Vec::len)),
        (200, Some(1))
    );
    let mark = accepted(lab, &on_disk(json!({"nodes": ["db1.test"]})));
    wait_for_node(lab, &mark, "db1.test", "finished");
    // Not even an orchestrator that dies now needs them to go on where it was.
    lab.kill("orchestrator")
        .expect("the orchestrator is killed");
    lab.restart("orchestrator")
        .expect("the orchestrator starts again");
    lab.restart("agent-2").expect("the agent starts again");
    wait_for_node(lab, &job, "web2.test", "running");
    fs::write(&first, "").expect("a writable lab");
    for node in ["web1.test", "web2.test"] {
        let node = wait_for_node(lab, &job, node, "finished");
        assert_eq!(node["result"], json!({"_output": "done\n"}), "{node:#}");
    }

    mend();
    fs::write(&second, "").expect("a writable lab");
    let again = lab::wait_until("jobs are taken on again", PATIENCE, || {
        match lab.api_post("command/task", &request(&second, web.clone())) {
            Ok((202, answer)) => Ok(answer),
            Ok((status, answer)) => Err(format!("{status} {answer}")),
            Err(error) => Err(error.to_string()),
        }
    });
    let again = again.unwrap_or_else(|error| panic!("{error}"));
    let again = again["job"]["name"].as_str().expect("a name");
    for node in ["web1.test", "web2.test"] {
        wait_for_node(lab, again, node, "finished");
    }
}
