//! Readings of what a command has said.

use std::process::Output;

use serde_json::Value;

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
