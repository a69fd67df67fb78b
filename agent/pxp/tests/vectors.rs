//! What the messages look like on the wire, and which texts are refused.
#![cfg(test)]

use pxp::{
    ActionResult, Apply, BlockingRequest, BlockingResponse, CommandRun, FileDownload, KilledBy,
    MessageKind, NonBlockingRequest, NonBlockingResponse, OutcomeAcknowledgement, OutputChunk,
    OutputRequest, Profile, ProvisionalResponse, PuppetRun, PuppetRunError, PuppetRunResult,
    ReadError, RpcError, ScriptRun, Status, StatusResult, StopRequest, StopResult, StopState,
    StreamChunk, TaskRun, TransactionId, Wishes,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn round_trip<T: Serialize + DeserializeOwned>(text: &str) {
    let value: T = pxp::read(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    assert_eq!(String::from_utf8(pxp::write(&value)).unwrap(), text);
}

#[test]
fn messages_are_written_as_they_were_read() {
    round_trip::<BlockingRequest>(
        r#"{"transaction_id":"d0c7c8aa-8a61-4b0f-94a2-4d5c4a0b7e01","module":"ping","action":"ping"}"#,
    );
    round_trip::<BlockingRequest>(
        r#"{"transaction_id":"1","module":"echo","action":"echo","params":{ "argument" : "x" }}"#,
    );
    round_trip::<NonBlockingRequest>(
        r#"{"transaction_id":"a","notify_outcome":true,"module":"task","action":"run","params":{"n":123456789012345678901234567890,"f":1.0}}"#,
    );
    round_trip::<ProvisionalResponse>(r#"{"transaction_id":"a"}"#);
    round_trip::<BlockingResponse>(r#"{"transaction_id":"a","results":{"outcome":"x"}}"#);
    round_trip::<NonBlockingResponse>(
        r#"{"transaction_id":"a","results":{"exitcode":0,"stdout":"{}"}}"#,
    );
    round_trip::<RpcError>(r#"{"transaction_id":"a","id":"m","description":"unknown module: x"}"#);
    round_trip::<OutcomeAcknowledgement>(r#"{"transaction_id":"a"}"#);
    round_trip::<ActionResult>(r#"{"exitcode":1,"stderr":"no"}"#);
    round_trip::<StatusResult>(r#"{"transaction_id":"a","status":"running"}"#);
}

#[test]
fn what_is_new_here_is_written_as_it_was_read() {
    round_trip::<StopRequest>(r#"{"transaction_id":"a"}"#);
    for state in ["stopped", "finished", "not_started", "unknown"] {
        round_trip::<StopResult>(&format!(r#"{{"transaction_id":"a","state":"{state}"}}"#));
    }
    round_trip::<OutputRequest>(r#"{"transaction_id":"a","stdout":5,"stderr":0,"wait_ms":10000}"#);
    round_trip::<OutputChunk>(
        r#"{"transaction_id":"a","status":"running","stdout":{"offset":5,"next":8,"total":9,"data":"one"},"stderr":{"offset":0,"next":2,"total":2,"data_base64":"//4="},"end":false}"#,
    );
    round_trip::<Wishes>(r#"{"time_limit":60,"profile":"confined","run_as":"nobody"}"#);
    round_trip::<Wishes>("{}");
    round_trip::<ActionResult>(
        r#"{"exitcode":143,"usage":{"profile":"standard","rule":"default","duration_ms":12,"cpu_ms":3,"peak_memory_bytes":4096,"killed_by":"time-limit","stdout_bytes":0,"stderr_bytes":0,"truncated":false}}"#,
    );
    round_trip::<StatusResult>(
        r#"{"transaction_id":"a","status":"failure","exitcode":1,"usage":{"duration_ms":12,"stdout_bytes":0,"stderr_bytes":0,"truncated":false}}"#,
    );
    let killed = |text: &str| serde_json::from_str::<KilledBy>(text).unwrap();
    assert_eq!(killed("\"stop\""), KilledBy::Stop);
    assert_eq!(killed("\"something new\""), KilledBy::Other);
    let stop: StopResult = pxp::read(br#"{"transaction_id":"a","state":"not_started"}"#).unwrap();
    assert_eq!(stop.state, StopState::NotStarted);
}

#[test]
fn the_actions_of_the_original_are_written_as_they_were_read() {
    round_trip::<CommandRun>(r#"{"command":"uptime"}"#);
    round_trip::<CommandRun>(r#"{"command":"uptime","pxp_mesh":{"profile":"host"}}"#);
    round_trip::<ScriptRun>(
        r#"{"script":{"filename":"x.sh","sha256":"0","uri":{"path":"/p","params":{"environment":"production"}}},"arguments":["a","b c"]}"#,
    );
    round_trip::<FileDownload>(
        r#"{"files":[{"destination":"/tmp/x","link_source":"","uri":{"path":"/p","params":{}},"sha256":"0","kind":"file"}]}"#,
    );
    round_trip::<Apply>(r#"{"catalog":{ "x":1 },"apply_options":{"noop":true}}"#);
    round_trip::<PuppetRun>(r#"{"env":[],"flags":["--noop"],"job":"7"}"#);
    round_trip::<PuppetRunResult>(
        r#"{"time":"unknown","transaction_uuid":"unknown","environment":"unknown","status":"unknown","metrics":{},"exitcode":-1,"version":1,"error_type":"agent_disabled","error":"x"}"#,
    );
    let error: PuppetRunError = serde_json::from_str("\"agent_exit_non_zero\"").unwrap();
    assert_eq!(error, PuppetRunError::AgentExitNonZero);
    let command: CommandRun = pxp::read(br#"{"command":"secret"}"#).unwrap();
    assert!(!format!("{command:?}").contains("secret"));
}

#[test]
fn a_piece_of_output_that_does_not_add_up_is_refused() {
    for text in [
        r#"{"offset":0,"next":3,"total":3,"data":"ab"}"#,
        r#"{"offset":0,"next":2,"total":1,"data":"ab"}"#,
        r#"{"offset":0,"next":0,"total":1}"#,
        r#"{"offset":0,"next":1,"total":1,"data":"a","data_base64":"YQ=="}"#,
        r#"{"offset":0,"next":1,"total":1,"data_base64":"Y"}"#,
        r#"{"offset":18446744073709551615,"next":0,"total":1,"data":"a"}"#,
    ] {
        assert!(pxp::read::<StreamChunk>(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn wishes_come_with_the_metadata_of_a_task_and_the_lowest_limit_holds() {
    let run = |rest: &str| {
        let text = format!(r#"{{"task":"t","files":[],"input":{{}}{rest}}}"#);
        pxp::read::<TaskRun>(text.as_bytes()).map(|run| run.wishes())
    };
    assert_eq!(run("").unwrap(), Wishes::default());
    assert_eq!(run(r#","timeout":9"#).unwrap().time_limit, Some(9));
    assert_eq!(run(r#","timeout":0"#).unwrap().time_limit, None);
    let both = run(
        r#","timeout":9,"metadata":{"extensions":{"other":1,"pxp_mesh":{"time_limit":5,"profile":"confined"}}}"#,
    );
    let both = both.unwrap();
    assert_eq!(
        (both.time_limit, both.profile),
        (Some(5), Some(Profile::Confined))
    );
    for unknown in [
        r#"{"colour":"red"}"#,
        r#"{"profile":"none"}"#,
        r#"{"run_as":"a:b"}"#,
        r#"{"run_as":""}"#,
        r#"{"time_limit":-1}"#,
    ] {
        let rest = format!(r#","metadata":{{"extensions":{{"pxp_mesh":{unknown}}}}}"#);
        assert!(run(&rest).is_err(), "{unknown}");
    }
}

#[test]
fn a_task_run_of_the_original_is_understood_and_unknown_metadata_is_ignored() {
    let text = r#"{"task":"demo::hello","input":{"name":"x","_noop":true},
        "metadata":{"description":"d","input_method":"stdin","parameters":{},"extensions":{},
                    "implementations":[{"name":"hello.sh","requirements":["shell"],"remote":false}]},
        "files":[{"filename":"hello.sh","sha256":"00","uri":{"path":"/p","params":{"environment":"production"}},"size_bytes":3}]}"#;
    let run: TaskRun = pxp::read(text.as_bytes()).unwrap();
    assert_eq!(run.task, "demo::hello");
    let input: Vec<_> = run.input.iter().collect();
    assert_eq!(input, [("_noop", "true"), ("name", "\"x\"")]);
    assert_eq!(run.files[0].size_bytes, Some(3));
    assert_eq!(run.timeout, None);
    assert_eq!(format!("{:?}", run.input), "[redacted]");
}

#[test]
fn each_way_of_being_wrong_has_the_answer_of_the_original() {
    let error = |text: &str| pxp::read::<NonBlockingRequest>(text.as_bytes()).unwrap_err();
    assert!(matches!(error(""), ReadError::Empty));
    for text in [
        "{",
        "nonsense",
        "{}}",
        "\u{0}",
        "{\"transaction_id\":\"a\",",
    ] {
        assert!(matches!(error(text), ReadError::NotJson(_)), "{text}");
    }
    for text in [
        "null",
        "[]",
        r#"["a",true,"task","run",null]"#,
        "{}",
        r#"{"transaction_id":"a","module":"task","action":"run"}"#,
        r#"{"transaction_id":"a","notify_outcome":1,"module":"task","action":"run"}"#,
        r#"{"transaction_id":"a","notify_outcome":true,"module":"task","action":"run","params":[]}"#,
        r#"{"transaction_id":"a","notify_outcome":true,"module":"task","action":"run","more":1}"#,
        r#"{"transaction_id":"../a","notify_outcome":true,"module":"task","action":"run"}"#,
    ] {
        assert!(matches!(error(text), ReadError::Invalid(_)), "{text}");
    }
    assert_eq!(error("").to_string(), "no data");
    assert_eq!(error("x").to_string(), "data is not in JSON format");
    assert_eq!(error("1").to_string(), "invalid data");
}

#[test]
fn a_blocking_request_may_not_ask_for_a_notification() {
    let text = r#"{"transaction_id":"a","notify_outcome":true,"module":"ping","action":"ping"}"#;
    assert!(pxp::read::<BlockingRequest>(text.as_bytes()).is_err());
}

#[test]
fn transaction_ids_are_safe_as_names_of_directories() {
    for id in [
        "a",
        "0",
        "_",
        "a.b-c_d",
        "d0c7c8aa-8a61-4b0f-94a2-4d5c4a0b7e01",
        &"x".repeat(128),
    ] {
        assert!(TransactionId::parse(id).is_ok(), "{id}");
    }
    for id in [
        "",
        ".",
        "..",
        ".a",
        "-a",
        "a/b",
        "a\\b",
        "a\0",
        "ä",
        "a b",
        &"x".repeat(129),
    ] {
        assert!(TransactionId::parse(id).is_err(), "{id}");
    }
}

#[test]
fn an_execution_error_is_told_from_the_output_of_a_task() {
    let id = TransactionId::parse("a").unwrap();
    let result = StatusResult::without_result(id.clone(), Status::Failure, "it \"broke\"");
    assert_eq!(
        result.stdout.as_deref(),
        Some(
            r#"{"_error":{"kind":"puppetlabs.pxp-agent/execution-error","details":{},"msg":"it \"broke\""}}"#
        )
    );
    assert_eq!(result.execution_error().as_deref(), Some("it \"broke\""));
    let ran = ActionResult {
        exitcode: 1,
        stdout: result.stdout,
        stderr: None,
        usage: None,
    };
    let finished = StatusResult::finished(id, ran);
    assert_eq!(
        (finished.status, finished.execution_error()),
        (Status::Failure, None)
    );
}

#[test]
fn the_names_of_the_messages_are_those_of_the_protocol() {
    assert_eq!(
        MessageKind::NonBlockingRequest.name(),
        "rpc_non_blocking_request"
    );
    assert_eq!(MessageKind::Error.name(), "rpc_error_message");
}
