//! The parameters of a task: inline `name=value`, or a JSON object.

use std::io::Read;

use serde_json::{Map, Value};

use crate::error::{Failure, UsageError};
use crate::targets::read_source;

/// Reads `name=value` arguments.
///
/// # Errors
/// When one has no `=`, no name, or a name that another has already.
pub(crate) fn inline(arguments: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut params = Map::new();
    for argument in arguments {
        let (name, value) = argument
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| UsageError::ParameterForm {
                argument: argument.clone(),
            })?;
        if params.insert(name.to_owned(), coerce(value)).is_some() {
            return Err(UsageError::ParameterTwice {
                name: name.to_owned(),
            }
            .into());
        }
    }
    Ok(params)
}

/// Reads the value of `--params`.
///
/// # Errors
/// When it cannot be read or is no JSON object.
pub(crate) fn json(value: &str, stdin: impl Read) -> Result<Map<String, Value>, Failure> {
    let text = read_source(value, stdin)?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(params)) => Ok(params),
        Ok(_) => Err(UsageError::ParamsNotObject.into()),
        Err(source) => Err(UsageError::ParamsJson { source }.into()),
    }
}

/// An inline value as the original reads it: an integer, a fraction, true, false, or else text.
/// Text that reads as one of those is given as a JSON string, in double quotes.
fn coerce(text: &str) -> Value {
    match text {
        "true" => return Value::Bool(true),
        "false" => return Value::Bool(false),
        quoted if quoted.starts_with('"') => {
            if let Ok(inner) = serde_json::from_str::<String>(quoted) {
                return Value::String(inner);
            }
        }
        _ => {}
    }
    // JSON's form of a number: what has a leading zero or a plus is a code or a date, not a number.
    let looks_numeric = text
        .bytes()
        .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Number(number)) if looks_numeric => Value::Number(number),
        _ => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn inline_values_are_numbers_booleans_or_text() {
        for (text, expected) in [
            ("5", json!(5)),
            ("-5", json!(-5)),
            (
                "18446744073709551615",
                json!(18_446_744_073_709_551_615_u64),
            ),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000.0)),
            ("true", json!(true)),
            ("false", json!(false)),
            ("True", json!("True")),
            ("", json!("")),
            ("007", json!("007")),
            ("+5", json!("+5")),
            ("1.2.3", json!("1.2.3")),
            ("5 ", json!("5 ")),
            (".5", json!(".5")),
            ("null", json!("null")),
            ("[1]", json!("[1]")),
            ("{\"a\":1}", json!("{\"a\":1}")),
            ("\"5\"", json!("5")),
            ("\"open", json!("\"open")),
            ("a=b", json!("a=b")),
        ] {
            assert_eq!(coerce(text), expected, "{text}");
        }
    }

    #[test]
    fn a_parameter_has_a_name_and_stands_once() {
        let inline = |arguments: &[&str]| {
            inline(&arguments.iter().map(|&a| a.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(
            inline(&["a=1", "b=x=y"]).unwrap(),
            *json!({"a": 1, "b": "x=y"}).as_object().unwrap()
        );
        assert!(inline(&["a"]).unwrap_err().to_string().contains("'a'"));
        assert!(inline(&["=1"]).is_err());
        assert!(
            inline(&["a=1", "a=2"])
                .unwrap_err()
                .to_string()
                .contains("twice")
        );
    }

    #[test]
    fn params_are_one_json_object() {
        assert_eq!(
            json("{\"a\": [1]}", std::io::empty()).unwrap()["a"],
            json!([1])
        );
        assert_eq!(json("-", "{\"b\": 2}".as_bytes()).unwrap()["b"], json!(2));
        assert!(json("[]", std::io::empty()).is_err());
        assert!(json("{", std::io::empty()).is_err());
        let missing = json("@/nonexistent/params.json", std::io::empty()).unwrap_err();
        assert!(missing.to_string().contains("/nonexistent/params.json"));
    }
}
