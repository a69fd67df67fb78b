//! The lint tables hold everywhere: unsafe code has one home, and copies of clippy.toml are copies.

use std::fs;

use crate::files::{root, sources};

#[test]
fn only_sandbox_sys_may_hold_unsafe_code() {
    for (path, text) in sources(&["toml"]) {
        if path.file_name().is_some_and(|name| name == "Cargo.toml") {
            let inherits = text.contains("[lints]\nworkspace = true");
            let is_sys = path.ends_with("agent/sandbox/sys/Cargo.toml");
            assert_eq!(
                inherits,
                !is_sys,
                "{} and the workspace's lints",
                path.display()
            );
        }
    }
}

#[test]
fn copies_of_clippy_toml_hold_all_of_the_root() {
    let original = fs::read_to_string(root().join("clippy.toml")).expect("the root's clippy.toml");
    let wanted: Vec<_> = original
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect();
    let copies = sources(&["toml"]);
    let copies: Vec<_> = copies
        .iter()
        .filter(|(path, _)| path.file_name().is_some_and(|n| n == "clippy.toml"))
        .collect();
    assert!(copies.len() >= 3, "the pure crates each have their own");
    for (path, text) in copies {
        for line in &wanted {
            assert!(
                text.lines().any(|l| l == *line),
                "{} lacks: {line}",
                path.display()
            );
        }
    }
}
