//! `agent/DECODERS.md` names every place where the agent makes values of bytes, and tests that are there.

use std::collections::BTreeSet;
use std::fs;

use crate::files::{root, sources};

/// Whose decoders are the agent's.
const FOLDERS: [&str; 5] = [
    "agent",
    "broker/pcp/src",
    "broker/client/src",
    "broker/identity/src",
    "broker/daemon/src/config",
];

/// What a decoder is made of.
const SIGNS: [&str; 5] = [
    "serde_json::from_",
    "from_utf8(",
    "fn decode",
    "fn parse",
    "hocon::parse_string",
];

/// What only looks like one: the command line, and the places of keys in a tree that was read.
const NONE: [&str; 1] = ["agent/src/arguments.rs"];

#[test]
fn every_decoder_of_the_agent_is_on_its_list_with_tests_that_are_there() {
    let list = fs::read_to_string(root().join("agent/DECODERS.md")).expect("the list");
    let words: BTreeSet<&str> = list.split('`').skip(1).step_by(2).collect();
    let sources = sources(&["rs"]);
    let mut missing = Vec::new();
    for (path, text) in &sources {
        let path = path.strip_prefix(root()).expect("below the root");
        let name = path.to_str().expect("a plain path");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let of_tests = name.ends_with("tests.rs") || name.contains("/tests/");
        let decodes = SIGNS.iter().any(|sign| code.contains(sign));
        let ours = FOLDERS.iter().any(|folder| name.starts_with(folder));
        if ours && decodes && !of_tests && !words.contains(name) && !NONE.contains(&name) {
            missing.push(name.to_owned());
        }
    }
    assert!(missing.is_empty(), "not in agent/DECODERS.md: {missing:#?}");
    let (files, tests): (Vec<&str>, Vec<&str>) = words
        .into_iter()
        .filter(|word| word.len() > 14 && !word.contains(' '))
        .partition(|word| word.ends_with(".rs"));
    assert!(tests.len() > 40, "{tests:?}");
    for file in files {
        assert!(root().join(file).exists(), "there is no {file}");
    }
    for test in tests {
        let function = format!("fn {test}(");
        let there = sources.iter().any(|(_, text)| text.contains(&function));
        assert!(there, "there is no test {test}");
    }
}
