//! `file download`, by the program, which starts itself for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use pcp::Digest;
use pxp::MessageKind::{BlockingRequest, NonBlockingRequest, ProvisionalResponse};
use serde_json::{Value, json};

use crate::node::{Node, request};
use crate::played::blocking;

fn entry(kind: &str, destination: &str, digest: Option<Digest>, link: &str) -> Value {
    json!({
        "destination": destination,
        "link_source": link,
        "uri": {"path": "/x", "params": {}},
        "sha256": digest.map(|digest| digest.to_string()).unwrap_or_default(),
        "kind": kind,
    })
}

#[tokio::test]
async fn files_directories_and_links_are_put_where_they_are_wanted() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let at = |name: &str| node.path(name).display().to_string();
    let digest = node.broker.has(b"content\n");
    let (_program, mut peer) = node.spawn().await;
    let files = json!({"files": [
        entry("directory", &at("to/dir"), None, ""),
        entry("file", &at("to/new/file"), Some(digest), ""),
        entry("symlink", &at("to/link"), None, "new/file"),
    ]});
    peer.request(NonBlockingRequest, &request(t1, "file", "download", &files))
        .await;
    peer.expect(ProvisionalResponse).await;
    let results = peer.outcome(t1).await;
    let usage = &results["usage"];
    assert_eq!(
        results,
        json!({"exitcode": 0, "stdout": "downloaded", "usage": usage})
    );
    assert!(node.path("to/dir").is_dir());
    assert_eq!(node.read("to/link"), "content\n");
    let mode = fs::metadata(node.path("to/new/file")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o7777, 0o750);
    // Once more, when nobody has the file any more: it is there.
    let changed = node.broker.has(b"changed\n");
    node.broker.lies(digest, b"wrong");
    fs::remove_dir_all(node.path("cache")).unwrap();
    let results: Value = peer.ask("file", "download", &files.to_string()).await;
    assert_eq!(results["stdout"], "downloaded");
    node.broker.lies(changed, b"wrong");
    let files = json!({"files": [
        entry("directory", &at("to/before"), None, ""),
        entry("file", &at("to/new/file"), Some(changed), ""),
        entry("directory", &at("to/after"), None, ""),
    ]});
    let body = blocking("file", "download", &files.to_string());
    peer.request(BlockingRequest, &body).await;
    let error = peer.error("q").await;
    assert!(
        error.contains("SHA that differs from the provided"),
        "{error}"
    );
    assert!(error.contains("to/new/file"), "{error}");
    assert_eq!(node.read("to/link"), "content\n");
    assert!(node.path("to/before").is_dir() && !node.path("to/after").exists());
}

#[tokio::test]
async fn what_protects_the_agent_and_its_node_is_not_overwritten() {
    let Some(node) = Node::new("") else {
        return;
    };
    node.policy("rules: { files: { when: { modules: [file] }, then: allow } }");
    let digest = node.broker.has(b"default: allow\n");
    let (_program, mut peer) = node.spawn().await;
    let to_policy = node.path("policy.d/more.conf").display().to_string();
    let files = json!({"files": [entry("file", &to_policy, Some(digest), "")]});
    let t1 = &node.id("t1");
    peer.request(NonBlockingRequest, &request(t1, "file", "download", &files))
        .await;
    peer.expect(ProvisionalResponse).await;
    let error = peer.error(t1).await;
    assert!(error.contains("Read-only file system"), "{error}");
    let status = peer.status(t1, pxp::Status::Failure).await;
    assert!(status.execution_error().is_some());
    // One that was not asked for in the right way never begins.
    for hostile in ["relative", "/../etc/passwd", "/"] {
        let files = json!({"files": [entry("file", hostile, Some(digest), "")]});
        let body = blocking("file", "download", &files.to_string());
        peer.request(BlockingRequest, &body).await;
        let error = peer.error("q").await;
        assert!(
            error.starts_with("invalid input for 'file download'"),
            "{error}"
        );
    }
    assert!(!node.path("policy.d/more.conf").exists());
}

#[tokio::test]
async fn a_profile_in_which_nothing_would_stay_is_refused() {
    let Some(node) = Node::new("") else {
        return;
    };
    let (_program, mut peer) = node.spawn().await;
    let files = json!({
        "files": [entry("directory", "/tmp/x", None, "")],
        "pxp_mesh": {"profile": "confined"},
    });
    let body = blocking("file", "download", &files.to_string());
    peer.request(BlockingRequest, &body).await;
    let error = peer.error("q").await;
    assert!(
        error.contains("nothing that it writes reaches the host"),
        "{error}"
    );
}
