//! The agent in a cgroup that was given away to it, as a service is with `Delegate=yes` and
//! `DelegateSubgroup=supervisor`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pxp::MessageKind::{NonBlockingRequest, ProvisionalResponse};

use crate::node::{Node, open_gate, task, wait_until};

/// Such a cgroup, removed with what is below it.
struct Given(PathBuf);

impl Given {
    fn new(node: &Node) -> Option<Self> {
        let mounts = sandbox::mounts::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap());
        let mount = mounts.into_iter().find(|mount| mount.kind == "cgroup2");
        let root = nix::unistd::geteuid().is_root();
        let Some(mount) = mount.filter(|_| root) else {
            let required = std::env::var("LAB_REQUIRE").unwrap_or_default();
            assert!(!required.split(',').any(|name| name == "cgroup2"));
            eprintln!("skipped: only root can give a cgroup away, where there is version 2");
            return None;
        };
        let given = Self(mount.point.join(node.id("given")));
        fs::create_dir(&given.0).unwrap();
        let give = "import os, sys; os.setxattr(sys.argv[1], 'trusted.delegate', b'1')";
        let mut gave = Command::new("python3");
        gave.args(["-c", give]).arg(&given.0);
        assert!(gave.status().unwrap().success());
        Some(given)
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        for below in ["pxp-agent", "supervisor"] {
            fs::remove_dir(self.0.join(below)).ok();
        }
        fs::remove_dir(&self.0).ok();
    }
}

/// The cgroup of version 2 that a process is in, as its last two names.
fn cgroup_of(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("0::"));
    let names: Vec<_> = line.unwrap().rsplit('/').take(2).collect();
    format!("{}/{}", names[1], names[0])
}

fn processes(cgroup: &Path) -> String {
    fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default()
}

#[tokio::test]
async fn tasks_are_in_the_cgroup_of_the_service_and_the_next_agent_finds_them_there() {
    let Some(node) = Node::new("") else {
        return;
    };
    let Some(given) = Given::new(&node) else {
        return;
    };
    let t1 = &node.id("t1");
    let gate = node.path("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let script = format!("#!/bin/sh\nread -r word <{}\n", gate.display());
    let digest = node.broker.has(script.as_bytes());
    let service = || {
        let mut shell = Command::new("sh");
        // What systemd does with DelegateSubgroup=supervisor.
        shell.args([
            "-ec",
            "mkdir -p \"$0\"; echo $$ >\"$0\"/cgroup.procs; exec \"$@\"",
        ]);
        shell.arg(given.0.join("supervisor"));
        shell
    };
    let name = node.id("given");
    let (program, mut peer) = node.spawn_by(service()).await;
    assert_eq!(cgroup_of(program.pid()), format!("{name}/supervisor"));
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    let leaf = given.0.join("pxp-agent").join(t1);
    wait_until("the task is in its own", || !processes(&leaf).is_empty()).await;
    assert_eq!(processes(&given.0), "", "nobody is in the service's own");
    assert_eq!(program.terminate(), Some(0));
    let (program, mut peer) = node.spawn_by(service()).await;
    assert_eq!(cgroup_of(program.pid()), format!("{name}/supervisor"));
    open_gate(gate).await;
    assert_eq!(peer.outcome(t1).await["exitcode"], 0);
    assert!(!leaf.exists());
    assert_eq!(program.terminate(), Some(0));
}
