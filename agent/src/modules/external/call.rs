//! The process that calls an external module: `pxp-agent module external call`. The module gets its
//! input and configuration as the original gives them, and, when nobody waits for the answer, files to
//! write to; what it gives is checked here. Results go to standard output, and everything else that it
//! says to standard error.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use pxp::JsonObject;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::schema::{Invalid, Schema, SchemaError};

/// The most that is taken of a module's output: what a PCP message can hold.
const MAX_OUTPUT: u64 = 64 * 1024 * 1024;

/// What a module ends with that could not write its files: the original's number.
const FILES_NOT_WRITTEN: u8 = 5;

/// What is to be called.
#[derive(Debug, Serialize, Deserialize)]
pub struct Work {
    /// The module.
    pub program: PathBuf,
    /// Its action.
    pub action: String,
    /// The parameters.
    pub input: Box<RawValue>,
    /// The module's configuration, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Box<RawValue>>,
    /// The schema of the results.
    pub results: Value,
    /// Whether the module is to write to files.
    pub output_files: bool,
}

/// What the module finds on its standard input.
#[derive(Serialize)]
struct Arguments<'a> {
    input: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_files: Option<&'a OutputFiles>,
}

/// Where a module writes.
#[derive(Debug, Serialize)]
struct OutputFiles {
    stdout: PathBuf,
    stderr: PathBuf,
    exitcode: PathBuf,
    #[serde(skip)]
    directory: PathBuf,
}

/// What a module has said, and how it ended.
struct Said {
    stdout: Vec<u8>,
    exitcode: u8,
}

