//! Files stay small, say what they are for, and leave nothing for later.

use std::fs;
use std::path::{Path, PathBuf};

/// Above this many lines a file is two modules.
const MAX_LINES: usize = 800;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .expect("the workspace")
}

/// Every file with one of these extensions below the five folders of code, with its text.
pub(crate) fn sources(extensions: &[&str]) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, extensions: &[&str], found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).expect("a readable folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    walk(&path, extensions, found);
                }
            } else if path
                .extension()
                .and_then(|e| e.to_str())
                .is_some_and(|e| extensions.contains(&e))
            {
                let text = fs::read_to_string(&path).expect("readable text");
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    for folder in ["agent", "broker", "orchestrator", "packaging", "tests"] {
        walk(&root().join(folder), extensions, &mut found);
    }
    assert!(
        !found.is_empty() || !extensions.contains(&"rs"),
        "no sources below {:?}",
        root()
    );
    found
}

#[test]
fn no_file_is_longer_than_800_lines() {
    let long: Vec<_> = sources(&["rs"])
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    let mute: Vec<_> = sources(&["rs"])
        .into_iter()
        .filter(|(_, text)| !text.trim_start().starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    assert!(mute.is_empty(), "no module documentation: {mute:?}");
}

#[test]
fn tests_wait_on_states_and_never_on_time() {
    // Put together here, so that this file does not find itself.
    let needle = concat!("sleep", "(");
    let sleepers: Vec<_> = sources(&["rs"])
        .into_iter()
        .filter(|(path, _)| {
            let path = path.to_string_lossy();
            (path.contains("/tests/") || path.ends_with("tests.rs"))
                && !path.ends_with("lab/src/wait.rs")
        })
        .filter(|(_, text)| {
            text.lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.contains(&format!("thread::{needle}"))
                    || code.contains(&format!("time::{needle}"))
            })
        })
        .map(|(path, _)| path)
        .collect();
    assert!(sleepers.is_empty(), "use lab::wait_until: {sleepers:?}");
}

#[test]
fn nothing_is_left_for_later() {
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("unimple", "mented!"),
    ];
    let left: Vec<_> = sources(&["rs", "sh", "py", "conf", "toml"])
        .into_iter()
        .filter(|(_, text)| marks.iter().any(|mark| text.contains(mark)))
        .map(|(path, _)| path)
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
