//! Groups in a file: the JSON that the classifier answers to `GET groups`, or as much of it as
//! matters here: `[{"name": …, "id": …, "parent": …, "rule": […]}, …]`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::rule::Rule;
use super::{GroupError, Meaning};

/// The largest file that is read. Estates with thousands of groups have a few MiB.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// One group; what else the classifier says of it is passed over.
#[derive(Debug, Deserialize)]
struct Group {
    name: String,
    id: Option<String>,
    /// The id or the name of the group that this one is part of. The root's is its own.
    parent: Option<String>,
    rule: Option<Value>,
}

/// What a group of the file means: its rule and those of all its ancestors.
///
/// # Errors
/// [`GroupError::Unknown`], or [`GroupError::File`] for everything that is wrong with the file.
pub(super) fn meaning(path: &Path, wanted: &str) -> Result<Meaning, GroupError> {
    let fault = |problem: String| GroupError::File {
        path: path.to_owned(),
        problem,
    };
    let text = read(path).map_err(|error| fault(error.to_string()))?;
    let groups: Vec<Group> = serde_json::from_slice(&text)
        .map_err(|error| fault(format!("no list of groups: {error}")))?;
    match find(&groups, wanted).map_err(fault)? {
        Some(group) => effective(&groups, group).map_err(fault),
        None => Err(GroupError::Unknown(wanted.to_owned())),
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(text)
}

/// The group with this id, else the one with this name.
fn find<'a>(groups: &'a [Group], wanted: &str) -> Result<Option<&'a Group>, String> {
    if let Some(group) = groups
        .iter()
        .find(|group| group.id.as_deref() == Some(wanted))
    {
        return Ok(Some(group));
    }
    let mut named = groups.iter().filter(|group| group.name == wanted);
    match (named.next(), named.next()) {
        (found, None) => Ok(found),
        _ => Err(format!(
            "more than one group is called {wanted:?}: use its id"
        )),
    }
}

/// The rule of a group and those of its ancestors that have one. Without a rule of its own a group
/// means nobody.
fn effective(groups: &[Group], group: &Group) -> Result<Meaning, String> {
    if group.rule.is_none() {
        return Ok(Meaning::Nobody);
    }
    let mut rules = vec![];
    let mut at = group;
    for _ in 0..=groups.len() {
        if let Some(rule) = &at.rule {
            let rule = Rule::read(rule).map_err(|error| format!("group {:?}: {error}", at.name))?;
            rules.push(rule);
        }
        let Some(parent) = &at.parent else {
            return Ok(joined(rules));
        };
        let Some(next) = find(groups, parent)? else {
            return Err(format!(
                "group {:?} has an unknown parent {parent:?}",
                at.name
            ));
        };
        if std::ptr::eq(next, at) {
            return Ok(joined(rules));
        }
        at = next;
    }
    Err(format!("group {:?} is its own ancestor", group.name))
}

fn joined(mut rules: Vec<Rule>) -> Meaning {
    match (rules.pop(), rules.is_empty()) {
        (Some(only), true) => Meaning::Rule(only),
        (Some(last), false) => {
            rules.push(last);
            Meaning::Rule(Rule::All(rules))
        }
        (None, _) => Meaning::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(groups: &Value, wanted: &str) -> Result<Option<Value>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("groups.json");
        std::fs::write(&path, groups.to_string()).unwrap();
        meaning(&path, wanted)
            .and_then(|meaning| meaning.inventory(wanted))
            .map_err(|error| {
                error
                    .to_string()
                    .replace(path.to_string_lossy().as_ref(), "FILE")
            })
    }

    #[test]
    fn a_group_means_its_rule_and_those_of_its_ancestors() {
        let root = "00000000-0000-4000-8000-000000000000";
        let groups = json!([
            {"id": root, "name": "All Nodes", "parent": root, "rule": ["~", "name", ".*"],
                "classes": {"ntp": {}}, "environment": "production"},
            {"id": "u1", "name": "folder", "parent": root, "rule": null},
            {"id": "u2", "name": "web", "parent": "folder", "rule": ["~", "name", "^web"]},
            {"name": "pinned", "parent": "web", "rule": ["or", ["=", "name", "web1"]]},
        ]);
        let everybody = json!(["~", "certname", ".*"]);
        let web = json!(["~", "certname", "^web"]);
        assert_eq!(ask(&groups, root), Ok(Some(everybody.clone())));
        assert_eq!(ask(&groups, "folder"), Ok(None));
        assert_eq!(ask(&groups, "u2"), Ok(Some(json!(["and", web, everybody]))));
        assert_eq!(
            ask(&groups, "pinned"),
            Ok(Some(json!([
                "and",
                ["or", ["=", "certname", "web1"]],
                web,
                everybody
            ])))
        );
        assert_eq!(ask(&groups, "u9"), Err("Unknown node group u9".to_owned()));
    }

    #[test]
    fn what_is_wrong_with_the_file_names_the_group() {
        let rule = json!(["=", "name", "a"]);
        let groups = json!([
            {"name": "a", "parent": "b", "rule": rule}, {"name": "b", "parent": "a"},
            {"name": "lost", "parent": "nowhere", "rule": rule},
            {"name": "bad", "rule": ["=", "name"]},
            {"name": "twice"}, {"name": "twice"},
            {"name": "number", "rule": [">", "name", "5"]},
        ]);
        for (wanted, expected) in [
            ("a", "FILE: group \"a\" is its own ancestor"),
            (
                "lost",
                "FILE: group \"lost\" has an unknown parent \"nowhere\"",
            ),
            (
                "bad",
                "FILE: group \"bad\": a comparison has a field and a value",
            ),
            ("twice", "FILE: more than one group is called \"twice\""),
            (
                "number",
                "the rule of node group number cannot be translated",
            ),
        ] {
            let error = ask(&groups, wanted).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        let error = ask(&json!({}), "a").unwrap_err();
        assert!(error.starts_with("FILE: no list of groups"), "{error}");
    }
}
