//! The agent is stopped, or killed, at every state of a transaction.

use std::os::unix::fs::OpenOptionsExt;

use pxp::MessageKind::{BlockingRequest, NonBlockingRequest, ProvisionalResponse};
use pxp::Status;

use crate::node::{Node, open_gate, params, task, wait_until};
use crate::played::blocking;

/// A task that counts its runs and then waits for the test.
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
async fn a_task_outlives_an_agent_that_is_stopped_and_its_outcome_arrives() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = gated(&node);
    let (agent, mut peer) = node.start().await;
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    wait_until("the task runs", || node.read("runs") == "run\n").await;
    assert!(agent.stop().await);
    let (_agent, mut peer) = node.start().await;
    peer.status(t1, Status::Running).await;
    open_gate(node.path("gate")).await;
    assert_eq!(peer.outcome(t1).await["stdout"], "through\n");
    assert_eq!(node.read("runs"), "run\n");
}

#[tokio::test]
async fn a_task_outlives_an_agent_that_is_killed_and_may_end_without_it() {
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
    program.kill();
    open_gate(node.path("gate")).await;
    wait_until("the task has ended", || {
        node.path(&format!("spool/{t1}/report.json")).exists()
    })
    .await;
    let (program, mut peer) = node.spawn().await;
    assert_eq!(peer.outcome(t1).await["stdout"], "through\n");
    // Killed before the acknowledgement: it is told again.
    program.kill();
    let (program, mut peer) = node.spawn().await;
    assert_eq!(peer.outcome(t1).await["stdout"], "through\n");
    peer.acknowledge(t1).await;
    node.wait_for_state(t1, "reported").await;
    program.kill();
    let (program, mut peer) = node.spawn().await;
    peer.nothing_waits().await;
    assert_eq!(program.terminate(), Some(0));
    assert_eq!(node.read("runs"), "run\n");
}

