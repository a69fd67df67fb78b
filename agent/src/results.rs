//! From the end of a run to what the requester is told: reports become outcomes, and outcomes, with
//! the output that lies beside them, become results.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use pxp::ActionResult;
use sandbox::{FinishError, Report, RunDir};

use crate::transaction::{Outcome, Ran, Written};

/// What is added to a signal's number to make an exit code, as shells do.
const SIGNAL_BASE: i32 = 128;

/// The requester gets no result, and this is why: for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoResult(pub String);

/// What a report means. `time_limit` is the one that the run was started with, where it is known.
#[must_use]
pub fn outcome(report: &Report, time_limit: Option<Duration>) -> Outcome {
    let exitcode = match &report.outcome {
        sandbox::Outcome::Exited { code } => *code,
        sandbox::Outcome::Signaled { signal } => SIGNAL_BASE.saturating_add(*signal),
        sandbox::Outcome::TimedOut => {
            let limit =
                time_limit.map_or_else(String::new, |limit| format!(" of {}", readable(limit)));
            return Outcome::Failed(format!(
                "the task did not end within its time limit{limit}: it and every process that it \
                 had started were ended; if it needs longer, raise the timeout of the request or \
                 the agent's task-time-limit"
            ));
        }
        sandbox::Outcome::Stopped => {
            return Outcome::Failed(
                "the task was stopped: it and every process that it had started were ended"
                    .to_owned(),
            );
        }
        sandbox::Outcome::SetupFailed { step, error } => {
            return Outcome::Failed(format!(
                "the task did not run: the execution wrapper failed in step \"{step}\": {error}"
            ));
        }
    };
    if let Some(error) = &report.output_error {
        return Outcome::Failed(format!(
            "the task ended with exit code {exitcode}, but its output could not be kept: {error}"
        ));
    }
    Outcome::Ran(Ran {
        exitcode,
        stdout: Written {
            bytes: report.stdout_bytes,
            truncated: report.stdout_truncated,
        },
        stderr: Written {
            bytes: report.stderr_bytes,
            truncated: report.stderr_truncated,
        },
    })
}

/// What the end of a run without a report means.
#[must_use]
pub fn outcome_without_report(error: &FinishError) -> Outcome {
    Outcome::Failed(format!(
        "the task was interrupted and may have done a part of its work: {}",
        daemon::error_chain(error)
    ))
}

/// The results of a transaction whose files lie in `directory`, as far as they are below
/// `max_result` bytes. Blocks.
///
/// # Errors
/// [`NoResult`] when there is none, or it cannot be told.
pub fn of(directory: &Path, outcome: &Outcome, max_result: u64) -> Result<ActionResult, NoResult> {
    let ran = match outcome {
        Outcome::Ran(ran) => ran,
        Outcome::Failed(message) => return Err(NoResult(message.clone())),
    };
    let run = RunDir::new(directory.to_path_buf());
    let stdout = kept(&run.stdout(), "stdout", max_result)?;
    let stderr = kept(&run.stderr(), "stderr", max_result)?;
    for (stream, written, kept) in [
        ("stdout", ran.stdout, stdout.len()),
        ("stderr", ran.stderr, stderr.len()),
    ] {
        // The report may have reached the disk before the output, just when power failed.
        if !written.truncated && (kept as u64) < written.bytes {
            return Err(NoResult(format!(
                "the task ended with exit code {}, but its output was lost when the machine \
                 restarted: {kept} of {} bytes of {stream} are left",
                ran.exitcode, written.bytes
            )));
        }
    }
    let mut stderr = String::from_utf8_lossy(&stderr).into_owned();
    for (stream, written, kept) in [
        ("stdout", ran.stdout, stdout.len()),
        ("stderr", ran.stderr, stderr.len()),
    ] {
        if written.truncated {
            if !stderr.is_empty() && !stderr.ends_with('\n') {
                stderr.push('\n');
            }
            stderr.push_str(&format!(
                "pxp-agent: the task wrote {} bytes to {stream}; only the first {kept} were kept \
                 (task-output-limit)\n",
                written.bytes
            ));
        }
    }
    let stdout = text(stdout, ran.stdout.truncated)?;
    Ok(ActionResult {
        exitcode: ran.exitcode,
        stdout: Some(stdout).filter(|text| !text.is_empty()),
        stderr: Some(stderr).filter(|text| !text.is_empty()),
        usage: None,
    })
}

