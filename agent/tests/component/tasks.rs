//! `task run`, from the request to the result.

use std::os::unix::fs::PermissionsExt;

use pxp::MessageKind::{NonBlockingRequest, ProvisionalResponse};
use serde_json::json;

use crate::node::{Node, params, task};

const HELLO: &[u8] =
    b"#!/bin/sh\nread -r line\necho \"$line|$PT_name|$PT_n|$PT__task\"\necho diagnostic >&2\n\
    pwd >&2\nexit \"$PT_code\"\n";

#[tokio::test]
async fn a_task_is_run_and_its_outcome_kept_until_acknowledged() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = node.broker.has(HELLO);
    let (agent, mut peer) = node.start().await;
    let input = r#"{"name":"x y","n":1,"code":3}"#;
    peer.request(NonBlockingRequest, &task(t1, digest, input, ""))
        .await;
    let provisional = peer.expect(ProvisionalResponse).await;
    assert_eq!(provisional, json!({"transaction_id": t1}));
    let results = peer.outcome(t1).await;
    let line = r#"{"_task":"demo::hello","code":3,"n":1,"name":"x y"}|x y|1|demo::hello"#;
    let usage = &results["usage"];
    assert_eq!(usage["stdout_bytes"], line.len() + 1);
    assert_eq!(usage["truncated"], false);
    assert!(
        usage["profile"].is_string() && usage["duration_ms"].is_u64(),
        "{usage}"
    );
    assert_eq!(
        results,
        json!({"exitcode": 3, "stdout": format!("{line}\n"), "stderr": "diagnostic\n/\n", "usage": usage})
    );
    let record = node.record(t1);
    assert_eq!(record["state"], "finished");
    assert_eq!(record["status"], "failure");
    assert_eq!(record["request_params"], "{}");
    assert!(!node.read(&format!("spool/{t1}/metadata")).contains("x y"));
    assert!(!node.read(&format!("spool/{t1}/plan.json")).contains("x y"));
    peer.acknowledge(t1).await;
    node.wait_for_state(t1, "reported").await;
    assert!(!node.path(&format!("spool/{t1}/task")).exists());
    assert!(agent.stop().await);
}

#[tokio::test]
async fn a_task_file_is_fetched_once_however_many_want_it() {
    let Some(node) = Node::new("") else {
        return;
    };
    let digest = node.broker.has(b"#!/bin/sh\necho $PT_n\n");
    let (_agent, mut peer) = node.start().await;
    let ids = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let ids = ids.map(|id| node.id(id));
    for (n, id) in ids.iter().enumerate() {
        let input = format!(r#"{{"n":{n}}}"#);
        peer.request(NonBlockingRequest, &task(id, digest, &input, ""))
            .await;
    }
    let mut outcomes = Vec::new();
    while outcomes.len() < ids.len() {
        let answer = peer.answer().await;
        if answer.kind == "rpc_non_blocking_response" {
            let id = answer.body["transaction_id"].as_str().unwrap().to_owned();
            outcomes.push((id, answer.body["results"]["stdout"].clone()));
        }
    }
    outcomes.sort_by(|a, b| a.0.cmp(&b.0));
    let wanted: Vec<_> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| (id.clone(), json!(format!("{n}\n"))))
        .collect();
    assert_eq!(outcomes, wanted);
    assert_eq!(node.broker.questions(), 1);
}

#[tokio::test]
async fn an_altered_file_in_the_cache_is_not_run_but_fetched_again() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = node.broker.has(b"#!/bin/sh\necho right\n");
    let (_agent, mut peer) = node.start().await;
    let cached = node.path(&format!("cache/{digest}/hello.sh"));
    std::fs::create_dir_all(cached.parent().unwrap()).unwrap();
    std::fs::write(&cached, "#!/bin/sh\necho wrong\n").unwrap();
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    assert_eq!(peer.outcome(t1).await["stdout"], "right\n");
}

