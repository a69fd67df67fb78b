//! Any bytes at all: they are read or refused, and what is read is written back as the same value.
#![cfg(test)]

use proptest::prelude::*;
use pxp::{
    BlockingRequest, NonBlockingRequest, NonBlockingResponse, RpcError, StatusResult, TaskRun,
    TransactionId,
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
    stable::<BlockingRequest>(bytes);
    stable::<NonBlockingRequest>(bytes);
    stable::<NonBlockingResponse>(bytes);
    stable::<RpcError>(bytes);
    stable::<StatusResult>(bytes);
    stable::<TaskRun>(bytes);
}

const SEED: &str = r#"{"transaction_id":"a","notify_outcome":true,"module":"task","action":"run","params":{"task":"t","files":[{"filename":"f","sha256":"0","uri":{"path":"/","params":{}}}],"input":{"x":[1,{"y":null}]}}}"#;

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
    fn an_accepted_transaction_id_never_leaves_its_directory(text in ".{0,140}") {
        if let Ok(id) = TransactionId::parse(&text) {
            let path = std::path::Path::new("/spool").join(id.as_str());
            prop_assert_eq!(path.parent(), Some(std::path::Path::new("/spool")));
            prop_assert_eq!(path.file_name().and_then(|n| n.to_str()), Some(text.as_str()));
        }
    }
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
