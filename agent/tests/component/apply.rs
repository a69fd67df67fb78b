//! `apply prep` and `apply apply` with a real Puppet and a Puppet Server that is played here: it has one
//! plugin, a fact.

use std::path::Path;
use std::time::Duration;

use pxp::MessageKind::BlockingRequest;
use serde_json::{Value, json};
use sha2::Digest as _;

use crate::https::Primary;
use crate::node::Node;
use crate::played::{Peer, blocking};

const PUPPET: &str = "/usr/bin/puppet";

const FACT: &str = "Facter.add(:played) { setcode { 'yes' } }\n";

/// What a Puppet Server says of the plugins of the environment `production`, which alone it has.
fn plugins(line: &str) -> (String, Vec<u8>) {
    let entry = |path: &str, kind: &str, checksum: String| {
        json!({"path": "/plugins", "relative_path": path, "links": "follow", "owner": 0,
            "group": 0, "mode": 0o644, "type": kind, "destination": null,
            "checksum": {"type": "sha256", "value": format!("{{sha256}}{checksum}")}})
    };
    let directory = |path: &str| {
        let mut entry = entry(path, "directory", String::new());
        entry["mode"] = 0o755.into();
        entry["checksum"] = json!({"type": "ctime", "value": "{ctime}2026-11-29 00:00:00 UTC"});
        entry
    };
    let fact = format!("{:x}", sha2::Sha256::digest(FACT));
    let json = "200 OK\r\ncontent-type: application/json".to_owned();
    let plain = |text: &str| ("200 OK\r\ncontent-type: text/plain".to_owned(), text.into());
    match line.split(['?', ' ']).nth(1).unwrap_or_default() {
        _ if line.contains("environment=nowhere") => ("404 Not Found".to_owned(), Vec::new()),
        "/status/v1/simple/server" => plain("running"),
        "/puppet/v3/file_metadatas/plugins" => {
            let all = [
                directory("."),
                directory("facter"),
                entry("facter/played.rb", "file", fact),
            ];
            (json, json!(all).to_string().into())
        }
        "/puppet/v3/file_metadatas/pluginfacts" => {
            (json, json!([directory(".")]).to_string().into())
        }
        "/puppet/v3/file_content/plugins/facter/played.rb" => {
            let octets = "200 OK\r\ncontent-type: application/octet-stream".to_owned();
            (octets, FACT.into())
        }
        _ => ("404 Not Found".to_owned(), Vec::new()),
    }
}

/// A node with a real Puppet. Nothing, with the reason printed, where there is none.
fn node() -> Option<Node> {
    if !Path::new(PUPPET).exists() {
        let required = std::env::var("LAB_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|name| name == "stack"),
            "LAB_REQUIRE: there is no {PUPPET}"
        );
        eprintln!("skipped: there is no {PUPPET}");
        return None;
    }
    let node = Node::new("")?;
    node.reconfigure(&format!("puppet-bin: {PUPPET:?}"));
    Some(node)
}

async fn apply(peer: &mut Peer, catalog: &Value, options: &Value) -> Value {
    let params = json!({"catalog": catalog, "apply_options": options});
    let result: Value = peer.ask("apply", "apply", &params.to_string()).await;
    assert_eq!(result["exitcode"], 0, "{result:#}");
    serde_json::from_str(result["stdout"].as_str().expect("a report")).expect("JSON")
}

async fn refused(peer: &mut Peer, action: &str, params: &Value) -> String {
    let body = blocking("apply", action, &params.to_string());
    peer.request(BlockingRequest, &body).await;
    peer.any_error().await.1
}

#[tokio::test]
async fn puppet_fetches_plugins_tells_facts_and_applies_catalogs() {
    let Some(node) = node() else { return };
    let server = Primary::answering(&node.ca, plugins).await;
    node.reconfigure(&format!("primary-uris: [{:?}]", server.uri));
    let (_agent, mut peer) = node.start().await;
    // Each answer is a start of Puppet, with all its facts.
    peer.patience = Duration::from_secs(180);

    let params = json!({"environment": "production"}).to_string();
    let result: Value = peer.ask("apply", "prep", &params).await;
    assert_eq!(result["exitcode"], 0, "{result:#}");
    let facts: Value = serde_json::from_str(result["stdout"].as_str().unwrap()).unwrap();
    assert_eq!(facts["played"], "yes", "the plugin's");
    assert_eq!(facts["clientcert"], "node");
    let asked = server.asked();
    assert!(
        asked.iter().all(|(_, who)| who.as_str() == "node"),
        "{asked:?}"
    );

    let file = node.path("applied");
    let catalog = json!({
        "name": "node", "version": 1, "environment": "production", "edges": [], "classes": [],
        "resources": [{"type": "File", "title": file, "exported": false,
            "parameters": {"content": "by Puppet\n"}}],
    });
    let report = apply(&mut peer, &catalog, &json!({"noop": true})).await;
    assert_eq!(
        (&report["noop"], &report["noop_pending"]),
        (&json!(true), &json!(true))
    );
    assert!(!file.exists());
    let report = apply(&mut peer, &catalog, &json!({})).await;
    assert_eq!(report["status"], "changed", "{report:#}");
    assert_eq!(report["environment"], "production");
    assert_eq!(node.read("applied"), "by Puppet\n");
    // Of all that Puppet has kept only plugins are left.
    assert!(
        node.path("cache/plugins/production/plugins/facter/played.rb")
            .exists()
    );
    let left: Vec<_> = std::fs::read_dir(node.path("spool")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");

    // Without its plugins nothing is told or applied.
    let params = json!({"environment": "nowhere"}).to_string();
    let result: Value = peer.ask("apply", "prep", &params).await;
    assert_eq!(result["exitcode"], 1, "{result:#}");
    let stderr = result["stderr"].as_str().unwrap();
    assert!(stderr.contains("Error: "), "{stderr}");
    assert_eq!(result["stdout"], Value::Null);
}

#[tokio::test]
async fn what_puppet_lacks_is_named_before_anything_is_started() {
    let Some(node) = Node::new("") else {
        return;
    };
    let puppet = node.path("puppet");
    node.reconfigure(&format!("puppet-bin: {puppet:?}"));
    let (_agent, mut peer) = node.start().await;
    let prep = json!({"environment": "production"});
    let why = refused(&mut peer, "prep", &prep).await;
    assert!(why.contains("puppet-bin names"), "{why}");
    std::fs::write(puppet, "").unwrap();
    let why = refused(&mut peer, "prep", &prep).await;
    assert!(
        why.contains("set primary-uris") || why.contains("no ruby"),
        "{why}"
    );
    let why = refused(&mut peer, "prep", &json!({"environment": "../x"})).await;
    assert!(why.contains("the name of an environment"), "{why}");
    let catalog = json!({"catalog": {"environment": "a"}, "apply_options": {"vardir": "/"}});
    let why = refused(&mut peer, "apply", &catalog).await;
    assert!(why.contains("\"vardir\" is not permitted"), "{why}");
}
