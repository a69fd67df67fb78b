//! `output read`: what a task writes, while it runs and afterwards, across restarts of the agent.

use pxp::MessageKind::{BlockingRequest, NonBlockingRequest, ProvisionalResponse};
use pxp::{OutputChunk, Status, StreamChunk};

use crate::node::{Node, open_gate, task, wait_until};
use crate::played::{Peer, blocking};
use crate::resilience::wrappers;

/// Takes answers until this transaction's question is answered; outcomes are passed over.
async fn ask(peer: &mut Peer, id: &str, stdout: u64, stderr: u64, wait_ms: u64) -> OutputChunk {
    let params = format!(
        r#"{{"transaction_id":"{id}","stdout":{stdout},"stderr":{stderr},"wait_ms":{wait_ms}}}"#
    );
    peer.request(BlockingRequest, &blocking("output", "read", &params))
        .await;
    loop {
        let answer = peer.answer().await;
        if answer.kind == "rpc_blocking_response" {
            return serde_json::from_value(answer.body["results"].clone()).unwrap();
        }
        assert_eq!(answer.kind, "rpc_non_blocking_response", "{}", answer.body);
    }
}

/// Follows a task to its end.
async fn follow(peer: &mut Peer, id: &str, mut at: (u64, u64)) -> (Vec<u8>, Vec<u8>, Status) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        let chunk = ask(peer, id, at.0, at.1, 10_000).await;
        at = (chunk.stdout.next, chunk.stderr.next);
        stdout.extend(chunk.stdout.data);
        stderr.extend(chunk.stderr.data);
        if chunk.end {
            return (stdout, stderr, chunk.status);
        }
    }
}

fn gate(node: &Node) -> std::path::PathBuf {
    let gate = node.path("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    gate
}

#[tokio::test]
async fn output_is_read_while_the_task_runs_and_the_rest_when_it_is_there() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let gate = gate(&node);
    let script = format!(
        "#!/bin/sh\nprintf 'first gr\\303'\nread -r word <{}\nprintf '\\274n'\necho second >&2\nexit 3\n",
        gate.display()
    );
    let digest = node.broker.has(script.as_bytes());
    let (_agent, mut peer) = node.start().await;
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    let chunk = ask(&mut peer, t1, 0, 0, 30_000).await;
    assert_eq!((chunk.status, chunk.end), (Status::Running, false));
    assert_eq!(chunk.stdout.data, b"first gr", "half a character waits");
    assert_eq!((chunk.stdout.next, chunk.stdout.total), (8, 9));
    assert_eq!(chunk.stderr, StreamChunk::default());
    let chunk = ask(&mut peer, t1, 8, 0, 0).await;
    assert_eq!((chunk.stdout.data, chunk.end), (Vec::new(), false));
    open_gate(gate).await;
    let (stdout, stderr, status) = follow(&mut peer, t1, (8, 0)).await;
    assert_eq!(stdout, "ün".as_bytes());
    assert_eq!(stderr, b"second\n");
    assert_eq!(status, Status::Failure);
    // The same again, once only the spool knows it.
    peer.acknowledge(t1).await;
    node.wait_for_state(t1, "reported").await;
    let (stdout, _, status) = follow(&mut peer, t1, (0, 0)).await;
    assert_eq!(stdout, "first grün".as_bytes());
    assert_eq!(status, Status::Failure);
    let chunk = ask(&mut peer, "nobody", 5, 5, 10_000).await;
    assert_eq!((chunk.status, chunk.end), (Status::Unknown, true));
}

#[tokio::test]
async fn a_reader_goes_on_where_it_was_when_the_agent_has_been_replaced() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let gate = gate(&node);
    let script = format!(
        "#!/bin/sh\nseq 1 10000\nread -r word <{}\nseq 10001 20000\n",
        gate.display()
    );
    let whole: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
    let half: String = (1..=10_000).map(|n| format!("{n}\n")).collect();
    let digest = node.broker.has(script.as_bytes());
    let (program, mut peer) = node.spawn().await;
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    let stdout = format!("spool/{t1}/stdout");
    wait_until("the first half is there", || node.read(&stdout) == half).await;
    let first = ask(&mut peer, t1, 0, 0, 0).await;
    assert_eq!(first.stdout.data, half.as_bytes());
    program.kill();
    peer.drop_connection().await;
    let (_program, mut peer) = node.spawn().await;
    open_gate(gate).await;
    let (rest, _, status) = follow(&mut peer, t1, (first.stdout.next, 0)).await;
    let mut read = first.stdout.data;
    read.extend(rest);
    assert!(read == whole.as_bytes(), "every byte once, in order");
    assert_eq!(status, Status::Success);
}

/// The most memory that a process has had at once, in KiB.
fn peak(pid: impl std::fmt::Display) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let line = line.unwrap().trim().strip_suffix("kB").unwrap();
    line.trim().parse().unwrap()
}

/// How much a flood writes before it is measured what it has cost, in bytes.
const FLOOD: u64 = 64 << 20;

/// What it may cost the agent and the task's wrapper, in KiB.
const COST: u64 = 24 << 10;

#[tokio::test]
async fn a_flood_is_followed_with_its_gaps_told_and_neither_fills_memory_nor_delays_others() {
    let Some(node) = Node::new("task-output-limit: 1MiB") else {
        return;
    };
    let (t1, t2) = (&node.id("t1"), &node.id("t2"));
    let flood = node
        .broker
        .has(b"#!/bin/sh\nwhile [ ! -e \"$PT_on\" ]; do seq 100000; done\n");
    let small = node.broker.has(b"#!/bin/sh\necho small\n");
    let (program, mut peer) = node.spawn().await;
    let agent = peak(program.pid());
    let on = node.path("on");
    let input = format!(r#"{{"on":"{}"}}"#, on.display());
    peer.request(NonBlockingRequest, &task(t1, flood, &input, ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    let mut chunk = ask(&mut peer, t1, 0, 0, 30_000).await;
    while chunk.stdout.total < FLOOD {
        chunk = ask(&mut peer, t1, 0, 0, 0).await;
    }
    let grown = peak(program.pid()) - agent;
    assert!(grown < COST, "the agent has taken {grown} KiB more");
    for wrapper in wrappers(program.pid()) {
        let taken = peak(wrapper);
        assert!(taken < COST, "the wrapper has taken {taken} KiB");
    }
    // In the middle of it another task runs as ever.
    peer.request(NonBlockingRequest, &task(t2, small, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    assert_eq!(peer.outcome(t2).await["stdout"], "small\n");
    std::fs::write(on, "").unwrap();
    let (mut at, mut read) = (0, 0);
    loop {
        let chunk = ask(&mut peer, t1, at, 0, 10_000).await;
        assert!(chunk.stdout.offset >= at);
        assert!(chunk.stdout.data.len() <= pxp::MAX_CHUNK);
        read += chunk.stdout.data.len();
        at = chunk.stdout.next;
        if chunk.end {
            assert_eq!(at, chunk.stdout.total);
            assert!(at > FLOOD, "{at}");
            break;
        }
    }
    assert!((256 << 10..=8 << 20).contains(&read), "{read}");
    let kept: u64 = std::fs::read_dir(node.path(&format!("spool/{t1}")))
        .unwrap()
        .flatten()
        .filter(|file| file.file_name().to_string_lossy().starts_with("stdout"))
        .map(|file| file.metadata().unwrap().len())
        .sum();
    assert!(kept <= 1 << 20, "{kept}");
}
