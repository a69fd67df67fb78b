//! `script run`: a file, and arguments for it.

use std::path::PathBuf;

use pxp::{ScriptRun, Wishes};
use sandbox::Delivery;

use super::MAX_TEXT;
use super::launch::{Launch, Place};
use super::source::{self, Source, SourceError};

/// The most arguments of a script. With their texts they must fit into what the system takes.
const MAX_ARGUMENTS: usize = 10_000;

/// A script that can be run.
#[derive(Debug)]
pub struct Script {
    run: ScriptRun,
    source: Source,
}

/// Why a script cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// Its file cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There are more arguments than any program is meant to have.
    #[error("it has {0} arguments, more than {MAX_ARGUMENTS}")]
    Arguments(usize),
    /// No program can be given this argument. It is not shown.
    #[error("argument {0} has a NUL character, or {MAX_TEXT} bytes or more")]
    Argument(usize),
}

impl Script {
    /// Checks a script.
    ///
    /// # Errors
    /// [`ScriptError`] when it cannot be run as asked.
    pub fn new(run: ScriptRun) -> Result<Self, ScriptError> {
        let source = Source::last_part(&run.script)?;
        if run.arguments.len() > MAX_ARGUMENTS {
            return Err(ScriptError::Arguments(run.arguments.len()));
        }
        let unfit = |text: &String| text.contains('\0') || text.len() >= MAX_TEXT;
        if let Some(index) = run.arguments.iter().position(unfit) {
            return Err(ScriptError::Argument(index + 1));
        }
        Ok(Self { run, source })
    }

    /// Its file's name, as the requester has it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.run.script.filename
    }

    /// What is asked beyond the script.
    #[must_use]
    pub fn wishes(&self) -> Wishes {
        self.run.pxp_mesh.clone().unwrap_or_default()
    }

    /// The environments that its file is of, as the requester says.
    #[must_use]
    pub fn environments(&self) -> Vec<String> {
        source::environments(std::iter::once(&self.run.script.uri))
    }

    /// Its file, and where that must lie below the staging directory.
    #[must_use]
    pub fn file(&self) -> (PathBuf, &Source) {
        (PathBuf::from(&self.source.name), &self.source)
    }

    /// How it is started.
    #[must_use]
    pub fn launch(&self, place: &Place<'_>) -> Launch {
        Launch {
            program: place.staging.join(&self.source.name),
            arguments: Vec::new(),
            delivery: Delivery {
                arguments: self.run.arguments.iter().map(Into::into).collect(),
                ..Delivery::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(filename: &str, arguments: &[&str]) -> Result<Script, ScriptError> {
        let sha256 = "0".repeat(64);
        let run = serde_json::json!({
            "script": {
                "filename": filename,
                "sha256": sha256,
                "uri": {"path": "/x", "params": {"environment": "production"}},
            },
            "arguments": arguments,
        });
        Script::new(serde_json::from_value(run).unwrap())
    }

    #[test]
    fn of_the_file_name_the_last_part_counts_and_leads_nowhere_else() {
        for (name, last) in [
            ("a.sh", "a.sh"),
            ("mod/scripts/a.sh", "a.sh"),
            ("../x", "x"),
        ] {
            let script = script(name, &[]).unwrap();
            assert_eq!(script.file().0, PathBuf::from(last));
            assert_eq!(script.environments(), ["production"]);
        }
        for name in ["", "a/", "..", "a/..", "a\0"] {
            let error = script(name, &[]).unwrap_err();
            assert!(matches!(error, ScriptError::Source(_)), "{name:?}: {error}");
        }
    }

    #[test]
    fn arguments_are_taken_as_they_are_or_not_at_all() {
        let given = ["", "a b", "$x;", "-n", "ä\n"];
        let taken = script("a.sh", &given).unwrap().run.arguments;
        assert_eq!(taken, given);
        let error = script("a.sh", &["x", "hunter2\0"]).unwrap_err();
        assert_eq!(error, ScriptError::Argument(2));
        assert!(!error.to_string().contains("hunter2"));
        let long = "x".repeat(MAX_TEXT);
        assert_eq!(
            script("a.sh", &[&long]).unwrap_err(),
            ScriptError::Argument(1)
        );
    }
}
