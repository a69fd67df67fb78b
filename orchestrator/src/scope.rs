//! Which nodes a scope means.

use std::collections::HashSet;

use orchestrator_api::{ApiError, ErrorKind, Scope};
use pcp::uri::Certname;

/// The nodes of a scope, in the order in which they are named, each once.
///
/// # Errors
/// The answer to the caller: a name that is none, no nodes at all, or a source of nodes that is not
/// configured.
pub(crate) fn resolve(scope: &Scope) -> Result<Vec<Certname>, ApiError> {
    match scope {
        Scope::Nodes(names) => nodes(names),
        Scope::Query(query) => Err(ApiError::new(
            ErrorKind::PuppetdbError,
            "no PuppetDB is configured, so a query cannot be answered; name the nodes instead",
        )
        .with("query", query.as_str())),
        Scope::NodeGroup(group) => Err(ApiError::new(
            ErrorKind::EmptyTarget,
            "no node groups are configured; name the nodes instead",
        )
        .with("node_group", group.as_str())),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(scope: &Scope) -> String {
        resolve(scope).unwrap_err().kind
    }

    #[test]
    fn duplicates_are_folded_and_order_is_kept() {
        let names = ["b", "a", "b"].map(str::to_owned).to_vec();
        let nodes = resolve(&Scope::Nodes(names)).unwrap();
        assert_eq!(nodes, ["b", "a"].map(|name| Certname::parse(name).unwrap()));
    }

    #[test]
    fn each_way_to_mean_nobody_has_its_kind() {
        let nodes = |names: &[&str]| Scope::Nodes(names.iter().map(|&name| name.into()).collect());
        assert_eq!(kind(&nodes(&[])), "puppetlabs.orchestrator/empty-target");
        assert_eq!(
            kind(&nodes(&["a", "../b"])),
            "puppetlabs.orchestrator/validation-error"
        );
        assert_eq!(
            kind(&nodes(&["a", ""])),
            "puppetlabs.orchestrator/validation-error"
        );
        let query = Scope::Query("nodes {}".into());
        assert_eq!(kind(&query), "puppetlabs.orchestrator/puppetdb-error");
        let group = Scope::NodeGroup("g".into());
        assert_eq!(kind(&group), "puppetlabs.orchestrator/empty-target");
    }
}
