//! `pxp-module-puppet run` beside a run that somebody else has started, with the Puppet of this machine:
//! its lock, its words, its report.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pxp::MessageKind::{NonBlockingRequest, ProvisionalResponse};
use pxp::{PuppetRunError, PuppetRunResult};
use serde_json::json;

use crate::node::{Node, request, wait_at_most};

const PUPPET: &str = "/usr/bin/puppet";

/// Puppet takes half a minute to begin on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(240);

/// A node whose Puppet has a server that accepts every connection and never says a word.
struct Silent {
    node: Node,
    server: TcpListener,
}

impl Silent {
    fn new() -> Option<Self> {
        let required = std::env::var("LAB_REQUIRE").unwrap_or_default();
        if !Path::new(PUPPET).exists() {
            assert!(!required.split(',').any(|name| name == "stack"));
            eprintln!("skipped: there is no {PUPPET}");
            return None;
        }
        let node = Node::new("")?;
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let puppet = node.path("puppet");
        let ssl = node.ca.issue("node", &[]).unwrap();
        let script = format!(
            "#!/bin/sh\nexec {PUPPET} \"$@\" --confdir {conf} --vardir {var} --ssldir {ssl} \
             --certname node --server 127.0.0.1 --masterport {port}\n",
            conf = node.path("conf").display(),
            var = node.path("var").display(),
            ssl = ssl.dir.display(),
        );
        fs::write(&puppet, script).unwrap();
        fs::set_permissions(&puppet, fs::Permissions::from_mode(0o755)).unwrap();
        node.reconfigure(&format!("puppet-bin: {puppet:?}"));
        Some(Self { node, server })
    }

    fn lock(&self) -> PathBuf {
        self.node.path("var/state/agent_catalog_run.lock")
    }

    /// A run that somebody starts by hand, once it holds Puppet's lock.
    async fn others(&self) -> Child {
        let child = Command::new(self.node.path("puppet"))
            .args(["agent", "--onetime", "--no-daemonize"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_at_most(PATIENCE, "the other run has the lock", || {
            self.lock().exists()
        })
        .await;
        child
    }

    /// Has the agent run Puppet while somebody else does, which `end` ends.
    async fn behind(self, mut other: Child, end: impl FnOnce(TcpListener, &mut Child)) {
        let t1 = &self.node.id("t1");
        let (program, mut peer) = self.node.spawn().await;
        peer.patience = PATIENCE;
        let params = json!({"flags": ["--environment", "production"]});
        let body = request(t1, "pxp-module-puppet", "run", &params);
        peer.request(NonBlockingRequest, &body).await;
        peer.expect(ProvisionalResponse).await;
        let said = || self.node.read(&format!("spool/{t1}/stderr"));
        wait_at_most(PATIENCE, "it waits", || {
            said().contains("another Puppet run is in progress")
        })
        .await;
        assert!(said().contains("already in progress"), "{}", said());
        end(self.server, &mut other);
        other.wait().unwrap();
        let result: PuppetRunResult = serde_json::from_value(peer.outcome(t1).await).unwrap();
        // It had its turn: its own report says that there was no server for it any more.
        assert_eq!(
            (result.error_type, result.status.as_str()),
            (Some(PuppetRunError::AgentExitNonZero), "failed"),
            "{:?}\n{}",
            result.error,
            said()
        );
        assert_ne!(result.transaction_uuid, "unknown");
        assert!(!self.node.path("var/state/agent_catalog_run.lock").exists());
        assert_eq!(program.terminate(), Some(0));
    }
}

#[tokio::test]
async fn a_run_waits_for_one_that_somebody_else_has_started_and_comes_after_it() {
    let Some(silent) = Silent::new() else {
        return;
    };
    let other = silent.others().await;
    silent.behind(other, |server, _| drop(server)).await;
}

#[tokio::test]
async fn a_run_does_not_wait_for_one_that_was_killed_meanwhile() {
    let Some(silent) = Silent::new() else {
        return;
    };
    let other = silent.others().await;
    let killed = |server, other: &mut Child| {
        drop::<TcpListener>(server);
        // Its lock stays.
        other.kill().unwrap();
    };
    silent.behind(other, killed).await;
}
