//! `pxp-module-puppet run` with a Puppet that is played by `tests/played/puppet`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use pxp::MessageKind::{
    BlockingRequest, BlockingResponse, NonBlockingRequest, ProvisionalResponse,
};
use pxp::{PuppetRunError, PuppetRunResult, Status, StopResult, StopState};
use serde_json::{Value, json};

use crate::node::{Node, open_gate, wait_until};
use crate::played::{Peer, blocking};

/// Leaves a report of a run with a new id, and of the job that was asked for.
const REPORTS: &str = "report changed production";

struct Played {
    node: Node,
}

impl Played {
    fn new(doing: &str) -> Option<Self> {
        let node = Node::new("")?;
        let puppet = node.path("puppet");
        node.reconfigure(&format!("puppet-bin: {puppet:?}"));
        fs::create_dir(node.path("state")).unwrap();
        fs::write(&puppet, include_str!("../../../tests/played/puppet")).unwrap();
        fs::set_permissions(&puppet, fs::Permissions::from_mode(0o755)).unwrap();
        let played = Self { node };
        played.does(doing);
        Some(played)
    }

    fn does(&self, doing: &str) {
        fs::write(self.node.path("doing"), doing).unwrap();
    }

    fn state(&self, name: &str) -> PathBuf {
        self.node.path("state").join(name)
    }

    fn calls(&self) -> Vec<String> {
        self.node.read("calls").lines().map(str::to_owned).collect()
    }

    fn stderr(&self, id: &str) -> String {
        self.node.read(&format!("spool/{id}/stderr"))
    }
}

fn params(flags: &[&str], job: Option<&str>) -> String {
    let mut params = json!({"flags": flags});
    if let Some(job) = job {
        params["job"] = job.into();
    }
    params.to_string()
}

fn request(id: &str, flags: &[&str], job: Option<&str>) -> String {
    let params = params(flags, job);
    format!(
        r#"{{"transaction_id":"{id}","notify_outcome":true,"module":"pxp-module-puppet","action":"run","params":{params}}}"#
    )
}

async fn start(peer: &mut Peer, id: &str) {
    peer.request(NonBlockingRequest, &request(id, &[], Some("12")))
        .await;
    peer.expect(ProvisionalResponse).await;
}

async fn result(peer: &mut Peer, id: &str) -> PuppetRunResult {
    serde_json::from_value(peer.outcome(id).await).unwrap()
}

/// Runs Puppet for a requester that waits.
async fn run(peer: &mut Peer, flags: &[&str]) -> PuppetRunResult {
    peer.ask("pxp-module-puppet", "run", &params(flags, Some("12")))
        .await
}

