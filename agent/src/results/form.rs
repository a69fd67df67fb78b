//! What results look like: that depends on the action, and on who is told.

use pxp::{ActionResult, JsonObject, Usage};
use serde::Serialize;
use serde_json::{Map, Value};

use super::NoResult;
use crate::transaction::Request;

/// What the end of a process means to whoever asked for its action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Its exit code and output are the results, whatever they are.
    Output,
    /// The same, but one that did not succeed gives no results: it has said why on standard error.
    Success,
    /// What it writes to standard output is the results, a JSON object. One that gives none has said
    /// why on standard error.
    Object,
    /// The same, and what it took is put among them.
    ObjectAndUsage,
}

/// What must be known of a request to tell its results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// What the end of its process means.
    pub form: Form,
    /// The rule of the node's policy that allowed it.
    pub rule: Option<String>,
}

impl Form {
    /// That of the actions of a module.
    #[must_use]
    pub fn of(module: &str) -> Self {
        match module {
            "apply" | "command" | "script" | "task" => Self::Output,
            "file" => Self::Success,
            "pxp-module-puppet" => Self::ObjectAndUsage,
            // An external module.
            _ => Self::Object,
        }
    }

    /// Whether an end of this kind gives results.
    pub(super) fn check(self, result: &ActionResult) -> Result<(), NoResult> {
        match self {
            Self::Output => Ok(()),
            // What was ended from outside has an exit code and a note that says so.
            Self::Success if result.exitcode == 0 || was_ended(result) => Ok(()),
            Self::Success => Err(reason(result)),
            Self::Object | Self::ObjectAndUsage => object(result).map(drop),
        }
    }

    /// The results as they are sent; with what was taken only to those that know the key `usage`.
    ///
    /// # Errors
    /// [`NoResult`] when there are none.
    pub fn told(self, mut result: ActionResult, knows_usage: bool) -> Result<JsonObject, NoResult> {
        result.usage = result.usage.filter(|_| knows_usage);
        match self {
            Self::Output | Self::Success => written(&result),
            Self::Object => object(&result),
            Self::ObjectAndUsage => with_usage(&object(&result)?, result.usage.as_ref()),
        }
    }
}

impl About {
    /// What is known of a transaction.
    #[must_use]
    pub fn request(request: &Request) -> Self {
        Self {
            form: Form::of(&request.module),
            rule: request.rule.clone(),
        }
    }
}

fn was_ended(result: &ActionResult) -> bool {
    let usage = result.usage.as_ref();
    usage.is_some_and(|usage| usage.killed_by.is_some())
}

fn object(result: &ActionResult) -> Result<JsonObject, NoResult> {
    let stdout = result.stdout.as_deref().unwrap_or_default();
    serde_json::from_str(stdout.trim()).map_err(|_| reason(result))
}

/// What the process said about its failure.
fn reason(result: &ActionResult) -> NoResult {
    let stderr = result.stderr.as_deref().unwrap_or_default().trim();
    NoResult(if stderr.is_empty() {
        format!(
            "the action ended with exit code {} and gave no results",
            result.exitcode
        )
    } else {
        stderr.to_owned()
    })
}

fn with_usage(results: &JsonObject, usage: Option<&Usage>) -> Result<JsonObject, NoResult> {
    let Some(usage) = usage else {
        return Ok(results.clone());
    };
    #[derive(Serialize)]
    struct Whole<'a> {
        #[serde(flatten)]
        results: Map<String, Value>,
        usage: &'a Usage,
    }
    let mut results: Map<String, Value> = results
        .parse()
        .map_err(|error| NoResult(format!("the results cannot be read: {error}")))?;
    results.remove("usage");
    written(&Whole { results, usage })
}

fn written<T: Serialize>(results: &T) -> Result<JsonObject, NoResult> {
    JsonObject::of(results).map_err(|error| NoResult(daemon::error_chain(&error)))
}

#[cfg(test)]
mod tests {
    use pxp::KilledBy;

    use super::*;

    fn result(exitcode: i32, stdout: &str, stderr: &str) -> ActionResult {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        ActionResult {
            exitcode,
            stdout: some(stdout),
            stderr: some(stderr),
            usage: None,
        }
    }

    fn ended(killed_by: Option<KilledBy>) -> ActionResult {
        let usage = Usage {
            profile: None,
            rule: Some("r".to_owned()),
            duration_ms: 1,
            cpu_ms: None,
            peak_memory_bytes: None,
            killed_by,
            stdout_bytes: 0,
            stderr_bytes: 0,
            truncated: false,
        };
        ActionResult {
            usage: Some(usage),
            ..result(1, "{\"status\": \"changed\"}\n", "note")
        }
    }

    #[test]
    fn output_is_a_result_however_it_ended() {
        assert_eq!(Form::Output.check(&result(3, "x", "")), Ok(()));
        let told = Form::Output.told(ended(None), false).unwrap();
        assert!(!told.text().contains("usage"), "{}", told.text());
        let told = Form::Output.told(ended(None), true).unwrap();
        assert!(told.text().contains("\"rule\":\"r\""), "{}", told.text());
    }

    #[test]
    fn a_failure_of_what_must_succeed_is_told_in_its_own_words() {
        assert_eq!(Form::Success.check(&result(0, "downloaded", "")), Ok(()));
        assert_eq!(
            Form::Success.check(&result(1, "", "cannot write /x\n")),
            Err(NoResult("cannot write /x".to_owned()))
        );
        assert_eq!(Form::Success.check(&ended(Some(KilledBy::Stop))), Ok(()));
    }

    #[test]
    fn an_object_is_what_stands_on_standard_output_and_nothing_else_is() {
        let told = Form::Object.told(ended(None), true).unwrap();
        assert_eq!(told.text(), "{\"status\": \"changed\"}");
        let told = Form::ObjectAndUsage.told(ended(None), true).unwrap();
        let told: Value = told.parse().unwrap();
        assert_eq!(told["status"], "changed");
        assert_eq!(told["usage"]["rule"], "r");
        for stdout in ["", "[1]", "{\"a\":", "{} {}"] {
            let error = Form::Object.check(&result(2, stdout, "")).unwrap_err();
            assert!(error.0.contains("exit code 2"), "{stdout:?}: {error:?}");
        }
    }
}
