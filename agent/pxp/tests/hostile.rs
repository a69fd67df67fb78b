//! Any bytes at all: they are read or refused, and what is read is written back as the same value.
#![cfg(test)]

use proptest::prelude::*;
use pxp::{
    ActionResult, Apply, ApplyPrep, BlockingRequest, BlockingResponse, CommandRun, FileDownload,
    NonBlockingRequest, NonBlockingResponse, OutcomeAcknowledgement, OutputChunk, OutputRequest,
    ProvisionalResponse, PuppetRun, PuppetRunResult, RpcError, ScriptRun, StatusQuery,
    StatusResult, StopRequest, StopResult, TaskRun, TransactionId, UserName, Wishes,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn stable<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(value) = pxp::read::<T>(bytes) {
        let again: T = pxp::read(&pxp::write(&value)).expect("what was read can be written");
        assert_eq!(value, again);
    }
}

fn all(bytes: &[u8]) {
    stable::<ActionResult>(bytes);
    stable::<Apply>(bytes);
    stable::<ApplyPrep>(bytes);
    stable::<BlockingRequest>(bytes);
    stable::<BlockingResponse>(bytes);
    stable::<CommandRun>(bytes);
    stable::<FileDownload>(bytes);
    stable::<NonBlockingRequest>(bytes);
    stable::<NonBlockingResponse>(bytes);
    stable::<OutcomeAcknowledgement>(bytes);
    stable::<OutputChunk>(bytes);
    stable::<OutputRequest>(bytes);
    stable::<ProvisionalResponse>(bytes);
    stable::<PuppetRun>(bytes);
    stable::<PuppetRunResult>(bytes);
    stable::<RpcError>(bytes);
    stable::<ScriptRun>(bytes);
    stable::<StatusQuery>(bytes);
    stable::<StatusResult>(bytes);
    stable::<StopRequest>(bytes);
    stable::<StopResult>(bytes);
    stable::<TaskRun>(bytes);
    stable::<Wishes>(bytes);
}

const SEED: &str = r#"{"transaction_id":"a","notify_outcome":true,"module":"task","action":"run","params":{"task":"t","files":[{"filename":"f","sha256":"0","uri":{"path":"/","params":{}}}],"input":{"x":[1,{"y":null}]}}}"#;

/// Bodies of every other kind, to be damaged.
const SEEDS: &[&str] = &[
    r#"{"command":"true","pxp_mesh":{"time_limit":1,"profile":"confined","run_as":"nobody"}}"#,
    r#"{"script":{"filename":"f","sha256":"0","uri":{"path":"/","params":{}}},"arguments":["a"]}"#,
    r#"{"files":[{"destination":"/x","link_source":"","uri":{"path":"/","params":{}},"sha256":"","kind":"file"}]}"#,
    r#"{"environment":"production"}"#,
    r#"{"catalog":{"a":1},"apply_options":{"noop":true}}"#,
    r#"{"env":[],"flags":["--noop"],"job":"7"}"#,
    r#"{"time":"unknown","transaction_uuid":"unknown","environment":"unknown","status":"unknown","metrics":{},"exitcode":-1,"version":1,"error_type":"agent_locked","error":"x"}"#,
    r#"{"transaction_id":"a","stdout":1,"stderr":2,"wait_ms":3}"#,
    r#"{"transaction_id":"a","status":"running","stdout":{"offset":0,"next":2,"total":2,"data":"ab"},"stderr":{"offset":5,"next":6,"total":9,"data_base64":"/w=="},"end":false}"#,
    r#"{"transaction_id":"a","state":"not_started"}"#,
    r#"{"exitcode":143,"stdout":"x","usage":{"profile":"standard","rule":"r","duration_ms":1,"cpu_ms":1,"peak_memory_bytes":1,"killed_by":"stop","stdout_bytes":1,"stderr_bytes":0,"truncated":false}}"#,
    r#"{"transaction_id":"a","status":"failure","exitcode":1,"stdout":"x","stderr":"y"}"#,
];

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        all(&bytes);
    }

    #[test]
    fn a_damaged_request_is_read_or_refused(
        at in 0..SEED.len(),
        cut in 0..SEED.len(),
        insert in proptest::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut bytes = SEED.as_bytes().to_vec();
        bytes.splice(at..at.max(cut), insert);
        all(&bytes);
        all(bytes.get(SEED.find("{\"task\"").unwrap_or(0)..).unwrap_or_default());
    }

    #[test]
    fn damaged_parameters_and_results_are_read_or_refused(
        seed in proptest::sample::select(SEEDS),
        at in any::<proptest::sample::Index>(),
        cut in any::<proptest::sample::Index>(),
        insert in proptest::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut bytes = seed.as_bytes().to_vec();
        let (at, cut) = (at.index(bytes.len()), cut.index(bytes.len()));
        bytes.splice(at..at.max(cut), insert);
        all(&bytes);
    }

    #[test]
    fn output_of_any_bytes_arrives_as_it_was(
        offset in 0_u64..1 << 40,
        more in 0_u64..1 << 40,
        data in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let next = offset + data.len() as u64;
        let chunk = pxp::StreamChunk { offset, next, total: next + more, data };
        let again: pxp::StreamChunk = pxp::read(&pxp::write(&chunk)).unwrap();
        prop_assert_eq!(chunk, again);
    }

    #[test]
    fn an_accepted_user_name_is_one_field_of_a_user_database(text in ".{0,12}") {
        if let Ok(name) = UserName::parse(&text) {
            prop_assert!(!name.as_str().is_empty());
            prop_assert!(!name.as_str().contains([':', '/', '\n', '\0', ' ']));
            prop_assert!(!name.as_str().starts_with('-'));
        }
    }

    #[test]
    fn an_accepted_transaction_id_never_leaves_its_directory(text in ".{0,140}") {
        if let Ok(id) = TransactionId::parse(&text) {
            let path = std::path::Path::new("/spool").join(id.as_str());
            prop_assert_eq!(path.parent(), Some(std::path::Path::new("/spool")));
            prop_assert_eq!(path.file_name().and_then(|n| n.to_str()), Some(text.as_str()));
        }
    }
}

#[test]
fn the_seeds_are_what_they_should_be() {
    let read = |n: usize| SEEDS[n].as_bytes();
    pxp::read::<CommandRun>(read(0)).unwrap();
    pxp::read::<ScriptRun>(read(1)).unwrap();
    pxp::read::<FileDownload>(read(2)).unwrap();
    pxp::read::<ApplyPrep>(read(3)).unwrap();
    pxp::read::<Apply>(read(4)).unwrap();
    pxp::read::<PuppetRun>(read(5)).unwrap();
    pxp::read::<PuppetRunResult>(read(6)).unwrap();
    pxp::read::<OutputRequest>(read(7)).unwrap();
    pxp::read::<OutputChunk>(read(8)).unwrap();
    pxp::read::<StopResult>(read(9)).unwrap();
    pxp::read::<ActionResult>(read(10)).unwrap();
    pxp::read::<StatusResult>(read(11)).unwrap();
}

#[test]
fn deep_nesting_is_refused_or_kept_as_text_and_never_overflows() {
    let deep = format!(
        r#"{{"transaction_id":"a","module":"m","action":"a","params":{{"x":{}{}}}}}"#,
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    all(deep.as_bytes());
}
