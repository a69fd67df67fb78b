//! A full disk: new work is refused with the true reason, and what was promised is kept. The spool lies
//! on a small file system of its own, in a mount namespace of the agent alone.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use pxp::MessageKind::{BlockingRequest, NonBlockingRequest, ProvisionalResponse};

use crate::node::{Node, Program, open_gate, params, task, wait_until};
use crate::played::{Peer, blocking};

/// How large the small file system is.
const SIZE: u64 = 4 * 1024 * 1024;

/// Whether file systems can be mounted here.
fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let required = std::env::var("LAB_REQUIRE").unwrap_or_default();
    assert!(root || !required.split(',').any(|name| name == "root"));
    if !root {
        eprintln!("skipped: only root can mount a small file system");
    }
    root
}

/// An agent whose spool is small, and the spool as it sees it.
async fn start(node: &Node) -> (Program, Peer, PathBuf) {
    let spool = node.path("spool");
    fs::create_dir_all(&spool).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-ec"])
        .arg(format!(
            "mount -t tmpfs -o size={SIZE},mode=700 small {0}; exec \"$@\"",
            spool.display()
        ))
        .arg("sh");
    let (program, peer) = node.spawn_by(command).await;
    let seen = PathBuf::from(format!("/proc/{}/root", program.pid()));
    let seen = seen.join(spool.strip_prefix("/").unwrap());
    (program, peer, seen)
}

/// Leaves less than `free` bytes.
fn fill(spool: &std::path::Path, free: u64) -> PathBuf {
    let filler = spool.join(".filler");
    let room = pxp_agent::disk::Room::of(spool).unwrap().bytes;
    let size = usize::try_from(room - free).unwrap();
    fs::write(&filler, vec![b'x'; size]).unwrap();
    filler
}

