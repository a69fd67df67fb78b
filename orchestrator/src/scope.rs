//! Which nodes a scope means: those that it names, those of a query, those of a node group.

use std::collections::HashSet;

use orchestrator_api::{ApiError, ErrorKind, Scope};
use pcp::uri::Certname;
use serde_json::json;

use crate::classifier::{GroupError, Meaning, Rule};
use crate::estate::Estate;
use crate::grant::NodeFilter;
use crate::puppetdb::{PuppetDbError, Query};

/// The nodes of a scope, each once: in the order in which they are named, or in which PuppetDB has
/// them. `connected` gives the nodes that are connected; it is asked for groups that are decided by
/// names alone, where there is no PuppetDB.
///
/// # Errors
/// The answer to the caller, of its own kind for each fault: a name that is none, a bad query, an
/// unknown group, no nodes at all, a service that is needed and does not answer or is not there.
pub(crate) async fn resolve(
    scope: &Scope,
    estate: &Estate,
    connected: impl Future<Output = Result<Vec<Certname>, ApiError>>,
) -> Result<Vec<Certname>, ApiError> {
    match scope {
        Scope::Nodes(names) => nodes(names),
        Scope::Query(query) => {
            let nodes = matches(query.clone(), estate).await?;
            somebody(nodes, "the query matches no nodes", "query", query)
        }
        Scope::NodeGroup(group) => {
            let nodes = members(group, estate, connected).await;
            let nodes = nodes.map_err(|error| error.with("node_group", group.as_str()))?;
            somebody(nodes, "the node group has no nodes", "node_group", group)
        }
    }
}

fn somebody(
    nodes: Vec<Certname>,
    problem: &str,
    key: &str,
    value: &str,
) -> Result<Vec<Certname>, ApiError> {
    if nodes.is_empty() {
        return Err(ApiError::new(ErrorKind::EmptyTarget, problem).with(key, value));
    }
    Ok(nodes)
}

/// The nodes of a group: none when its rule means nobody.
async fn members(
    group: &str,
    estate: &Estate,
    connected: impl Future<Output = Result<Vec<Certname>, ApiError>>,
) -> Result<Vec<Certname>, ApiError> {
    let Some(groups) = &estate.groups else {
        let msg = "no node groups are configured: name the nodes, or set classifier-service or \
                   node-groups-file";
        return Err(ApiError::new(ErrorKind::UnknownNodeGroup, msg));
    };
    let meaning = groups
        .meaning(group)
        .await
        .map_err(|error| group_error(&error))?;
    match (&estate.puppetdb, meaning) {
        (_, Meaning::Nobody) => Ok(vec![]),
        (None, Meaning::Rule(rule)) if rule.needs_names_only() => {
            Ok(named(&rule, connected.await?))
        }
        (None, _) => {
            let msg = "no PuppetDB is configured, and the node group is not decided by names \
                       alone: name the nodes, or set puppetdb-url";
            Err(ApiError::new(ErrorKind::PuppetdbError, msg))
        }
        (Some(puppetdb), meaning) => {
            let Some(condition) = meaning
                .inventory(group)
                .map_err(|error| group_error(&error))?
            else {
                return Ok(vec![]);
            };
            // Some versions keep nodes that are deactivated or have expired in the inventory, where
            // none lets itself be asked about that.
            let active = json!([
                "in",
                "certname",
                [
                    "from",
                    "nodes",
                    ["extract", "certname", ["=", "node_state", "active"]]
                ]
            ]);
            let tree = json!([
                "from",
                "inventory",
                ["extract", ["certname"], ["and", condition, active]]
            ]);
            let found = puppetdb.certnames(&Query::Ast(tree)).await;
            found.map_err(puppetdb_error)
        }
    }
}

/// Looks up the nodes of the task targets that a caller may use, as long as some of `nodes` are not
/// permitted otherwise.
///
/// # Errors
/// The answer to the caller: a service that is needed does not answer, or knows no such group.
pub(crate) async fn permit_targets<F>(
    permitted: &mut NodeFilter,
    nodes: &[Certname],
    estate: &Estate,
    connected: impl Fn() -> F,
) -> Result<(), ApiError>
where
    F: Future<Output = Result<Vec<Certname>, ApiError>>,
{
    for (id, target) in permitted.take_targets() {
        if nodes.iter().all(|node| permitted.allows(node)) {
            return Ok(());
        }
        let of_target = |error: ApiError| error.with("task_target", id.to_string());
        permitted.add(target.nodes);
        for group in &target.node_groups {
            let members = members(group, estate, connected()).await;
            permitted.add(members.map_err(of_target)?);
        }
        if let Some(query) = target.query {
            permitted.add(matches(query, estate).await.map_err(of_target)?);
        }
    }
    Ok(())
}

/// The nodes of a query.
async fn matches(query: String, estate: &Estate) -> Result<Vec<Certname>, ApiError> {
    let Some(puppetdb) = &estate.puppetdb else {
        let msg = "no PuppetDB is configured, so a query cannot be answered: name the nodes, or \
                   set puppetdb-url";
        return Err(ApiError::new(ErrorKind::PuppetdbError, msg).with("query", query));
    };
    let found = puppetdb.certnames(&Query::Pql(query.clone())).await;
    found.map_err(|error| puppetdb_error(error).with("query", query))
}

