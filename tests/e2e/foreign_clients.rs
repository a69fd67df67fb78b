//! Clients that know nothing of us: the calls of the original's Ruby client and of Bolt's transport,
//! made by Python's standard library.

use std::process::Command;

use crate::support::{mesh, skip, text};

#[test]
fn a_client_of_the_original_and_bolt_are_served() {
    if Command::new("python3").arg("--version").output().is_err() {
        return skip("modules", "there is no python3");
    }
    let lab = mesh(2);
    let output = Command::new("python3")
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/e2e/orchestrator_client.py"
        ))
        .arg(lab.service_url())
        .arg(lab.ca_file())
        .arg(lab.token())
        .args(["agent-1", "agent-2"])
        .output()
        .expect("python3 runs");
    assert!(output.status.success(), "{}", text(&output));
}
