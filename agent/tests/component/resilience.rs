//! What ends how: the outcomes that the agent's README promises, beyond those of `restart`.

use std::fs;

use pxp::MessageKind::{NonBlockingRequest, ProvisionalResponse};
use pxp::Status;
use serde_json::json;

use crate::node::{Node, open_gate, task, wait_until};

/// A task that counts its runs, says that it waits, and goes on when the test lets it.
fn gated(node: &Node) -> pcp::Digest {
    let gate = node.path("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let script = format!(
        "#!/bin/sh\necho run >> {}\nread -r word < {}\necho \"$word\"\n",
        node.path("runs").display(),
        gate.display()
    );
    node.broker.has(script.as_bytes())
}

#[tokio::test]
async fn an_agent_that_is_upgraded_under_a_running_task_delivers_its_result() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = gated(&node);
    let installed = node.path("bin");
    fs::create_dir(&installed).unwrap();
    let install = |name: &str, source: &std::path::Path| {
        // As a package manager does: the new file takes the name of the running one.
        let new = installed.join(format!("{name}.new"));
        fs::copy(source, &new).unwrap();
        fs::rename(new, installed.join(name)).unwrap();
    };
    let agent = std::path::Path::new(env!("CARGO_BIN_EXE_pxp-agent"));
    let wrapper = agent.with_file_name("execution-wrapper");
    install("pxp-agent", agent);
    install("execution-wrapper", &wrapper);
    let own = installed.join("execution-wrapper");
    node.reconfigure(&format!("execution-wrapper: {own:?}"));
    let (program, mut peer) = node.spawn_installed(&installed.join("pxp-agent")).await;
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    wait_until("the task runs", || node.read("runs") == "run\n").await;
    install("pxp-agent", agent);
    install("execution-wrapper", &wrapper);
    assert_eq!(program.terminate(), Some(0));
    let (program, mut peer) = node.spawn_installed(&installed.join("pxp-agent")).await;
    peer.status(t1, Status::Running).await;
    open_gate(node.path("gate")).await;
    let results = peer.outcome(t1).await;
    let usage = &results["usage"];
    assert_eq!(
        results,
        json!({"exitcode": 0, "stdout": "through\n", "usage": usage})
    );
    peer.acknowledge(t1).await;
    node.wait_for_state(t1, "reported").await;
    assert_eq!(node.read("runs"), "run\n");
    assert_eq!(program.terminate(), Some(0));
}

#[tokio::test]
async fn a_task_that_has_the_agent_restarted_delivers_its_result() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let (wish, done) = (node.path("wish"), node.path("done"));
    for fifo in [&wish, &done] {
        nix::unistd::mkfifo(fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    }
    // What `systemctl restart pxp-agent` is to a task: it asks somebody outside, and waits.
    let script = format!(
        "#!/bin/sh\necho restart > {}\nread -r word < {}\necho \"restarted: $word\"\n",
        wish.display(),
        done.display()
    );
    let digest = node.broker.has(script.as_bytes());
    let (program, mut peer) = node.spawn().await;
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    let asked = tokio::task::spawn_blocking(move || fs::read_to_string(wish)).await;
    assert_eq!(asked.unwrap().unwrap(), "restart\n");
    assert_eq!(program.terminate(), Some(0));
    let (program, mut peer) = node.spawn().await;
    open_gate(done).await;
    assert_eq!(peer.outcome(t1).await["stdout"], "restarted: through\n");
    assert_eq!(program.terminate(), Some(0));
}

#[tokio::test]
async fn an_agent_that_is_killed_while_files_are_fetched_says_that_nothing_ran() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = gated(&node);
    node.broker.withholds(digest);
    let (program, mut peer) = node.spawn().await;
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    wait_until("the file is asked for", || node.broker.questions() > 0).await;
    assert_eq!(node.record(t1)["state"], "accepted");
    program.kill();
    let (program, mut peer) = node.spawn().await;
    let error = peer.error(t1).await;
    assert!(
        error.contains("it did not run and can be run again"),
        "{error}"
    );
    assert_eq!(node.read("runs"), "");
    assert_eq!(program.terminate(), Some(0));
}

#[tokio::test]
async fn a_clock_that_jumps_changes_neither_what_is_promised_nor_what_has_run() {
    let Some(node) = Node::new("spool-dir-purge-ttl: 14d") else {
        return;
    };
    let ids = ["future", "recent"].map(|name| node.id(name));
    let digest = node.broker.has(b"#!/bin/sh\necho done\n");
    let (agent, mut peer) = node.start().await;
    for id in &ids {
        peer.request(NonBlockingRequest, &task(id, digest, "{}", ""))
            .await;
        peer.expect(ProvisionalResponse).await;
        peer.outcome(id).await;
    }
    peer.acknowledge(&ids[1]).await;
    node.wait_for_state(&ids[1], "reported").await;
    assert!(agent.stop().await);
    // What a clock that ran ahead, and was set back since, has left: ends that lie in the future.
    for id in &ids {
        let path = node.path(&format!("spool/{id}/metadata"));
        let mut record = node.record(id);
        record["start"] = json!("2099-01-01T00:00:00Z");
        record["end"] = json!("2099-01-01T00:00:01Z");
        fs::write(&path, record.to_string()).unwrap();
    }
    let (_agent, mut peer) = node.start().await;
    assert_eq!(peer.outcome(&ids[0]).await["stdout"], "done\n");
    peer.status(&ids[1], Status::Success).await;
    // The same request is told its outcome and not run: ids do not go by time.
    peer.request(NonBlockingRequest, &task(&ids[1], digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    assert_eq!(peer.outcome(&ids[1]).await["stdout"], "done\n");
}

#[tokio::test]
async fn a_wrapper_that_is_killed_ends_its_task_and_is_told_as_that() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = gated(&node);
    let (program, mut peer) = node.spawn().await;
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    wait_until("the task runs", || node.read("runs") == "run\n").await;
    // Everything of the agent dies, as when the machine is switched off; here the task's tree is
    // left to the next agent.
    let wrappers = wrappers(program.pid());
    program.kill();
    for wrapper in wrappers {
        nix::sys::signal::kill(wrapper, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    let (program, mut peer) = node.spawn().await;
    let error = peer.error(t1).await;
    assert!(
        error.contains("may have done a part of its work"),
        "{error}"
    );
    assert_eq!(node.read("runs"), "run\n");
    assert_eq!(program.terminate(), Some(0));
}

/// The wrappers that an agent has had made: the children of its launcher.
pub(crate) fn wrappers(pid: u32) -> Vec<nix::unistd::Pid> {
    let launchers = children(pid);
    assert_eq!(launchers.len(), 1, "one process makes them");
    let wrappers: Vec<_> = launchers.into_iter().flat_map(children).collect();
    assert!(!wrappers.is_empty());
    wrappers
        .into_iter()
        .map(|pid| nix::unistd::Pid::from_raw(pid.cast_signed()))
        .collect()
}

/// The children of a process.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let lists =
        tasks.map(|task| fs::read_to_string(task.unwrap().path().join("children")).unwrap());
    lists
        .flat_map(|list| {
            let pids = list.split_whitespace().map(|pid| pid.parse().unwrap());
            pids.collect::<Vec<_>>()
        })
        .collect()
}
