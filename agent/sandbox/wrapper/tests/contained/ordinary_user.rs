//! All of it once more, for a user without any privilege: in namespaces, and in a cgroup that was
//! delegated to that user.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sandbox::{Facility, Support};
use tempfile::TempDir;

use crate::bed::{WRAPPER_VARIABLE, skip, wrapper};

/// `nobody`, by convention; that no account has the number would not matter.
const NOBODY: u32 = 65534;

/// Copies of the tests and the wrapper where any user can read them, wherever they were built.
struct Copies(TempDir);

impl Copies {
    fn make() -> Self {
        let dir = TempDir::new().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(std::env::current_exe().unwrap(), dir.path().join("tests")).unwrap();
        fs::copy(wrapper(), dir.path().join("wrapper")).unwrap();
        Self(dir)
    }

    /// All tests but those of this file, told which features must be there.
    fn run_by(&self, program: &str, before: &[&str], required: &str) -> Command {
        let mut command = Command::new(program);
        command.args(before).arg(self.0.path().join("tests"));
        command.args(["--skip", "ordinary_user::", "--test-threads", "2"]);
        command.env("LAB_REQUIRE", required);
        command.env(WRAPPER_VARIABLE, self.0.path().join("wrapper"));
        command.current_dir("/");
        command
    }
}

fn assert_passed(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("test result: ok"), "{text}");
}

#[test]
fn everything_holds_for_an_ordinary_user() {
    if !nix::unistd::geteuid().is_root() {
        return skip(
            "root",
            "this is an ordinary user already, or cannot become one",
        );
    }
    let become_nobody = ["-c", "exec \"$0\" \"$@\""];
    let copies = Copies::make();
    // What must be there for root need not be for this user, but for user namespaces.
    let required = std::env::var("LAB_REQUIRE").unwrap_or_default();
    let required = required.split(',').find(|name| *name == "userns");
    let mut tests = copies.run_by("/bin/sh", &become_nobody, required.unwrap_or_default());
    assert_passed(&tests.uid(NOBODY).gid(NOBODY).output().unwrap());
}

#[test]
fn everything_holds_in_a_cgroup_that_was_delegated_to_an_ordinary_user() {
    if !nix::unistd::geteuid().is_root() {
        return skip("root", "no cgroup can be given away");
    }
    let base = match Support::probe(wrapper()).cgroup {
        Facility::Available(base) => base,
        Facility::Missing(reason) => return skip("cgroup2", &reason),
    };
    let delegated = Delegated::below(base.parent().unwrap());
    // Enters the cgroup while it may, then stops being root.
    let script =
        "echo $$ >\"$0\" && exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
    let procs = delegated.0.join("cgroup.procs");
    let before = ["-c", script, procs.to_str().unwrap()];
    let copies = Copies::make();
    assert_passed(
        &copies
            .run_by("/bin/sh", &before, "cgroup2")
            .output()
            .unwrap(),
    );
}

/// What systemd makes for a user with `Delegate=yes`.
struct Delegated(PathBuf);

impl Delegated {
    fn below(parent: &Path) -> Self {
        let directory = parent.join(format!("delegated-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        for name in [
            "",
            "cgroup.procs",
            "cgroup.threads",
            "cgroup.subtree_control",
        ] {
            chown(directory.join(name), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Self(directory)
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        fs::remove_dir(self.0.join("pxp-agent")).ok();
        fs::remove_dir(&self.0).ok();
    }
}