#[tokio::test]
async fn a_run_has_the_result_of_its_report_and_what_puppet_says_is_seen_meanwhile() {
    let gate = "read -r word <$dir/gate\n";
    let Some(played) = Played::new(&format!("{gate}{REPORTS}")) else {
        return;
    };
    let node = &played.node;
    let gate = node.path("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let t1 = &node.id("t1");
    let (_program, mut peer) = node.spawn().await;
    let flags = ["--noop", "--environment", "production", "--tags", "a,b"];
    peer.request(NonBlockingRequest, &request(t1, &flags, Some("12")))
        .await;
    peer.expect(ProvisionalResponse).await;
    wait_until("Puppet speaks", || {
        played.stderr(t1) == "Info: Using environment 'production'\n"
    })
    .await;
    open_gate(gate).await;
    let result = peer.outcome(t1).await;
    let expected = json!({
        "time": "2026-11-29T07:58:51.307761610+00:00",
        "transaction_uuid": node.read("uuids").trim(),
        "environment": "production",
        "status": "changed",
        "metrics": {"total": 9, "changed": 2},
        "exitcode": 0,
        "version": 1,
        "usage": result["usage"],
    });
    assert_eq!(result, expected);
    assert_eq!(result["usage"]["profile"], "host");
    let call = "agent --noop --environment production --tags a,b --onetime --no-daemonize \
                --verbose --color false --job-id 12";
    assert_eq!(played.calls(), [call]);
    let asked = peer.status(t1, Status::Success).await;
    let asked: Value = serde_json::from_str(&asked.stdout.unwrap()).unwrap();
    assert_eq!(asked["transaction_uuid"], result["transaction_uuid"]);
}

#[tokio::test]
async fn each_way_of_failing_has_its_error_type() {
    use PuppetRunError as E;
    let Some(played) = Played::new(REPORTS) else {
        return;
    };
    let node = &played.node;
    let (_program, mut peer) = node.spawn().await;
    // Nothing of a refused request reaches Puppet.
    for flags in [
        &["-t"][..],
        &["--tags", "a\tb"],
        &["--environment", "--noop"],
    ] {
        let refused = run(&mut peer, flags).await;
        assert_eq!(refused.error_type, Some(E::InvalidJson), "{flags:?}");
        assert_eq!((refused.exitcode, &*refused.status), (-1, "unknown"));
    }
    assert_eq!(played.calls().len(), 0);
    let disabled =
        "echo '{\"disabled_message\":\"for tests\"}' >$state/agent_disabled.lock; exit 1";
    let foreign = "job=13; report changed production";
    for (doing, kind, code, said) in [
        ("exit 0", E::NoLastRunReport, 0, "there is no"),
        ("exit 7", E::NoLastRunReport, 7, "there is no"),
        ("kill -9 $$", E::NoLastRunReport, 137, "there is no"),
        (REPORTS, E::AgentExitNonZero, 0, ""),
        ("exit 1", E::NoLastRunReport, 1, "no report of this run"),
        (foreign, E::NoLastRunReport, 0, "job 13"),
        (
            "report failed dev; exit 2",
            E::AgentExitNonZero,
            2,
            "exit code 2",
        ),
        (
            "echo 'time: [' >$state/last_run_report.yaml",
            E::InvalidLastRunReport,
            0,
            "line 1",
        ),
        (
            disabled,
            E::AgentDisabled,
            1,
            "disabled on this node: for tests",
        ),
    ] {
        played.does(doing);
        let result = run(&mut peer, &[]).await;
        if doing == REPORTS {
            assert_eq!((result.error_type, &*result.status), (None, "changed"));
            continue;
        }
        let error = result.error.unwrap();
        assert_eq!(
            (result.error_type, result.exitcode),
            (Some(kind), code),
            "{doing}: {error}"
        );
        assert!(error.contains(said), "{doing}: {error}");
        let has_report = kind == E::AgentExitNonZero;
        assert_eq!(result.environment == "dev", has_report, "{doing}");
    }
    let puppet = node.path("puppet");
    fs::set_permissions(&puppet, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = run(&mut peer, &[]).await;
    assert_eq!(refused.error_type, Some(E::AgentFailedToStart));
    fs::remove_file(puppet).unwrap();
    let refused = run(&mut peer, &[]).await;
    assert_eq!(refused.error_type, Some(E::NoPuppetBin));
    assert!(refused.error.unwrap().contains("puppet-bin"));
}

#[tokio::test]
async fn a_run_waits_for_another_one_and_comes_after_it() {
    let busy = format!("[ -e $state/agent_catalog_run.lock ] && exit 1\n{REPORTS}");
    let Some(played) = Played::new(&busy) else {
        return;
    };
    let node = &played.node;
    let t1 = &node.id("t1");
    let lock = played.state("agent_catalog_run.lock");
    fs::write(&lock, "1").unwrap();
    let (program, mut peer) = node.spawn().await;
    start(&mut peer, t1).await;
    let waits = || {
        played
            .stderr(t1)
            .contains("another Puppet run is in progress")
    };
    wait_until("it waits", waits).await;
    // Also without the agent.
    program.kill();
    peer.drop_connection().await;
    let (_program, mut peer) = node.spawn().await;
    peer.status(t1, Status::Running).await;
    fs::remove_file(lock).unwrap();
    assert_eq!(result(&mut peer, t1).await.status, "changed");
    assert_eq!(played.calls().len(), 2);
}

#[tokio::test]
async fn several_requests_run_one_after_the_other_and_all_succeed() {
    let alone = format!(
        "mkdir $state/alone || echo overlap >>$dir/overlaps\n{REPORTS}\nrmdir $state/alone"
    );
    let Some(played) = Played::new(&alone) else {
        return;
    };
    let node = &played.node;
    let (_program, mut peer) = node.spawn().await;
    let ids = ["t1", "t2", "t3", "t4"].map(|name| node.id(name));
    for id in &ids {
        peer.request(NonBlockingRequest, &request(id, &[], None))
            .await;
    }
    let mut uuids = Vec::new();
    while uuids.len() < ids.len() {
        let answer = peer.answer().await;
        if answer.kind == "rpc_non_blocking_response" {
            let result: PuppetRunResult =
                serde_json::from_value(answer.body["results"].clone()).unwrap();
            assert_eq!(result.error, None);
            uuids.push(result.transaction_uuid);
        }
    }
    assert_eq!(node.read("overlaps"), "");
    // Each has the report of its own run.
    uuids.sort();
    let written = node.read("uuids");
    let mut written: Vec<_> = written.lines().collect();
    written.sort_unstable();
    assert_eq!(uuids, written);
}

#[tokio::test]
async fn a_run_is_stopped_with_puppet_and_has_a_result() {
    let Some(played) = Played::new("touch $dir/begun\nwhile :; do sleep 1; done") else {
        return;
    };
    let node = &played.node;
    let t1 = &node.id("t1");
    let (_program, mut peer) = node.spawn().await;
    start(&mut peer, t1).await;
    wait_until("it runs", || node.path("begun").exists()).await;
    let params = format!(r#"{{"transaction_id":"{t1}"}}"#);
    peer.request(BlockingRequest, &blocking("task", "stop", &params))
        .await;
    let (mut stopped, mut outcome) = (None, None);
    while stopped.is_none() || outcome.is_none() {
        let answer = peer.answer().await;
        let results = answer.body["results"].clone();
        match &*answer.kind {
            "rpc_blocking_response" => stopped = Some(results),
            _ => outcome = Some(results),
        }
    }
    let stopped: StopResult = serde_json::from_value(stopped.unwrap()).unwrap();
    assert_eq!(stopped.state, StopState::Stopped);
    let outcome: PuppetRunResult = serde_json::from_value(outcome.unwrap()).unwrap();
    assert_eq!(outcome.usage.unwrap().killed_by, Some(pxp::KilledBy::Stop));
    assert_eq!(outcome.error_type, Some(PuppetRunError::AgentExitNonZero));
    assert!(outcome.error.unwrap().contains("stopped"));
    // Its turn is over: the next one has it.
    played.does(REPORTS);
    assert_eq!(run(&mut peer, &[]).await.status, "changed");
}

#[tokio::test]
async fn the_policy_decides_about_puppet_runs_by_their_environment() {
    let Some(played) = Played::new(REPORTS) else {
        return;
    };
    let node = &played.node;
    node.policy(
        "rules: { no-tests: { when: { modules: [pxp-module-puppet], environments: [testing] }, \
         then: refuse } }",
    );
    let (_program, mut peer) = node.spawn().await;
    let body = blocking(
        "pxp-module-puppet",
        "run",
        &params(&["--environment", "testing"], None),
    );
    peer.request(BlockingRequest, &body).await;
    let (_, refused) = peer.any_error().await;
    assert!(refused.contains("no-tests"), "{refused}");
    let body = blocking("pxp-module-puppet", "run", &params(&[], None));
    peer.request(BlockingRequest, &body).await;
    let results = peer.expect(BlockingResponse).await["results"].clone();
    assert_eq!(results["status"], "changed");
    assert_eq!(played.calls().len(), 1);
}