fn gated(node: &Node) -> pcp::Digest {
    let gate = node.path("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let script = format!(
        "#!/bin/sh\necho before\nread -r word < {}\necho run >> {}\necho $word\nhead -c 100000 /dev/zero | tr '\\0' x\nexit 3\n",
        gate.display(),
        node.path("runs").display()
    );
    node.broker.has(script.as_bytes())
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_takes_no_new_work_and_keeps_its_promises() {
    if !is_root() {
        return;
    }
    let Some(node) = Node::new("spool-dir-reserve: 1MiB") else {
        return;
    };
    let [t1, t2, t3] = ["t1", "t2", "t3"].map(|name| node.id(name));
    let digest = gated(&node);
    let (program, mut peer, spool) = start(&node).await;
    peer.request(NonBlockingRequest, &task(&t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    let stdout = spool.join(&t1).join("stdout");
    wait_until("the task runs", || {
        fs::read(&stdout).is_ok_and(|text| text == b"before\n")
    })
    .await;
    let filler = fill(&spool, 512 * 1024);
    peer.request(NonBlockingRequest, &task(&t2, digest, "{}", ""))
        .await;
    let error = peer.error(&t2).await;
    let wanted = format!(
        "the disk of {} is nearly full: ",
        node.path("spool").display()
    );
    assert!(error.contains(&wanted), "{error}");
    assert!(error.contains("1048576 are kept"), "{error}");
    assert!(
        error.ends_with("spool-dir-reserve says how much is kept"),
        "{error}"
    );
    let body = blocking("task", "run", &params(digest, "{}", ""));
    peer.request(BlockingRequest, &body).await;
    let error = peer.error("q").await;
    assert!(error.contains("nearly full"), "{error}");
    // What was accepted is not touched by it.
    open_gate(node.path("gate")).await;
    let results = peer.outcome(&t1).await;
    assert_eq!(results["exitcode"], 3);
    let told = results["stdout"].as_str().unwrap();
    assert!(
        told.starts_with("before\nthrough\nxxx") && told.len() == 100_015,
        "{}",
        told.len()
    );
    fs::remove_file(filler).unwrap();
    peer.request(NonBlockingRequest, &task(&t3, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    open_gate(node.path("gate")).await;
    assert_eq!(peer.outcome(&t3).await["exitcode"], 3);
    assert_eq!(program.terminate(), Some(0));
}

#[tokio::test]
async fn a_disk_without_a_byte_left_loses_output_and_not_how_the_task_ended() {
    if !is_root() {
        return;
    }
    let Some(node) = Node::new("spool-dir-reserve: 0") else {
        return;
    };
    let [t1, t2] = ["t1", "t2"].map(|name| node.id(name));
    let digest = gated(&node);
    let (program, mut peer, spool) = start(&node).await;
    peer.request(NonBlockingRequest, &task(&t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    let stdout = spool.join(&t1).join("stdout");
    wait_until("the task runs", || {
        fs::read(&stdout).is_ok_and(|text| text == b"before\n")
    })
    .await;
    fill(&spool, 0);
    peer.request(NonBlockingRequest, &task(&t2, digest, "{}", ""))
        .await;
    let error = peer.error(&t2).await;
    assert!(error.contains("No space left on device"), "{error}");
    assert!(
        error.contains(&t2) && error.ends_with("; free space there"),
        "{error}"
    );
    open_gate(node.path("gate")).await;
    let error = peer.error(&t1).await;
    assert_eq!(
        error,
        "the task ended with exit code 3, but its output could not be kept: No space left on device \
         (os error 28)"
    );
    assert_eq!(node.read("runs"), "run\n");
    assert_eq!(program.terminate(), Some(0));
}

/// What came of a request, whatever it was.
#[derive(Debug, PartialEq)]
enum End {
    /// It was not taken on, for this reason.
    Refused(String),
    /// It was, and there is no result, for this reason.
    Failed(String),
    /// It has a result.
    Ran,
}

async fn end_of(peer: &mut Peer, id: &str) -> End {
    let mut accepted = false;
    loop {
        let answer = peer.answer().await;
        assert_eq!(answer.body["transaction_id"], id, "{}", answer.body);
        let why = || answer.body["description"].as_str().unwrap().to_owned();
        match answer.kind.as_str() {
            "rpc_error_message" if accepted => return End::Failed(why()),
            "rpc_error_message" => return End::Refused(why()),
            "rpc_non_blocking_response" => return End::Ran,
            other => {
                assert_eq!(other, "rpc_provisional_response");
                accepted = true;
            }
        }
    }
}

/// Whichever of a transaction's writes is the first that fails, its requester hears of it.
#[tokio::test]
async fn wherever_the_disk_ends_each_request_has_an_answer_and_none_runs_twice() {
    if !is_root() {
        return;
    }
    let Some(node) = Node::new("spool-dir-reserve: 0") else {
        return;
    };
    let (program, mut peer, spool) = start(&node).await;
    let runs = node.path("runs");
    let mut ends = Vec::new();
    for pages in 0..=16 {
        let id = node.id(&format!("t{pages}"));
        let script = format!("#!/bin/sh\necho {id} >> {}\necho done\n", runs.display());
        let digest = node.broker.has(script.as_bytes());
        let filler = fill(&spool, pages * 4096);
        let request = task(&id, digest, "{}", "");
        peer.request(NonBlockingRequest, &request).await;
        let end = end_of(&mut peer, &id).await;
        fs::remove_file(filler).unwrap();
        let count = || node.read("runs").lines().filter(|line| *line == id).count();
        match &end {
            End::Refused(why) => {
                assert!(why.contains("No space left on device"), "{pages}: {why}");
                assert_eq!(count(), 0, "{pages}: {why}");
                // It left nothing behind: the same id may be asked for once there is room.
                peer.request(NonBlockingRequest, &request).await;
                assert_eq!(end_of(&mut peer, &id).await, End::Ran, "{pages}: {why}");
                assert_eq!(count(), 1);
            }
            End::Failed(why) => {
                assert!(why.contains("No space left on device"), "{pages}: {why}");
                assert!(count() <= 1, "{pages}: {why}");
            }
            End::Ran => assert_eq!(count(), 1, "{pages}"),
        }
        peer.acknowledge(&id).await;
        ends.push(end);
    }
    assert!(matches!(ends.first(), Some(End::Refused(_))), "{ends:?}");
    assert!(
        ends.iter().any(|end| matches!(end, End::Failed(_))),
        "{ends:?}"
    );
    assert_eq!(ends.last(), Some(&End::Ran), "{ends:?}");
    assert_eq!(program.terminate(), Some(0));
}
