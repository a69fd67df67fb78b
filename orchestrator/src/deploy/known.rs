//! What a caller should know before Puppet runs: nodes that PuppetDB does not know, agents that are
//! old, nodes that were in another environment. Notes in the job; nothing is refused for them.

use std::collections::{BTreeMap, HashMap};

use pcp::uri::Certname;

use crate::puppetdb::known::KnownNode;

/// The oldest Puppet that today's servers and this software are tried with.
const OLDEST: u32 = 7;

/// How many nodes are named in a note.
const NAMED: usize = 10;

/// The notes about these nodes; `environment` is the one that is enforced.
pub(crate) fn notes(
    nodes: &[Certname],
    known: &HashMap<Certname, KnownNode>,
    environment: Option<&str>,
) -> Vec<String> {
    let mut unknown = vec![];
    let mut old = vec![];
    let mut elsewhere = vec![];
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for certname in nodes {
        let Some(node) = known.get(certname) else {
            unknown.push(certname);
            continue;
        };
        if let Some(version) = node.agent_version.as_deref() {
            *versions.entry(version).or_default() += 1;
            if major(version).is_some_and(|major| major < OLDEST) {
                old.push(certname);
            }
        }
        let is_elsewhere = environment
            .zip(node.environment.as_deref())
            .is_some_and(|(enforced, last)| enforced != last);
        if is_elsewhere {
            elsewhere.push(certname);
        }
    }
    let mut notes = vec![];
    if !versions.is_empty() {
        let counts = versions
            .iter()
            .map(|(version, n)| format!("{version} ({n})"));
        let counts: Vec<_> = counts.collect();
        notes.push(format!("agent versions: {}", counts.join(", ")));
    }
    let warnings = [
        (unknown, "not known to PuppetDB".to_owned()),
        (old, format!("with an agent older than Puppet {OLDEST}")),
        (
            elsewhere,
            "last seen in another environment, which the node's classification may insist on"
                .to_owned(),
        ),
    ];
    for (nodes, what) in warnings {
        notes.extend(warning(&nodes, &what));
    }
    notes
}

fn warning(nodes: &[&Certname], what: &str) -> Option<String> {
    let count = nodes.len();
    let mut names: Vec<String> = nodes.iter().take(NAMED).map(ToString::to_string).collect();
    if count > NAMED {
        names.push(format!("and {} more", count - NAMED));
    }
    let nodes = if count == 1 { "node" } else { "nodes" };
    (count > 0).then(|| format!("{count} {nodes} {what}: {}", names.join(", ")))
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_note_says_how_many_and_which() {
        let name = |text: &str| Certname::parse(text).unwrap();
        let node = |version: &str, environment: &str| KnownNode {
            agent_version: Some(version.to_owned()),
            environment: Some(environment.to_owned()),
        };
        let known = HashMap::from([
            (name("a"), node("8.5.1", "production")),
            (name("b"), node("8.5.1", "dev")),
            (name("c"), node("5.5.22", "production")),
        ]);
        let nodes = ["a", "b", "c", "d"].map(name);
        assert_eq!(
            notes(&nodes, &known, Some("production")),
            [
                "agent versions: 5.5.22 (1), 8.5.1 (2)",
                "1 node not known to PuppetDB: d",
                "1 node with an agent older than Puppet 7: c",
                "1 node last seen in another environment, which the node's classification may \
                 insist on: b",
            ]
        );
        assert_eq!(
            notes(&nodes[..1], &known, None),
            ["agent versions: 8.5.1 (1)"]
        );
        let many: Vec<_> = (0..12).map(|n| name(&format!("n{n}"))).collect();
        let note = notes(&many, &known, None).pop().unwrap();
        assert!(
            note.starts_with("12 nodes not known") && note.ends_with("and 2 more"),
            "{note}"
        );
    }
}
