//! What the tests of this folder share: a started mesh and readings of what the command line says.

use std::path::PathBuf;
use std::process::Output;

use lab::Lab;
use serde_json::Value;

/// The lab's own sample modules and the tests' `probe` module.
pub(crate) fn modulepath() -> Vec<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    vec![
        root.join("packaging/lab-modules"),
        root.join("tests/modules"),
    ]
}

/// A mesh of a primary, two compilers, an orchestrator and `agents` agents, all connected.
pub(crate) fn mesh(agents: usize) -> Lab {
    let mut builder = Lab::builder().compilers(2).agents(agents);
    for folder in modulepath() {
        builder = builder.modulepath(folder);
    }
    builder.start().expect("the mesh starts")
}

/// The one JSON document on standard output.
pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "no JSON document on standard output ({error}): {}",
            text(output)
        )
    })
}

/// Everything a command printed, for messages.
pub(crate) fn text(output: &Output) -> String {
    format!(
        "exit {:?}\n--- stdout\n{}\n--- stderr\n{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The results of a finished run by node name.
pub(crate) fn results(output: &Output) -> Vec<(String, Value)> {
    let document = json(output);
    let items = document["items"]
        .as_array()
        .expect("a list of items")
        .clone();
    let mut results: Vec<_> = items
        .into_iter()
        .map(|item| {
            (
                item["name"].as_str().expect("a name").to_owned(),
                item["results"].clone(),
            )
        })
        .collect();
    results.sort_by(|a, b| a.0.cmp(&b.0));
    results
}

/// Whether a test that needs `feature` may skip; prints why. Fails where it must not be skipped.
pub(crate) fn skip(feature: &str, reason: &str) {
    let required = std::env::var("LAB_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name == feature),
        "must not be skipped here: {reason}"
    );
    eprintln!("skipped: {reason}");
}
