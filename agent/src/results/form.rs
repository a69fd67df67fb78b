//! What results look like: that depends on the action, and on who is told.

use pxp::{ActionResult, JsonObject};
use serde::Serialize;

use super::NoResult;
use crate::modules::puppet;
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
    /// The same of a Puppet run, which always has results: also when it was ended from outside.
    PuppetRun,
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
            puppet::MODULE => Self::PuppetRun,
            // An external module.
            _ => Self::Object,
        }
    }

    /// Whether an end of this kind gives results. What a Puppet run lacks of its own is put in.
    pub(super) fn check(self, result: &mut ActionResult) -> Result<(), NoResult> {
        match self {
            Self::Output => Ok(()),
            // What was ended from outside has an exit code and a note that says so.
            Self::Success if result.exitcode == 0 || was_ended(result) => Ok(()),
            Self::Success => Err(reason(result)),
            Self::Object => object(result).map(drop),
            Self::PuppetRun => {
                let run = written(&puppet::result(result))?;
                result.stdout = Some(run.text().to_owned());
                Ok(())
            }
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
            Self::PuppetRun => {
                let mut run = puppet::result(&result);
                run.usage = result.usage;
                written(&run)
            }
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

fn written<T: Serialize>(results: &T) -> Result<JsonObject, NoResult> {
    JsonObject::of(results).map_err(|error| NoResult(daemon::error_chain(&error)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use pxp::KilledBy;

    use super::*;

    proptest! {
        #[test]
        fn any_output_has_a_result_or_a_reason_whatever_it_was_to_mean(
            stdout in "(\\{|\\}|\"status\"|\"exitcode\"|:|1|null| |\n|,|\\PC){0,16}",
            stderr in "\\PC{0,20}",
        ) {
            for form in [Form::Output, Form::Success, Form::Object, Form::PuppetRun] {
                let mut result = result(1, &stdout, &stderr);
                form.check(&mut result).ok();
                match form.told(result, true) {
                    Ok(told) => prop_assert!(told.parse::<serde_json::Value>().unwrap().is_object()),
                    Err(NoResult(why)) => prop_assert!(!why.is_empty()),
                }
            }
        }
    }

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
        let usage = pxp::Usage {
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
        assert_eq!(Form::Output.check(&mut result(3, "x", "")), Ok(()));
        let told = Form::Output.told(ended(None), false).unwrap();
        assert!(!told.text().contains("usage"), "{}", told.text());
        let told = Form::Output.told(ended(None), true).unwrap();
        assert!(told.text().contains("\"rule\":\"r\""), "{}", told.text());
    }

    #[test]
    fn a_failure_of_what_must_succeed_is_told_in_its_own_words() {
        assert_eq!(
            Form::Success.check(&mut result(0, "downloaded", "")),
            Ok(())
        );
        assert_eq!(
            Form::Success.check(&mut result(1, "", "cannot write /x\n")),
            Err(NoResult("cannot write /x".to_owned()))
        );
        assert_eq!(
            Form::Success.check(&mut ended(Some(KilledBy::Stop))),
            Ok(())
        );
    }

    #[test]
    fn an_object_is_what_stands_on_standard_output_and_nothing_else_is() {
        let told = Form::Object.told(ended(None), true).unwrap();
        assert_eq!(told.text(), "{\"status\": \"changed\"}");
        for stdout in ["", "[1]", "{\"a\":", "{} {}"] {
            let error = Form::Object.check(&mut result(2, stdout, "")).unwrap_err();
            assert!(error.0.contains("exit code 2"), "{stdout:?}: {error:?}");
        }
    }

    #[test]
    fn a_puppet_run_has_results_also_when_it_was_stopped() {
        let mut stopped = ended(Some(KilledBy::Stop));
        stopped.stdout = None;
        stopped.stderr = Some("Info: x\npxp-agent: the task was stopped: so\n".to_owned());
        Form::PuppetRun.check(&mut stopped).unwrap();
        let asked: pxp::PuppetRunResult =
            serde_json::from_str(stopped.stdout.as_deref().unwrap()).unwrap();
        assert_eq!(asked.error.as_deref(), Some("the task was stopped: so"));
        assert_eq!(asked.usage, None);
        let told = Form::PuppetRun.told(stopped.clone(), true).unwrap();
        let told: pxp::PuppetRunResult = told.parse().unwrap();
        assert_eq!(told.usage.unwrap().killed_by, Some(KilledBy::Stop));
        let told = Form::PuppetRun.told(stopped, false).unwrap();
        assert!(!told.text().contains("usage"));
    }
}
