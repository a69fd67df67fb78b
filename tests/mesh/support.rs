//! What the tests of this folder share: a mesh of hosts, and what its brokers say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use lab::{Lab, Network, bin, skip, wait_until};
use serde_json::Value;

use crate::midway::{Midway, PATIENCE};
use crate::said::{json, results, text};

pub(crate) const PRIMARIES: [&str; 2] = ["primary", "primary-2"];
pub(crate) const COMPILERS: [&str; 2] = ["compiler-1", "compiler-2"];

/// Agents with an odd number have `compiler-1` as their first broker, the others `compiler-2`.
const AGENTS: usize = 4;

/// Two primaries, two compilers, an orchestrator at the first primary and four agents, each on a host
/// of its own; or nothing where this machine cannot have hosts, which is said.
pub(crate) fn mesh() -> Option<Lab> {
    if let Err(reason) = Network::possible() {
        skip("netns", &reason);
        return None;
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let lab = Lab::builder()
        .further_primaries(1)
        .compilers(2)
        .agents(AGENTS)
        .network()
        .modulepath(root.join("modules"))
        .modulepath(root.join("../packaging/lab-modules"))
        .start()
        .expect("the mesh starts");
    wait_one_truth(&lab);
    Some(lab)
}

pub(crate) fn network(lab: &Lab) -> &Network {
    lab.network().expect("it has hosts")
}

/// What `pcp-broker inventory` or `connections` says on the broker's host.
pub(crate) fn ask(lab: &Lab, broker: &str, view: &str) -> Result<Vec<Value>, String> {
    let config = lab.site().config(broker);
    let ask = || {
        Command::new(bin("pcp-broker"))
            .arg("--config")
            .arg(&config)
            .args([view, "--json"])
            .output()
    };
    let output = network(lab).on(broker, ask).expect("its host");
    let output = output.expect("pcp-broker starts");
    if !output.status.success() {
        return Err(format!("{broker}: {}", text(&output)));
    }
    match json(&output) {
        Value::Array(rows) => Ok(rows),
        other => Err(format!("{broker}: {other}")),
    }
}

/// The clients that a broker knows, each with the broker over which it is reached.
pub(crate) fn known(lab: &Lab, broker: &str) -> Result<BTreeMap<String, String>, String> {
    let rows = ask(lab, broker, "inventory")?;
    let word = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    Ok(rows
        .iter()
        .map(|row| (word(row, "uri"), word(row, "broker")))
        .collect())
}

/// The connection of a peer to a broker.
pub(crate) fn connection(lab: &Lab, broker: &str, uri: &str) -> Result<Value, String> {
    let rows = ask(lab, broker, "connections")?;
    let found = rows.iter().find(|row| row["uri"] == uri).cloned();
    found.ok_or_else(|| format!("{broker} has no {uri}, but {}", Value::from(rows)))
}

pub(crate) fn agent_uri(name: &str) -> String {
    format!("pcp://{name}/agent")
}

/// Waits until what a broker knows is as it should be.
pub(crate) fn wait_known(
    lab: &Lab,
    broker: &str,
    what: &str,
    fits: impl Fn(&BTreeMap<String, String>) -> bool,
) {
    wait_until(what, PATIENCE, || {
        let known = known(lab, broker)?;
        match fits(&known) {
            true => Ok(()),
            false => Err(format!("{broker} knows {known:?}")),
        }
    })
    .expect(what);
}

/// Waits until all brokers tell the same of the agents, each of which is at exactly one compiler, and
/// both primaries know the same clients. Gives the compiler of each agent.
pub(crate) fn wait_one_truth(lab: &Lab) -> BTreeMap<String, String> {
    wait_until("one truth", PATIENCE, || one_truth(lab)).expect("all brokers agree")
}

fn one_truth(lab: &Lab) -> Result<BTreeMap<String, String>, String> {
    let mut truth = BTreeMap::new();
    for compiler in COMPILERS {
        for (uri, broker) in known(lab, compiler)? {
            if broker != compiler {
                return Err(format!("{compiler} has {uri} from {broker}"));
            }
            if let Some(other) = truth.insert(uri.clone(), broker) {
                return Err(format!("{uri} is at {compiler} and at {other}"));
            }
        }
    }
    let expected: BTreeSet<_> = lab.agents().iter().map(|name| agent_uri(name)).collect();
    if !truth.keys().eq(&expected) {
        return Err(format!("the compilers have {truth:?}"));
    }
    let primaries: Vec<_> = PRIMARIES
        .iter()
        .map(|primary| known(lab, primary))
        .collect::<Result<_, _>>()?;
    for (primary, known) in PRIMARIES.iter().zip(&primaries) {
        let agents = known.iter().filter(|(uri, _)| uri.ends_with("/agent"));
        if !agents.eq(&truth) {
            return Err(format!("{primary} knows {known:?}, but it is {truth:?}"));
        }
    }
    if !primaries[0].keys().eq(primaries[1].keys()) {
        return Err(format!("the primaries know {primaries:?}"));
    }
    Ok(truth)
}

/// Waits until the orchestrator has the results of these nodes.
pub(crate) fn wait_finished(midway: &Midway<'_>, nodes: &[&str]) {
    wait_until("nodes have ended", PATIENCE, || {
        let items = midway.node_items();
        let finished = |name: &&&str| {
            let mut items = items.iter();
            items.any(|item| item["name"] == **name && item["state"] == "finished")
        };
        match nodes.iter().filter(finished).count() == nodes.len() {
            true => Ok(()),
            false => Err(midway.states()),
        }
    })
    .expect("they end");
}

/// Runs a task on all agents; all must succeed.
pub(crate) fn run_on_all(lab: &Lab, arguments: &[&str]) {
    let nodes = lab.agents().join(",");
    let mut all = vec!["run"];
    all.extend(arguments);
    all.extend(["--nodes", &nodes, "--format", "json"]);
    let output = lab.puppet_task(&all);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(results(&output).len(), AGENTS, "{}", text(&output));
}
