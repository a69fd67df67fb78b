//! The product's binaries: where they are, and how they are brought up to date.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::LabError;

/// The packages whose binaries a lab runs.
const PACKAGES: [&str; 6] = [
    "fleet",
    "pcp-broker",
    "pxp-agent",
    "execution-wrapper",
    "orchestrator",
    "client-tools",
];

/// Set to anything but the empty text, this keeps the lab from building the product.
const NO_BUILD: &str = "LAB_NO_BUILD";

/// The path of one of our binaries: beside the running executable, which is in the target directory
/// of the same profile (tests lie one folder deeper).
#[must_use]
pub fn bin(name: &str) -> PathBuf {
    profile_dir().join(name)
}

/// The folder that holds all binaries.
pub(crate) fn profile_dir() -> PathBuf {
    let executable = env::current_exe().unwrap_or_default();
    let folder = executable.parent().unwrap_or(Path::new("."));
    match folder.parent() {
        Some(above) if folder.ends_with("deps") => above.to_owned(),
        _ => folder.to_owned(),
    }
}

/// The product's source tree, when the executable was built in one that is still there.
#[must_use]
pub fn workspace() -> Option<PathBuf> {
    let executable = env::current_exe().ok();
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let compiled_in = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    [executable, manifest, Some(compiled_in)]
        .into_iter()
        .flatten()
        .find_map(|start| {
            start
                .ancestors()
                .find(|dir| is_root(dir))
                .map(Path::to_owned)
        })
}

fn is_root(dir: &Path) -> bool {
    fs::read_to_string(dir.join("Cargo.toml"))
        .is_ok_and(|text| text.contains("[workspace]") && text.contains("\"tests/lab\""))
}

/// Brings the binaries up to date when there is a source tree, with the profile and into the target
/// directory of the running executable. `LAB_NO_BUILD=1` keeps it from that.
///
/// # Errors
/// When cargo cannot be run or fails; it has said why on standard error.
pub fn build() -> Result<(), LabError> {
    if env::var_os(NO_BUILD).is_some_and(|value| !value.is_empty()) {
        return Ok(());
    }
    let (Some(workspace), dir) = (workspace(), profile_dir()) else {
        return Ok(());
    };
    let (Some(target), Some(profile)) = (dir.parent(), dir.file_name()) else {
        return Ok(());
    };
    let profile = match profile.to_str() {
        Some("debug") => "dev",
        Some("release") => "release",
        // Not a target directory: the binaries were installed.
        _ => return Ok(()),
    };
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(&cargo);
    command
        .args(["build", "--locked", "--profile", profile])
        .arg("--manifest-path")
        .arg(workspace.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(LabError::Build(String::new())),
        Err(error) => Err(LabError::Build(format!(": {}: {error}", cargo.display()))),
    }
}

/// Whether all are there.
pub(crate) fn check() -> Result<(), LabError> {
    let names = [
        "pcp-broker",
        "pxp-agent",
        "execution-wrapper",
        "pxp-orchestrator",
        "puppet-task",
        "puppet-job",
        "puppet-access",
    ];
    match names.into_iter().map(bin).find(|path| !path.is_file()) {
        Some(missing) => Err(LabError::NotBuilt(missing)),
        None => Ok(()),
    }
}
