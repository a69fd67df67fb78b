//! A mesh in the stack: its certificates are of Puppet's CA, its tasks those of Puppet Server.

use std::process::Output;
use std::time::Duration;

use lab::{Builder, Lab, wait_until};
use serde_json::{Value, json};

use crate::said::{results, text};
use crate::stack::Stack;

/// The nodes on which agents run, `agent-1` on the first. PuppetDB knows the first three.
pub(crate) const NODES: [&str; 5] = [
    "web1.test",
    "web2.test",
    "db1.test",
    "idle1.test",
    "fail1.test",
];

/// Long enough for any job here, on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);

/// A mesh to be completed and started: a primary, a compiler, an orchestrator that knows the stack's
/// Puppet Server and PuppetDB, and agents on the first `agents` of [`NODES`].
pub(crate) fn mesh(stack: &Stack, agents: usize) -> Builder {
    let estate = estate(stack.value("PUPPET_URL"), stack.value("PUPPETDB_URL"));
    bare_mesh(stack, agents).config("orchestrator", &estate)
}

/// The same, but nobody has told the orchestrator where Puppet Server and PuppetDB are.
pub(crate) fn bare_mesh(stack: &Stack, agents: usize) -> Builder {
    mesh_as(stack, "orchestrator.test", agents)
}

/// The same, where the orchestrator has this certname.
pub(crate) fn mesh_as(stack: &Stack, orchestrator: &str, agents: usize) -> Builder {
    let names = ["agent-1", "agent-2", "agent-3", "agent-4", "agent-5"];
    let mut certnames = vec![
        ("primary", "broker1.test"),
        ("compiler-1", "compiler1.test"),
        ("orchestrator", orchestrator),
    ];
    certnames.extend(names.into_iter().zip(NODES).take(agents));
    Lab::builder()
        .certificates(stack.ssl_dir(), &certnames)
        .compilers(1)
        .agents(agents)
        .without_modules()
}

/// The orchestrator's configuration that names both services.
pub(crate) fn estate(puppet_server: &str, puppetdb: &str) -> String {
    format!("orchestrator {{ master-url: {puppet_server:?}, puppetdb-url: {puppetdb:?} }}")
}

/// Runs the stack's `puppet` as an operator of the lab: `puppet task …`.
pub(crate) fn puppet(stack: &Stack, lab: &Lab, arguments: &[&str]) -> Output {
    let mut command = lab.operator_command(stack.value("PUPPET"));
    command.args(arguments).output().expect("puppet starts")
}

/// `puppet task run`, which must succeed: the results by node.
pub(crate) fn run(stack: &Stack, lab: &Lab, arguments: &[&str]) -> Vec<(String, Value)> {
    let mut all = vec!["task", "run"];
    all.extend(arguments);
    all.extend(["--format", "json"]);
    let output = puppet(stack, lab, &all);
    assert_eq!(output.status.code(), Some(0), "{all:?}: {}", text(&output));
    results(&output)
}

/// The names of the nodes that have results.
pub(crate) fn nodes(results: &[(String, Value)]) -> Vec<&str> {
    results.iter().map(|(name, _)| name.as_str()).collect()
}

/// `POST command/task`, which must be accepted: the name of the job.
pub(crate) fn accepted(lab: &Lab, request: &Value) -> String {
    let (status, answer) = lab
        .api_post("command/task", request)
        .expect("the API answers");
    assert_eq!(status, 202, "{request}: {answer}");
    answer["job"]["name"].as_str().expect("a name").to_owned()
}

/// The same, which must be refused with this status and kind: the error.
pub(crate) fn refused(lab: &Lab, request: &Value, status: u16, kind: &str) -> Value {
    let (found, answer) = lab
        .api_post("command/task", request)
        .expect("the API answers");
    let kind = json!(format!("puppetlabs.orchestrator/{kind}"));
    assert!(
        found == status && answer["kind"] == kind,
        "{request}: {found} {answer:#}"
    );
    answer
}

/// The certnames of a job, in order, whatever has become of them.
pub(crate) fn nodes_of_job(lab: &Lab, job: &str) -> Vec<String> {
    let (_, nodes) = lab
        .api_get(&format!("jobs/{job}/nodes"))
        .expect("the API answers");
    let items = nodes["items"].as_array().expect("items");
    let name = |item: &Value| item["name"].as_str().expect("a name").to_owned();
    let mut names: Vec<_> = items.iter().map(name).collect();
    names.sort();
    names
}

/// Waits until a node of a job is in a state; gives the node.
pub(crate) fn wait_for_node(lab: &Lab, job: &str, certname: &str, state: &str) -> Value {
    let what = format!("{certname} is {state}");
    let path = format!("jobs/{job}/nodes");
    let look = || {
        let (_, nodes) = lab.api_get(&path).map_err(|error| error.to_string())?;
        let items = nodes["items"].as_array().cloned().unwrap_or_default();
        let node = items.into_iter().find(|item| item["name"] == certname);
        match node {
            Some(node) if node["state"] == state => Ok(node),
            other => Err(json!(other).to_string()),
        }
    };
    wait_until(&what, PATIENCE, look).unwrap_or_else(|error| panic!("{error}"))
}
