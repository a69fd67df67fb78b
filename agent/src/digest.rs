//! What exactly was asked: the digest that binds a transaction id to one request.

use std::fmt;
use std::str::FromStr;

use pxp::JsonObject;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// SHA-256 over module, action and parameters. Two texts of the same JSON value have the same
/// digest, so that a requester may write the request anew when it repeats it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestDigest(pcp::Digest);

/// The parameters cannot be taken apart: they are nested too deeply.
#[derive(Debug, thiserror::Error)]
#[error("the parameters cannot be read")]
pub struct UnreadableParameters(#[source] serde_json::Error);

impl RequestDigest {
    /// The digest of a request.
    ///
    /// # Errors
    /// [`UnreadableParameters`] when the parameters are nested more deeply than JSON readers allow.
    pub fn of(
        module: &str,
        action: &str,
        params: Option<&JsonObject>,
    ) -> Result<Self, UnreadableParameters> {
        let mut hasher = Sha256::new();
        text(&mut hasher, b'm', module);
        text(&mut hasher, b'a', action);
        match params {
            None => hasher.update(b"-"),
            Some(params) => {
                let params = params.parse().map_err(UnreadableParameters)?;
                value(&mut hasher, &params);
            }
        }
        Ok(Self(pcp::Digest(hasher.finalize().into())))
    }
}

/// Every part begins with a letter for its type and its length, so that no two values are written
/// the same way.
fn value(hasher: &mut Sha256, json: &Value) {
    match json {
        Value::Null => hasher.update(b"n"),
        Value::Bool(false) => hasher.update(b"f"),
        Value::Bool(true) => hasher.update(b"t"),
        Value::Number(number) => text(hasher, b'd', &number.to_string()),
        Value::String(string) => text(hasher, b's', string),
        Value::Array(items) => {
            length(hasher, b'l', items.len());
            for item in items {
                value(hasher, item);
            }
        }
        Value::Object(members) => {
            length(hasher, b'o', members.len());
            // The map may keep the order of the text, depending on how serde_json is built.
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            for (name, member) in members {
                text(hasher, b'k', name);
                value(hasher, member);
            }
        }
    }
}

fn text(hasher: &mut Sha256, kind: u8, text: &str) {
    length(hasher, kind, text.len());
    hasher.update(text);
}

fn length(hasher: &mut Sha256, kind: u8, length: usize) {
    hasher.update([kind]);
    hasher.update(length.to_be_bytes());
}

impl fmt::Display for RequestDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RequestDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RequestDigest {
    type Err = pcp::FrameError;

    fn from_str(text: &str) -> Result<Self, pcp::FrameError> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(module: &str, action: &str, params: Option<&str>) -> RequestDigest {
        let params: Option<JsonObject> =
            params.map(|text| serde_json::from_str(text).expect("an object"));
        RequestDigest::of(module, action, params.as_ref()).expect("shallow parameters")
    }

    #[test]
    fn white_space_and_order_do_not_matter() {
        let a = digest("task", "run", Some(r#"{"a":1,"b":{"x":[1,2],"y":null}}"#));
        let b = digest(
            "task",
            "run",
            Some(r#"{ "b": {"y":null, "x":[1, 2]}, "a": 1 }"#),
        );
        assert_eq!(a, b);
        assert_eq!(a.to_string().parse::<RequestDigest>(), Ok(a));
    }

    #[test]
    fn everything_else_does() {
        let all = [
            digest("task", "run", None),
            digest("task", "run", Some("{}")),
            digest("task", "ru", Some("{}")),
            digest("taskr", "un", Some("{}")),
            digest("task", "run", Some(r#"{"a":1}"#)),
            digest("task", "run", Some(r#"{"a":"1"}"#)),
            digest("task", "run", Some(r#"{"a":[1]}"#)),
            digest("task", "run", Some(r#"{"a":[1,2]}"#)),
            digest("task", "run", Some(r#"{"a":[2,1]}"#)),
            digest("task", "run", Some(r#"{"a":[[1],2]}"#)),
            digest("task", "run", Some(r#"{"a":{"b":1}}"#)),
            digest("task", "run", Some(r#"{"a":null}"#)),
        ];
        for (i, a) in all.iter().enumerate() {
            for b in all.iter().skip(i + 1) {
                assert_ne!(a, b);
            }
        }
    }

    #[test]
    fn parameters_without_bottom_are_refused() {
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let params: JsonObject = serde_json::from_str(&deep).expect("an object");
        assert!(RequestDigest::of("task", "run", Some(&params)).is_err());
    }
}
