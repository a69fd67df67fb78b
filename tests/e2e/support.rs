//! What the tests of this folder share: a started mesh and readings of what the command line says.

use std::path::PathBuf;

use lab::Lab;
pub(crate) use lab::skip;

pub(crate) use crate::said::{json, results, text};

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
