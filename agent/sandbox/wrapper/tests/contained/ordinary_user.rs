//! All of it once more, for a user without any privilege.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::bed::skip;

/// `nobody`, by convention; that no account has the number would not matter.
const NOBODY: u32 = 65534;

#[test]
fn everything_holds_for_an_ordinary_user() {
    if !nix::unistd::geteuid().is_root() {
        return skip(
            "root",
            "this is an ordinary user already, or cannot become one",
        );
    }
    let tests = std::env::current_exe().unwrap();
    let output = Command::new(tests)
        .args(["--skip", "ordinary_user::", "--test-threads", "2"])
        // The features that root has here are not this user's.
        .env("LAB_REQUIRE", "")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("test result: ok"), "{text}");
}
