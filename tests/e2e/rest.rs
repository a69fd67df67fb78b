//! An agent that has nothing to do takes little memory, and is as ready as before.

use std::fs;
use std::time::Duration;

use lab::wait_until;

use crate::support::{mesh, text};

/// An agent is at rest some seconds after its start; a loaded machine takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is resident of the process's files, which is nearly all its program, in KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssFile:"));
    let words = line.expect("a kernel that tells").split_whitespace();
    words.take(1).collect::<String>().parse().expect("KiB")
}

#[test]
fn an_agent_at_rest_lets_go_of_its_program_and_runs_the_next_task() {
    let lab = mesh(1);
    let pid = lab.pid("agent-1").expect("it runs");
    let busy = resident(pid);
    let rested = wait_until("the agent lets go", PATIENCE, || {
        let now = resident(pid);
        if now * 3 < busy * 2 {
            Ok(now)
        } else {
            Err(format!("{now} KiB of {busy}"))
        }
    });
    rested.expect("it is small");
    let output = lab.puppet_task(&["run", "sample", "message=awake", "--nodes", "agent-1"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("awake"), "{}", text(&output));
    assert_eq!(lab.pid("agent-1"), Some(pid));
}