#[tokio::test]
async fn a_file_that_is_not_what_was_asked_for_is_never_run() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = node.broker.has(b"#!/bin/sh\necho right\n");
    let touched = node.path("touched");
    let wrong = format!("#!/bin/sh\ntouch {}\n", touched.display());
    node.broker.lies(digest, wrong.as_bytes());
    let (_agent, mut peer) = node.start().await;
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    let error = peer.error(t1).await;
    assert!(error.contains("did not run"), "{error}");
    assert!(
        error.contains("SHA that differs from the provided SHA"),
        "{error}"
    );
    assert!(!touched.exists());
    let left = std::fs::read_dir(node.path(&format!("cache/{digest}")))
        .unwrap()
        .count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn support_files_lie_where_the_task_is_told() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let main = node.broker.has(
        b"#!/bin/sh\ncat \"$PT__installdir/demo/files/dir/a\" \"$PT__installdir/lib/lib/b\"\necho $0\n",
    );
    let a = node.broker.has(b"content of a\n");
    let b = node.broker.has(b"content of b\n");
    let uri = r#""uri":{"path":"/","params":{}}"#;
    let body = format!(
        r#"{{"transaction_id":"{t1}","notify_outcome":true,"module":"task","action":"run","params":{{
          "task":"demo::hello","input":{{}},
          "metadata":{{"files":["demo/files/dir/"],"implementations":[
             {{"name":"hello.rb","requirements":["no-such-feature"]}},
             {{"name":"hello.sh","requirements":["shell"],"files":["lib/lib/b"],"input_method":"environment"}}]}},
          "files":[{{"filename":"hello.sh","sha256":"{main}",{uri}}},
                   {{"filename":"demo/files/dir/a","sha256":"{a}",{uri}}},
                   {{"filename":"lib/lib/b","sha256":"{b}",{uri}}}]}}}}"#
    );
    let (_agent, mut peer) = node.start().await;
    peer.request(NonBlockingRequest, &body).await;
    peer.expect(ProvisionalResponse).await;
    let results = peer.outcome(t1).await;
    let stdout = results["stdout"].as_str().unwrap();
    assert!(
        stdout.starts_with("content of a\ncontent of b\n"),
        "{stdout}"
    );
    assert!(
        stdout.trim_end().ends_with("/demo/tasks/hello.sh"),
        "{stdout}"
    );
}

#[tokio::test]
async fn a_task_at_its_time_limit_is_ended_and_its_result_says_so_with_what_it_wrote() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = node
        .broker
        .has(b"#!/bin/sh\necho begun\nwhile :; do read -r line; done < /dev/zero\n");
    let (_agent, mut peer) = node.start().await;
    for wish in [
        r#","timeout":1"#,
        r#","metadata":{"extensions":{"pxp_mesh":{"time_limit":1}}}"#,
    ] {
        let t1 = &format!("{t1}-{}", wish.len());
        peer.request(NonBlockingRequest, &task(t1, digest, "{}", wish))
            .await;
        peer.expect(ProvisionalResponse).await;
        let results = peer.outcome(t1).await;
        assert_eq!(results["exitcode"], 143);
        assert_eq!(results["stdout"], "begun\n");
        assert_eq!(results["usage"]["killed_by"], "time-limit");
        let stderr = results["stderr"].as_str().unwrap();
        assert!(
            stderr.contains("did not end within its time limit of 1 s"),
            "{stderr}"
        );
        peer.acknowledge(t1).await;
        node.wait_for_state(t1, "reported").await;
        let status = peer.status(t1, pxp::Status::Failure).await;
        assert_eq!(status.stderr.as_deref(), Some(stderr));
        assert_eq!(
            status.usage.unwrap().killed_by,
            Some(pxp::KilledBy::TimeLimit)
        );
    }
}

#[tokio::test]
async fn requesters_made_for_the_original_get_its_result_and_no_more() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = node.broker.has(b"#!/bin/sh\necho x\n");
    let (_agent, mut peer) = node.start().await;
    let body = task(t1, digest, "{}", "");
    peer.request_of(
        "pcp://orchestrator/orchestrator",
        pcp::Flags::default(),
        NonBlockingRequest,
        &body,
    )
    .await;
    peer.expect(ProvisionalResponse).await;
    let results = peer.outcome(t1).await;
    assert_eq!(results, json!({"exitcode": 0, "stdout": "x\n"}));
}