/// Why there are no results.
#[derive(Debug, thiserror::Error)]
pub enum CallFailure {
    /// What is on standard input is no work.
    #[error("the request cannot be read")]
    Work(#[source] serde_json::Error),
    /// The schema of the results is none.
    #[error("the results schema cannot be checked")]
    Schema(#[source] SchemaError),
    /// Files or pipes cannot be used.
    #[error("cannot {operation}")]
    Io {
        /// What was to be done.
        operation: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The original's words for a module that could not write its files.
    #[error("failed to write output on file")]
    FilesNotWritten,
    /// There is more output than a message can hold.
    #[error("the module wrote more than {MAX_OUTPUT} bytes to {0}")]
    TooMuch(&'static str),
    /// There is no output at all.
    #[error("the module returned no results on stdout (exit code {0})")]
    NoResults(u8),
    /// It is not JSON, or no object.
    #[error("the module returned invalid JSON on stdout (exit code {0})")]
    NotJson(u8, #[source] serde_json::Error),
    /// It is not what the module's schema says.
    #[error("the module returned invalid results on stdout (exit code {0})")]
    Invalid(u8, #[source] Invalid),
}

/// Reads what is to be called, calls it, and writes the results to `output`. Gives the exit code of the
/// module, which is no part of the results.
///
/// # Errors
/// [`CallFailure`] when there are no results.
pub fn run(input: impl Read, mut output: impl Write) -> Result<u8, CallFailure> {
    let work: Work = serde_json::from_reader(input).map_err(CallFailure::Work)?;
    let schema = Schema::parse(&work.results).map_err(CallFailure::Schema)?;
    let files = work.output_files.then(OutputFiles::make).transpose()?;
    let said = call(&work, files.as_ref())?;
    let results = results(&said, &schema)?;
    output
        .write_all(results.text().as_bytes())
        .and_then(|()| output.flush())
        .map_err(failed("write the results"))?;
    Ok(said.exitcode)
}

fn call(work: &Work, files: Option<&OutputFiles>) -> Result<Said, CallFailure> {
    let arguments = pxp::write(&Arguments {
        input: &work.input,
        configuration: work.configuration.as_deref(),
        output_files: files,
    });
    let mut child = Command::new(&work.program)
        .arg(&work.action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // What it says while it works is seen while it works.
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(failed("run the module"))?;
    let stdin = child.stdin.take();
    let writer = thread::spawn(move || {
        // A module that does not read is free not to.
        stdin.map(|mut stdin| stdin.write_all(&arguments).ok());
    });
    let mut stdout = Vec::new();
    if let Some(pipe) = &mut child.stdout {
        stdout = whole(pipe, "stdout")?;
    }
    let status = child.wait().map_err(failed("wait for the module"))?;
    // It has ended, so nothing keeps the writer.
    writer.join().ok();
    let exitcode = code(status);
    let Some(files) = files else {
        return Ok(Said { stdout, exitcode });
    };
    if exitcode == FILES_NOT_WRITTEN {
        return Err(CallFailure::FilesNotWritten);
    }
    files.read(stdout, exitcode)
}

fn results(said: &Said, schema: &Schema) -> Result<JsonObject, CallFailure> {
    let code = said.exitcode;
    if said.stdout.trim_ascii().is_empty() {
        return Err(CallFailure::NoResults(code));
    }
    let not_json = |error| CallFailure::NotJson(code, error);
    let value: Value = serde_json::from_slice(&said.stdout).map_err(not_json)?;
    schema
        .check(&value)
        .map_err(|invalid| CallFailure::Invalid(code, invalid))?;
    serde_json::from_slice(said.stdout.trim_ascii()).map_err(not_json)
}

impl OutputFiles {
    fn make() -> Result<Self, CallFailure> {
        let template = std::env::temp_dir().join("pxp-module-XXXXXX");
        let made = nix::unistd::mkdtemp(&template).map_err(io::Error::from);
        let directory = made.map_err(failed("make a directory for the module's output"))?;
        Ok(Self {
            stdout: directory.join("stdout"),
            stderr: directory.join("stderr"),
            exitcode: directory.join("exitcode"),
            directory,
        })
    }

    /// What the module has written, or, where it has written nothing, what it has said and ended with.
    fn read(&self, said: Vec<u8>, ended: u8) -> Result<Said, CallFailure> {
        let stdout = read(&self.stdout, "stdout")?.unwrap_or(said);
        if let Some(stderr) = read(&self.stderr, "stderr")? {
            let written = io::stderr().write_all(&stderr);
            written.map_err(failed("pass on what the module said"))?;
        }
        let exitcode = read(&self.exitcode, "exitcode")?;
        let exitcode = exitcode.and_then(|text| String::from_utf8(text).ok());
        let exitcode = exitcode.and_then(|text| text.trim().parse().ok());
        Ok(Said {
            stdout,
            exitcode: exitcode.unwrap_or(ended),
        })
    }
}

impl Drop for OutputFiles {
    fn drop(&mut self) {
        // In a /tmp of the action's own it goes away anyhow.
        fs::remove_dir_all(&self.directory).ok();
    }
}

fn read(path: &Path, what: &'static str) -> Result<Option<Vec<u8>>, CallFailure> {
    match File::open(path) {
        Ok(mut file) => whole(&mut file, what).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read the module's output")(error)),
    }
}

/// Reads to the end, and no more than the limit.
fn whole(from: &mut impl Read, what: &'static str) -> Result<Vec<u8>, CallFailure> {
    let mut bytes = Vec::new();
    let read = from.take(MAX_OUTPUT + 1).read_to_end(&mut bytes);
    let length = read.map_err(failed("read the module's output"))?;
    if length as u64 > MAX_OUTPUT {
        return Err(CallFailure::TooMuch(what));
    }
    Ok(bytes)
}

/// As shells have it: 128 and the signal's number where a signal ended it.
fn code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX)
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> CallFailure {
    move |source| CallFailure::Io { operation, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    proptest! {
        #[test]
        fn any_output_of_a_module_is_results_or_told_as_none(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            text in "(\\{|\\}|\"out\"|:|1| |\n|,|\\[|\\]){0,16}",
        ) {
            let schema = Schema::parse(&json!({"type": "object", "required": ["out"]})).unwrap();
            for stdout in [bytes, text.into_bytes()] {
                let read = results(&Said { stdout, exitcode: 0 }, &schema);
                if let Ok(read) = read {
                    let value: Value = read.parse().unwrap();
                    prop_assert!(value.get("out").is_some());
                }
            }
        }

        #[test]
        fn what_is_no_request_for_a_call_starts_nothing(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut output = Vec::new();
            let refused = run(bytes.as_slice(), &mut output);
            prop_assert!(matches!(refused, Err(CallFailure::Work(_))));
            prop_assert!(output.is_empty());
        }
    }

    /// Calls a module that is this script; its results and exit code, or why there are none.
    fn called(script: &str, output_files: bool) -> Result<(String, u8), String> {
        let dir = TempDir::new().unwrap();
        let program = dir.path().join("module");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let work = json!({
            "program": program,
            "action": "act",
            "input": {"n": 1},
            "configuration": {"c": 1.0},
            "results": {"type": "object", "required": ["out"]},
            "output_files": output_files,
        });
        let mut output = Vec::new();
        // Another test's process may just be made while the file is open for writing.
        let code = loop {
            match run(work.to_string().as_bytes(), &mut output) {
                Err(CallFailure::Io { source, .. })
                    if source.kind() == io::ErrorKind::ExecutableFileBusy => {}
                other => break other,
            }
        };
        let code = code.map_err(|error| daemon::error_chain(&error))?;
        Ok((String::from_utf8(output).unwrap(), code))
    }

    #[test]
    fn a_module_gets_input_and_configuration_and_its_results_are_told_with_any_exit_code() {
        let script = r#"input=$(cat); [ "$1" = act ] || exit 9
            case $input in *output_files*) exit 9 ;; esac
            printf '{"out": %s}\n' "$input"; exit 3"#;
        let (results, code) = called(script, false).unwrap();
        assert_eq!(
            results,
            r#"{"out": {"input":{"n":1},"configuration":{"c":1.0}}}"#
        );
        assert_eq!(code, 3);
    }

    /// Takes a path out of the input, as no module does that has a JSON reader.
    const FILES: &str = r#"input=$(cat); at() { echo "$input" | sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/"; }
        out=$(at stdout); code=$(at exitcode); dir=$(dirname "$out")
        [ "$(stat -c %a "$dir")" = 700 ] || exit 9"#;

    #[test]
    fn what_a_module_writes_to_its_files_counts_and_they_do_not_stay() {
        let script = format!(
            "{FILES}\necho noise; printf '{{\"out\": \"%s\"}}' \"$dir\" >\"$out\"; echo 4 >\"$code\""
        );
        let (results, code) = called(&script, true).unwrap();
        assert_eq!(code, 4);
        let results: Value = serde_json::from_str(&results).unwrap();
        assert!(!Path::new(results["out"].as_str().unwrap()).exists());
        // One that does not know of files says it.
        let plain = called("echo '{\"out\": 1}'; exit 2", true).unwrap();
        assert_eq!(plain, ("{\"out\": 1}".to_owned(), 2));
        let error = called("exit 5", true).unwrap_err();
        assert_eq!(error, "failed to write output on file");
    }

    #[test]
    fn what_is_no_result_is_told_by_what_is_wrong() {
        for (script, words) in [
            ("exit 7", "no results on stdout (exit code 7)"),
            ("echo oops", "invalid JSON on stdout"),
            ("echo '[1]'", "invalid results on stdout"),
            ("echo '{\"other\": 1}'", "\"out\" is missing"),
            ("kill -9 $$", "no results on stdout (exit code 137)"),
        ] {
            let error = called(script, false).unwrap_err();
            assert!(error.contains(words), "{script}: {error}");
        }
    }
}