#[tokio::test]
async fn what_waited_for_its_turn_when_the_agent_was_killed_did_not_run_and_says_so() {
    let Some(node) = Node::new("task-concurrency: 1") else {
        return;
    };
    let t2 = &node.id("t2");
    let t1 = &node.id("t1");
    let digest = gated(&node);
    let (program, mut peer) = node.spawn().await;
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    wait_until("the task runs", || node.read("runs") == "run\n").await;
    peer.request(NonBlockingRequest, &task(t2, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    peer.status(t2, Status::Running).await;
    program.kill();
    let (_program, mut peer) = node.spawn().await;
    let error = peer.error(t2).await;
    assert!(error.contains("it did not run"), "{error}");
    // The repetition of the request does not run it either.
    peer.request(NonBlockingRequest, &task(t2, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    assert_eq!(peer.error(t2).await, error);
    open_gate(node.path("gate")).await;
    assert_eq!(peer.outcome(t1).await["stdout"], "through\n");
    assert_eq!(node.read("runs"), "run\n");
}

#[tokio::test]
async fn a_task_whose_wrapper_was_lost_with_the_node_is_a_failure_with_its_cause() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = gated(&node);
    let (agent, mut peer) = node.start().await;
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    wait_until("the task runs", || node.read("runs") == "run\n").await;
    assert!(agent.stop().await);
    // What is left of it after the power was cut: the record, and a pipe that nobody holds.
    open_gate(node.path("gate")).await;
    wait_until("the task has ended", || {
        node.path(&format!("spool/{t1}/report.json")).exists()
    })
    .await;
    std::fs::remove_file(node.path(&format!("spool/{t1}/report.json"))).unwrap();
    let (_agent, mut peer) = node.start().await;
    let error = peer.error(t1).await;
    assert!(
        error.contains("may have done a part of its work"),
        "{error}"
    );
}

#[tokio::test]
async fn what_the_machines_restart_left_unknown_is_told_as_that_and_not_run_again() {
    let Some(node) = Node::new("task-concurrency: 1") else {
        return;
    };
    let (t1, t2) = (&node.id("t1"), &node.id("t2"));
    let digest = gated(&node);
    let (program, mut peer) = node.spawn().await;
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    wait_until("the task runs", || node.read("runs") == "run\n").await;
    peer.request(NonBlockingRequest, &task(t2, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    open_gate(node.path("gate")).await;
    assert_eq!(peer.outcome(t1).await["stdout"], "through\n");
    wait_until("the second runs", || node.read("runs") == "run\nrun\n").await;
    program.kill();
    open_gate(node.path("gate")).await;
    let report = node.path(&format!("spool/{t2}/report.json"));
    wait_until("the second has ended", || report.exists()).await;
    // What the disk may have after the power was cut: the report without the output, and of the
    // other nothing but what was flushed before its requester heard of it.
    let file = |id: &str, name: &str| node.path(&format!("spool/{id}/{name}"));
    std::fs::write(file(t1, "stdout"), "").unwrap();
    let records = node.read(&format!("spool/{t2}/metadata"));
    let mut first: serde_json::Value =
        serde_json::from_str(records.lines().next().unwrap()).unwrap();
    assert_eq!(first["state"], "accepted");
    first["boot"] = "an earlier one".into();
    std::fs::remove_dir_all(node.path(&format!("spool/{t2}"))).unwrap();
    std::fs::create_dir(node.path(&format!("spool/{t2}"))).unwrap();
    std::fs::write(file(t2, "metadata"), first.to_string()).unwrap();
    let (_program, mut peer) = node.spawn().await;
    let mut told = [peer.any_error().await, peer.any_error().await];
    told.sort();
    let [(first, cut), (second, unknown)] = told;
    assert_eq!((&first, &second), (t1, t2));
    assert!(cut.contains("output was lost when the machine"), "{cut}");
    assert!(unknown.contains("machine restarted"), "{unknown}");
    assert!(unknown.contains("may have done a part"), "{unknown}");
    assert_eq!(node.read("runs"), "run\nrun\n");
}

#[tokio::test]
async fn an_unreadable_entry_is_left_alone_and_its_id_not_used() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = gated(&node);
    let entry = node.path(&format!("spool/{t1}"));
    std::fs::create_dir_all(&entry).unwrap();
    std::fs::write(entry.join("metadata"), "garbage").unwrap();
    let (_agent, mut peer) = node.start().await;
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    let error = peer.error(t1).await;
    assert!(error.contains("leaves them alone"), "{error}");
    assert_eq!(node.read(&format!("spool/{t1}/metadata")), "garbage");
}

#[tokio::test]
async fn a_blocking_task_whose_requester_lost_the_agent_is_ended_and_cleared_away() {
    let Some(node) = Node::new("") else {
        return;
    };
    let digest = gated(&node);
    let (program, mut peer) = node.spawn().await;
    let body = blocking("task", "run", &params(digest, "{}", ""));
    peer.request(BlockingRequest, &body).await;
    wait_until("the task runs", || node.read("runs") == "run\n").await;
    program.kill();
    let left = || std::fs::read_dir(node.path("spool")).unwrap().count();
    assert_eq!(left(), 2);
    let (_program, _peer) = node.spawn().await;
    wait_until("only the lock is left", || left() == 1).await;
    let gate = std::fs::OpenOptions::new()
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(node.path("gate"));
    assert_eq!(gate.unwrap_err().raw_os_error(), Some(nix::libc::ENXIO));
}

#[tokio::test]
async fn what_is_old_is_removed_at_the_start_and_what_is_not_told_yet_is_not() {
    let Some(node) = Node::new("") else {
        return;
    };
    let digest = node.broker.has(b"#!/bin/sh\n");
    let (agent, mut peer) = node.start().await;
    let [told, untold] = ["told", "untold"].map(|name| node.id(name));
    for id in [&told, &untold] {
        peer.request(NonBlockingRequest, &task(id, digest, "{}", ""))
            .await;
        peer.expect(ProvisionalResponse).await;
        peer.outcome(id).await;
    }
    peer.acknowledge(&told).await;
    node.wait_for_state(&told, "reported").await;
    assert!(agent.stop().await);
    node.reconfigure("task-cache-dir-purge-ttl: 1ms");
    let (agent, mut peer) = node.start().await;
    peer.outcome(&untold).await;
    let cached = node.path(&format!("cache/{digest}"));
    wait_until("the cache is empty", || !cached.exists()).await;
    assert!(node.path(&format!("spool/{told}")).exists());
    assert!(agent.stop().await);
    node.reconfigure("spool-dir-purge-ttl: 1ms");
    let (_agent, mut peer) = node.start().await;
    let gone = node.path(&format!("spool/{told}"));
    wait_until("the told one is gone", || !gone.exists()).await;
    // It is too old, too: given up, and removed by the same look.
    let gone = node.path(&format!("spool/{untold}"));
    wait_until("the untold one is given up", || !gone.exists()).await;
    peer.status(&told, Status::Unknown).await;
    peer.status(&untold, Status::Unknown).await;
}

#[tokio::test]
async fn more_than_the_bounds_allow_is_removed_the_oldest_first_and_nothing_that_is_promised() {
    let Some(node) = Node::new("") else {
        return;
    };
    let (agent, mut peer) = node.start().await;
    let mut digests = Vec::new();
    let ids = ["untold", "first", "second", "third"].map(|name| node.id(name));
    for (n, id) in ids.iter().enumerate() {
        let digest = node.broker.has(format!("#!/bin/sh\necho {n}\n").as_bytes());
        digests.push(digest);
        peer.request(NonBlockingRequest, &task(id, digest, "{}", ""))
            .await;
        peer.expect(ProvisionalResponse).await;
        peer.outcome(id).await;
        if n > 0 {
            peer.acknowledge(id).await;
            node.wait_for_state(id, "reported").await;
        }
    }
    assert!(agent.stop().await);
    node.reconfigure("spool-dir-max-count: 2\ntask-cache-dir-max-count: 1");
    let (_agent, mut peer) = node.start().await;
    peer.outcome(&ids[0]).await;
    let spool = |n: usize| node.path(&format!("spool/{}", ids[n]));
    let cached = |n: usize| node.path(&format!("cache/{}", digests[n]));
    wait_until("the oldest are gone", || {
        !spool(1).exists() && !spool(2).exists() && !cached(2).exists()
    })
    .await;
    assert!(spool(0).exists() && spool(3).exists() && cached(3).exists());
    assert!(!cached(0).exists() && !cached(1).exists());
    // What is gone from the cache is fetched again.
    let again = node.id("again");
    peer.request(NonBlockingRequest, &task(&again, digests[1], "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    assert_eq!(peer.outcome(&again).await["stdout"], "1\n");
}

#[tokio::test]
async fn what_nobody_can_read_is_removed_when_it_is_too_old_and_what_a_newer_agent_wrote_is_not() {
    let Some(node) = Node::new("") else {
        return;
    };
    let entry = |id: &str| node.path(&format!("spool/{id}"));
    for (id, text) in [
        ("garbage", "x"),
        ("newer", "{\"version\": 99}"),
        ("empty", ""),
    ] {
        std::fs::create_dir_all(entry(id)).unwrap();
        std::fs::write(entry(id).join("metadata"), text).unwrap();
    }
    std::fs::create_dir_all(entry("nothing-in-it")).unwrap();
    std::fs::create_dir_all(entry("not a transaction")).unwrap();
    std::fs::create_dir_all(entry(".new-half")).unwrap();
    node.reconfigure("spool-dir-purge-ttl: 1ms");
    let (_agent, _peer) = node.start().await;
    wait_until("what is corrupt is gone", || {
        ["garbage", "empty", "nothing-in-it", ".new-half"]
            .iter()
            .all(|id| !entry(id).exists())
    })
    .await;
    assert!(entry("newer").exists() && entry("not a transaction").exists());
}

#[tokio::test]
async fn parameters_are_neither_logged_nor_written_down() {
    let Some(node) = Node::new("loglevel: trace") else {
        return;
    };
    let id = &node.id("t");
    let digest = gated(&node);
    let (program, mut peer) = node.spawn().await;
    let input = r#"{"password":"hunter2-secret","nested":{"token":"hunter2-secret"}}"#;
    peer.request(NonBlockingRequest, &task(id, digest, input, ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    wait_until("the task runs", || node.read("runs") == "run\n").await;
    let found = |when: &str| {
        let output = std::process::Command::new("grep")
            .args(["-r", "-l", "--devices=skip", "hunter2"])
            .arg(node.dir.path())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{when}");
    };
    found("while it runs");
    assert!(node.read("log").contains("transaction accepted"));
    open_gate(node.path("gate")).await;
    peer.outcome(id).await;
    peer.acknowledge(id).await;
    node.wait_for_state(id, "reported").await;
    program.kill();
    found("afterwards");
}

#[tokio::test]
async fn a_log_that_was_moved_away_is_begun_anew_on_the_second_user_signal() {
    let Some(node) = Node::new("") else {
        return;
    };
    let (log, access) = (node.path("agent.log"), node.path("pcp-access.log"));
    node.reconfigure(&format!("logfile: {log:?}\nlog-pcp-access: true"));
    let (program, mut peer) = node.spawn().await;
    peer.nothing_waits().await;
    wait_until("the message is noted", || {
        let noted = node.read("pcp-access.log");
        noted.contains(
            "] AUTHORIZATION_SUCCESS broker pcp://orchestrator/orchestrator rpc_blocking_request ",
        )
    })
    .await;
    std::fs::rename(&log, node.path("agent.log.1")).unwrap();
    std::fs::rename(&access, node.path("pcp-access.log.1")).unwrap();
    program.signal(nix::sys::signal::Signal::SIGUSR2);
    wait_until("both files are there again", || {
        log.exists() && access.exists()
    })
    .await;
    peer.nothing_waits().await;
    wait_until("it goes on there", || {
        node.read("pcp-access.log").contains("AUTHORIZATION")
    })
    .await;
    assert!(node.read("agent.log.1").contains("pxp-agent started"));
    assert_eq!(program.terminate(), Some(0));
}

#[tokio::test]
async fn the_exit_codes_are_the_originals() {
    let Some(node) = Node::new("") else {
        return;
    };
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pxp-agent"));
        let output = command.args(arguments).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), told)
    };
    let config = node.path("pxp-agent.conf");
    let config = config.to_str().unwrap();
    assert_eq!(run(&["--version"]).0, Some(0));
    assert_eq!(run(&["-help"]).0, Some(0));
    assert_eq!(run(&["--no-such-option"]).0, Some(2));
    // The unconfigured agent.
    let (code, told) = run(&["--config-file", "/no/such/file.conf"]);
    assert_eq!(code, Some(3));
    assert!(told.contains("there is no such file"), "{told}");
    std::fs::write(node.path("broken.conf"), "{").unwrap();
    assert_eq!(
        run(&["--config", node.path("broken.conf").to_str().unwrap()]).0,
        Some(2)
    );
    let (code, told) = run(&["--config", config, "--ssl-key", "/no/key", "--foreground"]);
    assert_eq!(code, Some(3));
    assert!(told.contains("/no/key"), "{told}");
    // A second agent on the same spool; a lock file that a dead one left is no obstacle.
    let (program, _peer) = node.spawn().await;
    let (code, told) = run(&["--config", config]);
    assert_eq!(code, Some(1));
    assert!(told.contains("another agent uses the spool"), "{told}");
    program.kill();
    assert!(node.path("spool/.lock").exists());
    let (program, _peer) = node.spawn().await;
    assert_eq!(program.terminate(), Some(0));
}

#[tokio::test]
async fn a_renewed_certificate_is_in_use_after_a_hangup_and_a_broken_one_is_not() {
    let Some(node) = Node::new("") else {
        return;
    };
    let (program, mut peer) = node.spawn().await;
    let first = peer.certificate();
    let ssl = node.ca.issue("node", &[]).unwrap();
    program.signal(nix::sys::signal::Signal::SIGHUP);
    wait_until("it says so", || {
        node.read("log").contains("certificates replaced")
    })
    .await;
    peer.status(&node.id("t1"), Status::Unknown).await;
    peer.drop_connection().await;
    let mut peer = node.broker.welcome().await;
    let second = peer.certificate();
    assert_ne!(first, second);
    std::fs::write(ssl.cert(), "broken").unwrap();
    program.signal(nix::sys::signal::Signal::SIGHUP);
    wait_until("it says what is wrong", || {
        let log = node.read("log");
        log.lines()
            .any(|line| line.contains("node.pem") && !line.contains("INFO"))
    })
    .await;
    peer.nothing_waits().await;
    peer.drop_connection().await;
    let peer = node.broker.welcome().await;
    assert_eq!(peer.certificate(), second);
    assert_eq!(program.terminate(), Some(0));
}
