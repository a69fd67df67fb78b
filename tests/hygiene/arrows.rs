//! The arrows between crates are those of ARCHITECTURE.md, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Every crate of the workspace and the crates of the workspace that it may name in
/// `[dependencies]`. A new arrow is a change of the architecture: argue for it in ARCHITECTURE.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("pcp", &[]),
    ("pcp-mesh", &["pcp"]),
    ("identity", &["pcp"]),
    ("daemon", &[]),
    ("pcp-client", &["pcp", "identity", "daemon"]),
    (
        "pcp-broker",
        &["pcp", "pcp-mesh", "pcp-client", "identity", "daemon"],
    ),
    ("pxp", &[]),
    ("sandbox-sys", &[]),
    ("sandbox", &["sandbox-sys"]),
    ("execution-wrapper", &["sandbox", "sandbox-sys"]),
    (
        "pxp-agent",
        &["pxp", "sandbox", "pcp", "pcp-client", "identity", "daemon"],
    ),
    ("orchestrator-api", &[]),
    ("task-data", &[]),
    ("client-tools", &["orchestrator-api"]),
    (
        "orchestrator",
        &[
            "orchestrator-api",
            "task-data",
            "pxp",
            "pcp",
            "pcp-client",
            "identity",
            "daemon",
        ],
    ),
    ("lab-ca", &[]),
    ("lab", &["lab-ca"]),
    (
        "fleet",
        &["lab-ca", "pcp", "pcp-client", "identity", "daemon"],
    ),
    (
        "perf",
        &[
            "lab",
            "fleet",
            "pcp",
            "pcp-client",
            "identity",
            "daemon",
            "sandbox",
        ],
    ),
    ("system-tests", &[]),
];

/// Crates that decide and do not act: no runtime, no sockets, no TLS.
const PURE: &[&str] = &["pcp", "pcp-mesh", "pxp", "orchestrator-api", "task-data"];

/// What a pure crate must not name.
const ACTING: &[&str] = &[
    "tokio", "quinn", "rustls", "nix", "libc", "rusqlite", "reqwest", "axum",
];

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version=1",
            "--offline",
            "--manifest-path",
        ])
        .arg(manifest)
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    metadata["packages"]
        .as_array()
        .expect("a list of packages")
        .iter()
        .map(|package| {
            let normal = package["dependencies"].as_array().expect("a list").iter();
            let normal = normal.filter(|dependency| dependency["kind"].is_null());
            let names = normal.filter_map(|dependency| dependency["name"].as_str());
            let name = package["name"].as_str().expect("a name").to_owned();
            (name, names.map(str::to_owned).collect())
        })
        .collect()
}

#[test]
fn crates_depend_on_each_other_as_the_architecture_says() {
    let dependencies = dependencies();
    let known: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let actual: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(known, actual, "the list of crates and this test differ");
    for (name, allowed) in ARROWS {
        let ours = dependencies[*name]
            .iter()
            .filter(|d| known.contains(d.as_str()));
        let extra: Vec<_> = ours.filter(|d| !allowed.contains(&d.as_str())).collect();
        assert!(extra.is_empty(), "{name} may not depend on {extra:?}");
    }
}

#[test]
fn pure_crates_name_no_runtime() {
    let dependencies = dependencies();
    for name in PURE {
        let acting: Vec<_> = ACTING
            .iter()
            .filter(|acting| dependencies[*name].contains(**acting))
            .collect();
        assert!(
            acting.is_empty(),
            "{name} decides only, and may not depend on {acting:?}"
        );
    }
}

#[test]
fn nothing_under_the_sandbox_knows_a_runtime() {
    let dependencies = dependencies();
    for name in ["sandbox", "sandbox-sys", "execution-wrapper"] {
        assert!(
            !dependencies[name].contains("tokio"),
            "{name} must stay single-threaded"
        );
    }
}

#[test]
fn only_client_and_broker_speak_quic() {
    for (name, dependencies) in dependencies() {
        let speaks = dependencies.contains("quinn");
        assert_eq!(
            speaks,
            // perf measures bare quinn beside the broker.
            name == "pcp-client" || name == "pcp-broker" || name == "perf",
            "{name} and quinn"
        );
    }
}