fn named(rule: &Rule, connected: Vec<Certname>) -> Vec<Certname> {
    let mut nodes = connected;
    nodes.retain(|node| rule.matches_name(&node.to_string()));
    nodes
}

fn nodes(names: &[String]) -> Result<Vec<Certname>, ApiError> {
    let mut seen = HashSet::new();
    let mut nodes = vec![];
    let mut bad = vec![];
    for name in names {
        match Certname::parse(name) {
            Ok(certname) => {
                if seen.insert(certname.clone()) {
                    nodes.push(certname);
                }
            }
            Err(_) => bad.push(name.as_str()),
        }
    }
    if let Some(first) = bad.first() {
        let msg = format!("{first:?} is not a certname");
        return Err(ApiError::new(ErrorKind::ValidationError, msg).with("nodes", bad));
    }
    if nodes.is_empty() {
        let msg = "the scope has no nodes";
        return Err(ApiError::new(ErrorKind::EmptyTarget, msg));
    }
    Ok(nodes)
}

/// What the caller is told of PuppetDB's answer. What an operator must act on is in the log, too.
pub(crate) fn puppetdb_error(error: PuppetDbError) -> ApiError {
    match error {
        PuppetDbError::Query(reason) => ApiError::new(ErrorKind::QueryError, reason),
        PuppetDbError::Service(error) => {
            let msg = error.with_remedy();
            tracing::warn!(error = msg, "no answer from PuppetDB");
            ApiError::new(ErrorKind::PuppetdbError, msg)
        }
    }
}

fn group_error(error: &GroupError) -> ApiError {
    let kind = match error {
        GroupError::Unknown(_) => ErrorKind::UnknownNodeGroup,
        GroupError::Malformed(_) => ErrorKind::ValidationError,
        GroupError::Untranslatable { .. } => ErrorKind::QueryError,
        GroupError::File { .. } => ErrorKind::UnknownError,
        GroupError::Service(_) => ErrorKind::Unavailable,
    };
    let msg = match error {
        GroupError::Service(error) => error.with_remedy(),
        error => error.to_string(),
    };
    if matches!(error, GroupError::File { .. } | GroupError::Service(_)) {
        tracing::warn!(error = msg, "node groups cannot be had");
    }
    ApiError::new(kind, msg)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;
    use crate::classifier::Groups;

    async fn ask(scope: &Scope, estate: &Estate) -> Result<Vec<String>, ApiError> {
        let connected = async {
            Ok(["web1", "db1"]
                .map(|n| Certname::parse(n).unwrap())
                .to_vec())
        };
        let nodes = resolve(scope, estate, connected).await?;
        Ok(nodes.iter().map(ToString::to_string).collect())
    }

    async fn kind(scope: &Scope, estate: &Estate) -> Option<ErrorKind> {
        ask(scope, estate).await.unwrap_err().known()
    }

    #[tokio::test]
    async fn duplicates_are_folded_and_order_is_kept() {
        let names = ["b", "a", "b"].map(str::to_owned).to_vec();
        let nodes = ask(&Scope::Nodes(names), &Estate::default()).await;
        assert_eq!(nodes.unwrap(), ["b", "a"]);
    }

    #[tokio::test]
    async fn each_way_to_mean_nobody_has_its_kind() {
        let nothing = Estate::default();
        let nodes = |names: &[&str]| Scope::Nodes(names.iter().map(|&name| name.into()).collect());
        for (scope, expected) in [
            (nodes(&[]), ErrorKind::EmptyTarget),
            (nodes(&["a", "../b"]), ErrorKind::ValidationError),
            (nodes(&["a", ""]), ErrorKind::ValidationError),
            (Scope::Query("nodes {}".into()), ErrorKind::PuppetdbError),
            (Scope::NodeGroup("g".into()), ErrorKind::UnknownNodeGroup),
        ] {
            assert_eq!(kind(&scope, &nothing).await, Some(expected), "{scope:?}");
        }
    }

    #[tokio::test]
    async fn without_puppetdb_groups_are_decided_by_the_names_of_connected_nodes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("groups.json");
        let groups: Value = json!([
            {"name": "web", "rule": ["~", "name", "^web"]},
            {"name": "mail", "rule": ["=", "name", "mail1"]},
            {"name": "folder"},
            {"name": "debian", "rule": ["=", ["fact", "os", "name"], "Debian"]},
        ]);
        std::fs::write(&path, groups.to_string()).unwrap();
        let estate = Estate {
            puppetdb: None,
            groups: Some(Arc::new(Groups::File(path))),
        };
        let group = |name: &str| Scope::NodeGroup(name.to_owned());
        assert_eq!(ask(&group("web"), &estate).await.unwrap(), ["web1"]);
        for (name, expected) in [
            ("mail", ErrorKind::EmptyTarget),
            ("folder", ErrorKind::EmptyTarget),
            ("debian", ErrorKind::PuppetdbError),
            ("nowhere", ErrorKind::UnknownNodeGroup),
        ] {
            let error = ask(&group(name), &estate).await.unwrap_err();
            assert_eq!(error.known(), Some(expected), "{name}");
            assert_eq!(error.details["node_group"], name);
        }
    }
}
