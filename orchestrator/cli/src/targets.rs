//! Where to run: from the command line to the scope of the API.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use orchestrator_api::Scope;

use crate::arguments::TargetArguments;
use crate::error::{Failure, UsageError};

/// The most that is read from a file or standard input: a million certnames and more.
const MAX_SOURCE: u64 = 64 << 20;

/// Makes the scope. The command line allows exactly one form.
///
/// # Errors
/// When a file cannot be read, or no node is named.
pub(crate) fn scope(targets: &TargetArguments, stdin: impl Read) -> Result<Scope, Failure> {
    match (&targets.nodes, &targets.query, &targets.node_group) {
        (Some(value), _, _) => {
            let nodes = nodes(&read_source(value, stdin)?);
            if nodes.is_empty() {
                return Err(UsageError::NoNodes.into());
            }
            Ok(Scope::Nodes(nodes))
        }
        (_, Some(value), _) => {
            let text = match value.strip_prefix('@') {
                Some(path) => read(Path::new(path))?,
                None => value.clone(),
            };
            let query = text.trim();
            if query.is_empty() {
                return Err(UsageError::EmptyQuery.into());
            }
            Ok(Scope::Query(query.to_owned()))
        }
        (_, _, Some(group)) => Ok(Scope::NodeGroup(group.trim().to_owned())),
        (None, None, None) => Err(UsageError::NoNodes.into()),
    }
}

/// The text behind `@FILE`, `-` (standard input), or the text itself.
pub(crate) fn read_source(value: &str, stdin: impl Read) -> Result<String, Failure> {
    if value == "-" {
        return read_text(stdin, Path::new("standard input"));
    }
    match value.strip_prefix('@') {
        Some(path) => read(Path::new(path)),
        None => Ok(value.to_owned()),
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    match File::open(path) {
        Ok(file) => read_text(file, path),
        Err(source) => Err(UsageError::Read {
            path: path.to_owned(),
            source,
        }
        .into()),
    }
}

fn read_text(reader: impl Read, path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    match reader.take(MAX_SOURCE).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(source) => Err(UsageError::Read {
            path: PathBuf::from(path),
            source,
        }
        .into()),
    }
}

/// Certnames between commas and on lines, each once, in order. `#` begins a comment.
fn nodes(text: &str) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty() && seen.insert((*name).to_owned()))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_nodes(value: &str, stdin: &str) -> Result<Scope, Failure> {
        let targets = TargetArguments {
            nodes: Some(value.to_owned()),
            ..Default::default()
        };
        scope(&targets, stdin.as_bytes())
    }

    #[test]
    fn nodes_come_from_a_list_a_file_or_standard_input() {
        let expected = Scope::Nodes(vec!["a.example".to_owned(), "b".to_owned()]);
        assert_eq!(of_nodes("a.example,b", "").unwrap(), expected);
        assert_eq!(of_nodes(" a.example , b,a.example,", "").unwrap(), expected);
        let text = "# web servers\na.example\r\n\n  b # the second\na.example\n";
        assert_eq!(of_nodes("-", text).unwrap(), expected);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nodes");
        std::fs::write(&file, text).unwrap();
        assert_eq!(
            of_nodes(&format!("@{}", file.display()), "").unwrap(),
            expected
        );
    }

    #[test]
    fn a_list_without_nodes_is_wrong_usage() {
        for (value, stdin) in [
            ("", ""),
            (",", ""),
            ("-", "# nothing\n"),
            ("@/nonexistent", ""),
        ] {
            assert_eq!(
                of_nodes(value, stdin).unwrap_err().exit(),
                crate::Exit::Usage,
                "{value}"
            );
        }
    }

    #[test]
    fn a_query_may_stand_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("query");
        std::fs::write(&file, "nodes { certname ~ 'web' }\n").unwrap();
        let query = Some(format!("@{}", file.display()));
        let targets = TargetArguments {
            query,
            ..Default::default()
        };
        let expected = Scope::Query("nodes { certname ~ 'web' }".to_owned());
        assert_eq!(scope(&targets, std::io::empty()).unwrap(), expected);
    }
}