/// What was kept of a stream.
fn kept(path: &Path, stream: &str, max_result: u64) -> Result<Vec<u8>, NoResult> {
    let mut bytes = Vec::new();
    let read = match File::open(path) {
        Ok(file) => file
            .take(max_result.saturating_add(1))
            .read_to_end(&mut bytes),
        // Nothing was written.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    };
    match read {
        Ok(length) if length as u64 > max_result => Err(NoResult(format!(
            "the task's {stream} exceeds max-message-size {max_result}"
        ))),
        Ok(_) => Ok(bytes),
        Err(error) => Err(NoResult(format!(
            "the task's {stream} could not be read back from the spool: {error}"
        ))),
    }
}

/// Standard output must be UTF-8 without NUL, as in the original. Where the output limit has cut a
/// character in two, the rest of it is dropped.
fn text(mut bytes: Vec<u8>, truncated: bool) -> Result<String, NoResult> {
    let invalid = |at: usize| {
        NoResult(format!(
            "the task returned invalid UTF-8 on stdout, at byte {at}: tasks must print text, \
             without NUL characters"
        ))
    };
    if let Some(at) = bytes.iter().position(|b| *b == 0) {
        return Err(invalid(at));
    }
    if let Err(error) = std::str::from_utf8(&bytes)
        && truncated
        && error.error_len().is_none()
    {
        bytes.truncate(error.valid_up_to());
    }
    String::from_utf8(bytes).map_err(|error| invalid(error.utf8_error().valid_up_to()))
}

/// "90 s", or "40 min" where that is exact.
fn readable(limit: Duration) -> String {
    let seconds = limit.as_secs();
    if seconds >= 60 && seconds.is_multiple_of(60) {
        format!("{} min", seconds / 60)
    } else {
        format!("{seconds} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1000;

    fn of_output(stdout: &[u8], stderr: &[u8], ran: Ran) -> Result<ActionResult, NoResult> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("stdout"), stdout).unwrap();
        std::fs::write(dir.path().join("stderr"), stderr).unwrap();
        of(dir.path(), &Outcome::Ran(ran), LIMIT)
    }

    fn ran(exitcode: i32) -> Ran {
        Ran {
            exitcode,
            stdout: Written::default(),
            stderr: Written::default(),
        }
    }

    fn report(outcome: sandbox::Outcome) -> Report {
        Report {
            outcome,
            stdout_bytes: 0,
            stderr_bytes: 0,
            stdout_truncated: false,
            stderr_truncated: false,
            output_error: None,
            duration_ms: 1,
            containment: None,
            usage: sandbox::Usage::default(),
        }
    }

    #[test]
    fn empty_streams_are_left_out() {
        let result = of_output(b"", b"", ran(0)).unwrap();
        assert_eq!(
            (result.exitcode, result.stdout, result.stderr),
            (0, None, None)
        );
        let result = of_output(b"{}", b"no", ran(1)).unwrap();
        assert_eq!(result.stdout.as_deref(), Some("{}"));
        assert_eq!(result.stderr.as_deref(), Some("no"));
    }

    #[test]
    fn stdout_must_be_text_and_stderr_is_made_to_be() {
        for bytes in [&b"ab\xff"[..], b"a\0b", b"\xc3"] {
            let NoResult(message) = of_output(bytes, b"", ran(0)).unwrap_err();
            assert!(message.contains("invalid UTF-8 on stdout"), "{message}");
        }
        let result = of_output("ä".as_bytes(), b"a\xffb", ran(0)).unwrap();
        assert_eq!(result.stderr.as_deref(), Some("a\u{fffd}b"));
    }

    #[test]
    fn a_cut_is_said_and_never_falls_into_a_character() {
        let cut = Ran {
            stdout: Written {
                bytes: 10,
                truncated: true,
            },
            ..ran(0)
        };
        let result = of_output(b"ab\xc3", b"x", cut).unwrap();
        assert_eq!(result.stdout.as_deref(), Some("ab"));
        let stderr = result.stderr.unwrap();
        assert!(
            stderr.starts_with("x\npxp-agent: the task wrote 10 bytes to stdout"),
            "{stderr}"
        );
    }

    #[test]
    fn output_that_is_shorter_than_the_report_says_is_lost_and_not_empty() {
        let said = Ran {
            stdout: Written {
                bytes: 3,
                truncated: false,
            },
            ..ran(0)
        };
        let NoResult(message) = of_output(b"", b"", said).unwrap_err();
        assert!(message.contains("0 of 3 bytes of stdout"), "{message}");
    }

    #[test]
    fn more_than_a_message_can_hold_is_no_result() {
        let NoResult(message) = of_output(&[b'a'; 1001], b"", ran(0)).unwrap_err();
        assert!(message.contains("exceeds max-message-size"), "{message}");
    }

    #[test]
    fn every_end_of_a_run_is_a_result_or_says_why_not() {
        let exit = outcome(&report(sandbox::Outcome::Exited { code: 3 }), None);
        assert_eq!(exit, Outcome::Ran(ran(3)));
        let signal = outcome(&report(sandbox::Outcome::Signaled { signal: 9 }), None);
        assert_eq!(signal, Outcome::Ran(ran(137)));
        let limit = Some(Duration::from_secs(90));
        let Outcome::Failed(message) = outcome(&report(sandbox::Outcome::TimedOut), limit) else {
            panic!("a task without an end has no result");
        };
        assert!(message.contains("time limit of 90 s"), "{message}");
        let setup = sandbox::Outcome::SetupFailed {
            step: "cgroup".to_owned(),
            error: "Permission denied".to_owned(),
        };
        let Outcome::Failed(message) = outcome(&report(setup), limit) else {
            panic!("a task that did not run has no result");
        };
        assert!(message.contains("did not run") && message.contains("Permission denied"));
        let lost = Report {
            output_error: Some("No space left on device".to_owned()),
            ..report(sandbox::Outcome::Exited { code: 0 })
        };
        assert!(matches!(outcome(&lost, None), Outcome::Failed(m) if m.contains("No space")));
    }
}
