//! The commands of the README, as a newcomer types them.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lab::wait_until;
use serde_json::Value;

use crate::support::{skip, text};

#[test]
fn lab_run_shows_a_task_on_five_nodes_and_exits_with_zero() {
    let output = Command::new(lab::bin("lab"))
        .arg("run")
        .env("LAB_NO_BUILD", "1")
        .output()
        .expect("the lab starts");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("5/5 nodes succeeded"), "{}", text(&output));
}

#[test]
fn lab_load_gets_a_fleet_back_after_its_primary_and_a_compiler_were_killed() {
    let output = Command::new(lab::bin("lab"))
        .args([
            "load",
            "--agents",
            "60",
            "--kill",
            "primary",
            "--kill",
            "compiler-1",
        ])
        .env("LAB_NO_BUILD", "1")
        .output()
        .expect("the lab starts");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let shown = String::from_utf8_lossy(&output.stdout);
    let back: Vec<_> = shown
        .lines()
        .filter(|line| line.starts_with("back"))
        .collect();
    assert_eq!(back.len(), 2, "{shown}");
    assert!(
        back.iter().all(|line| line.contains("all 60 answered")),
        "{shown}"
    );
    // Those of the compiler that was killed have new sessions; it had half of them.
    assert!(!back[1].contains(" 0 new sessions"), "{shown}");
}

/// A `lab up` that is interrupted, as by Ctrl-C, when the test ends.
struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        // The group is the lab's own and its processes'; the lab stops them in order.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).ok();
        self.0.wait().ok();
    }
}

fn up(dir: &Path) -> Up {
    let mut child = Command::new(lab::bin("lab"))
        .args(["up", "--compilers", "1", "--agents", "2", "--dir"])
        .arg(dir)
        .env("LAB_NO_BUILD", "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the lab starts");
    let stdout = child.stdout.take().expect("a pipe");
    let up = Up(child);
    let mut lines = BufReader::new(stdout).lines();
    assert!(
        lines.any(|line| line.is_ok_and(|line| line.trim() == "ready")),
        "it never got ready"
    );
    up
}

fn shell(dir: &Path, command: &str) -> std::process::Output {
    let script = format!(". {}/lab.env; {command}", dir.display());
    Command::new("sh")
        .args(["-c", &script])
        .output()
        .expect("a shell")
}

#[test]
fn lab_up_serves_another_shell_and_starts_what_was_killed_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("mesh");
    let up = up(&dir);
    let command = "\"$LAB_BIN\"/puppet-task run sample::host --nodes agent-1,agent-2 --format json";
    let output = shell(&dir, command);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(
        answer["items"].as_array().map(Vec::len),
        Some(2),
        "{answer:#}"
    );

    let output = shell(&dir, "kill -9 \"$(cat \"$LAB_PIDS_DIR\"/agent-2.pid)\"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let lab = lab::bin("lab");
    let restart = format!("{} restart --dir {} agent-2", lab.display(), dir.display());
    wait_until("agent-2 is started again", Duration::from_secs(60), || {
        let output = shell(&dir, &restart);
        if output.status.success() {
            Ok(())
        } else {
            Err(text(&output))
        }
    })
    .expect("the lab starts it again");
    wait_until("agent-2 serves again", Duration::from_secs(60), || {
        let output = shell(&dir, command);
        if output.status.success() {
            Ok(())
        } else {
            Err(text(&output))
        }
    })
    .expect("the task runs");

    let cert = format!(
        "{} cert --dir {} client --san client.test",
        lab.display(),
        dir.display()
    );
    let output = shell(&dir, &format!("{cert}; ls \"$LAB_SSL_DIR\""));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(fs::exists(dir.join("lab.env")).expect("readable"));

    let pids = dir.join("pids");
    let pids = fs::read_dir(&pids)
        .map(|list| list.flatten().count())
        .unwrap_or_default();
    assert!(
        pids >= 5,
        "a pid file for each of five processes, not {pids}"
    );
    drop(up);
}

#[test]
fn an_ordinary_user_runs_the_lab_too() {
    if !nix::unistd::geteuid().is_root() {
        return skip(
            "root",
            "already an ordinary user: the other tests are this one",
        );
    }
    // A copy that an ordinary user can read, wherever the clone lies.
    let folder = tempfile::tempdir().expect("a folder");
    let user = 65_534;
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).expect("a writable folder");
    let names = [
        "lab",
        "pcp-broker",
        "pxp-agent",
        "execution-wrapper",
        "pxp-orchestrator",
        "puppet-access",
        "puppet-job",
        "puppet-task",
    ];
    for name in names {
        fs::copy(lab::bin(name), bin.join(name)).expect("a copy");
    }
    let modules = folder.path().join("modules");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/lab-modules");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(source)
        .arg(&modules)
        .status()
        .expect("cp");
    assert!(copied.success());
    let owner = format!("{user}:{user}");
    let owned = Command::new("chown")
        .args(["-R", &owner])
        .arg(folder.path())
        .status();
    assert!(owned.expect("chown").success());
    let output = Command::new("setpriv")
        .args([
            "--reuid",
            &user.to_string(),
            "--regid",
            &user.to_string(),
            "--clear-groups",
        ])
        .arg(bin.join("lab"))
        .arg("run")
        .arg("--dir")
        .arg(folder.path().join("mesh"))
        .arg("--modulepath")
        .arg(&modules)
        .env("LAB_NO_BUILD", "1")
        .env("HOME", folder.path())
        .current_dir(folder.path())
        .output()
        .expect("the lab starts");
    if fs::read_to_string("/proc/sys/user/max_user_namespaces").is_ok_and(|n| n.trim() == "0") {
        return skip("userns", "this kernel gives ordinary users no namespaces");
    }
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(
        text(&output).contains("not root"),
        "it says what it cannot give: {}",
        text(&output)
    );
}
