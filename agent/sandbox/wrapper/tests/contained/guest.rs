//! The limits in a guest whose cgroups have every controller, whatever those of this host have: a kernel
//! that runs as a process (User-Mode Linux), with this host's files, read-only.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::bed::{skip, wrapper};

const KERNEL: &str = "/usr/bin/linux.uml";

/// What the guest runs as its first process: these tests once more, then the end.
const INIT: &str = r#"#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cd /tmp
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LAB_REQUIRE=cgroup2,memory,pids,cpu,standard
"$TESTS" limits:: --test-threads 1 --color never 2>&1
echo "tests ended: $?"
# LINUX_REBOOT_CMD_POWER_OFF
exec perl -e 'syscall(POWER_OFF, 0xfee1dead, 672274793, 0x4321fedc, 0)'
"#;

#[test]
fn limits_hold_in_a_guest_with_all_controllers() {
    if !nix::unistd::geteuid().is_root() {
        return skip(
            "root",
            "a guest's root would not be root for this host's files",
        );
    }
    if !Path::new(KERNEL).exists() {
        return skip(
            "uml",
            "User-Mode Linux (Debian: user-mode-linux) is not installed",
        );
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let init = dir.path().join("init");
    let power_off = nix::libc::SYS_reboot.to_string();
    std::fs::write(&init, INIT.replace("POWER_OFF,", &format!("{power_off},"))).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&init, mode).unwrap();
    let tests = std::env::current_exe().unwrap();
    let output = Command::new("timeout")
        .args(["--kill-after", "5", "400", KERNEL])
        .args([
            "mem=384M",
            "rootfstype=hostfs",
            "rootflags=/",
            "ro",
            "quiet",
        ])
        .args(["con=null", "con0=null,fd:1", "panic=1"])
        .arg(format!("init={}", init.display()))
        .arg(format!("TESTS={}", tests.display()))
        .arg(format!("TEST_EXECUTION_WRAPPER={}", wrapper().display()))
        .env_clear()
        .env("HOME", dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("tests ended: 0"), "{text}\n{errors}");
    assert!(text.contains("test result: ok. 6 passed"), "{text}");
}