#[tokio::test]
async fn files_that_never_arrive_hold_a_task_no_longer_than_its_time_limit() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = node.broker.has(b"#!/bin/sh\n");
    node.broker.withholds(digest);
    let (_agent, mut peer) = node.start().await;
    let request = task(t1, digest, "{}", r#","timeout":1"#);
    peer.request(NonBlockingRequest, &request).await;
    peer.expect(ProvisionalResponse).await;
    let error = peer.error(t1).await;
    assert!(error.contains("did not run"), "{error}");
    assert!(error.contains("within its time limit of 1 s"), "{error}");
}

#[tokio::test]
async fn output_that_is_no_text_is_an_error_and_large_output_is_cut_and_said_to_be() {
    let Some(node) = Node::new("task-output-limit: 1000") else {
        return;
    };
    let t2 = &node.id("t2");
    let t1 = &node.id("t1");
    let binary = node.broker.has(b"#!/bin/sh\nprintf '\\377'\n");
    let large = node
        .broker
        .has(b"#!/bin/sh\nhead -c 5000 /dev/zero | tr '\\0' x\n");
    let (_agent, mut peer) = node.start().await;
    peer.request(NonBlockingRequest, &task(t1, binary, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    let error = peer.error(t1).await;
    assert!(error.contains("invalid UTF-8 on stdout"), "{error}");
    peer.request(NonBlockingRequest, &task(t2, large, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    let results = peer.outcome(t2).await;
    let stdout = results["stdout"].as_str().unwrap();
    assert!(
        stdout.starts_with("xxx") && stdout.ends_with("xxx"),
        "{stdout}"
    );
    let missing = 5000 - stdout.matches('x').count();
    // The notice has one x of its own.
    let notice = format!("[pxp-agent: {} bytes were not kept]", missing + 1);
    assert!(stdout.contains(&notice), "{stdout}");
    assert!((4000..=4250).contains(&(missing + 1)), "{stdout}");
    let stderr = results["stderr"].as_str().unwrap();
    assert!(
        stderr.contains("wrote 5000 bytes to stdout, of which"),
        "{stderr}"
    );
}

#[tokio::test]
async fn a_result_larger_than_an_inline_message_arrives_whole() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = node
        .broker
        .has(b"#!/bin/sh\nhead -c 3000000 /dev/zero | tr '\\0' x\n");
    let (_agent, mut peer) = node.start().await;
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    let results = peer.outcome(t1).await;
    assert_eq!(results["stdout"].as_str().unwrap().len(), 3_000_000);
}

#[tokio::test]
async fn a_file_that_cannot_be_executed_is_told_as_such() {
    let Some(node) = Node::new("") else {
        return;
    };
    let t1 = &node.id("t1");
    let digest = node.broker.has(b"#!/no/such/interpreter\n");
    let (_agent, mut peer) = node.start().await;
    peer.request(NonBlockingRequest, &task(t1, digest, "{}", ""))
        .await;
    peer.expect(ProvisionalResponse).await;
    let results = peer.outcome(t1).await;
    assert_eq!(results["exitcode"], 127);
    let stderr = results["stderr"].as_str().unwrap();
    assert!(stderr.contains("cannot execute"), "{stderr}");
}

#[tokio::test]
async fn a_manifest_is_applied_by_puppet_unless_it_says_what_runs_it() {
    let Some(node) = Node::new("") else {
        return;
    };
    // Stands in for Puppet: says how it was called.
    let puppet = node.path("puppet");
    std::fs::write(
        &puppet,
        "#!/bin/sh\necho \"puppet $1 $(basename \"$2\") $PT_name\"\n",
    )
    .unwrap();
    std::fs::set_permissions(&puppet, std::fs::Permissions::from_mode(0o755)).unwrap();
    node.reconfigure(&format!("puppet-bin: {puppet:?}"));
    let plain = node.broker.has(b"notify { 'x': }\n");
    let own = node.broker.has(b"#!/bin/sh\necho \"own $PT_name\"\n");
    let (_agent, mut peer) = node.start().await;
    for (digest, wanted) in [(plain, "puppet apply hello.pp x\n"), (own, "own x\n")] {
        let params = params(digest, r#"{"name":"x"}"#, "").replace("hello.sh", "hello.pp");
        let results: serde_json::Value = peer.ask("task", "run", &params).await;
        assert_eq!(results["stdout"], wanted, "{results}");
    }
}
