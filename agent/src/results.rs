//! From the end of a run to what the requester is told: reports become outcomes, and outcomes, with
//! the output that lies beside them, become results.

mod form;

use std::io;
use std::path::Path;
use std::time::Duration;

use pxp::{ActionResult, KilledBy, Profile, Usage};
use sandbox::output::{Output, Stream};
use sandbox::{FinishError, Report, RunDir};

use crate::transaction::{Outcome, Ran, Took, Written};
pub use form::{About, Form};

/// How much is read at once.
const READ: usize = 1 << 20;

/// What is added to a signal's number to make an exit code, as shells do.
const SIGNAL_BASE: i32 = 128;

/// The requester gets no result, and this is why: for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoResult(pub String);

/// What a process is said to have ended with when it was ended before its time: that it got SIGTERM.
/// Whether it or SIGKILL did it depends on the process; `killed_by` says why.
const ENDED: i32 = SIGNAL_BASE + 15;

/// What a report means. `time_limit` is the one that the run was started with, where it is known.
#[must_use]
pub fn outcome(report: &Report, time_limit: Option<Duration>) -> Outcome {
    let exitcode = match &report.outcome {
        sandbox::Outcome::Exited { code } => *code,
        sandbox::Outcome::Signaled { signal } => SIGNAL_BASE.saturating_add(*signal),
        sandbox::Outcome::TimedOut | sandbox::Outcome::Stopped => ENDED,
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
        took: took(report, time_limit),
    })
}

fn took(report: &Report, time_limit: Option<Duration>) -> Took {
    let usage = &report.usage;
    // Reports of older wrappers have no usage, but say how it ended.
    let killed_by = match (&report.outcome, usage.killed_by) {
        (sandbox::Outcome::TimedOut, _) | (_, Some(sandbox::KilledBy::TimeLimit)) => {
            Some(KilledBy::TimeLimit)
        }
        (sandbox::Outcome::Stopped, _) | (_, Some(sandbox::KilledBy::Stop)) => Some(KilledBy::Stop),
        (_, Some(sandbox::KilledBy::Memory)) => Some(KilledBy::Memory),
        (_, None) => None,
    };
    Took {
        profile: usage.profile.map(|profile| match profile {
            sandbox::Profile::Host => Profile::Host,
            sandbox::Profile::Standard => Profile::Standard,
            sandbox::Profile::Confined => Profile::Confined,
        }),
        duration: Duration::from_millis(report.duration_ms),
        cpu: usage.cpu_ms.map(Duration::from_millis),
        peak_memory: usage.peak_memory_bytes,
        killed_by,
        time_limit,
    }
}

/// What a run took, as requesters are told it.
fn usage(ran: &Ran, rule: Option<&str>) -> Usage {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Usage {
        profile: ran.took.profile,
        rule: rule.map(str::to_owned),
        duration_ms: milliseconds(ran.took.duration),
        cpu_ms: ran.took.cpu.map(milliseconds),
        peak_memory_bytes: ran.took.peak_memory,
        killed_by: ran.took.killed_by,
        stdout_bytes: ran.stdout.bytes,
        stderr_bytes: ran.stderr.bytes,
        truncated: ran.stdout.truncated || ran.stderr.truncated,
    }
}

/// Why a run was ended before its time, and what to do about it: one line, or nothing.
fn ended_by(took: &Took) -> Option<String> {
    let what = "it and every process that it had started were ended";
    match took.killed_by? {
        KilledBy::TimeLimit => {
            let limit = took.time_limit.map(readable);
            let limit = limit.map_or_else(String::new, |limit| format!(" of {limit}"));
            Some(format!(
                "the task did not end within its time limit{limit}: {what}; if it needs longer, \
                 raise the timeout of the request or the agent's task-time-limit"
            ))
        }
        KilledBy::Stop => Some(format!("the task was stopped: {what}")),
        KilledBy::Memory => Some(format!(
            "the task reached its memory limit: {what}; if it needs more, raise the policy's limit or \
             the agent's task-memory-limit"
        )),
        KilledBy::Pids | KilledBy::Other => None,
    }
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
pub fn of(
    directory: &Path,
    outcome: &Outcome,
    about: &About,
    max_result: u64,
) -> Result<ActionResult, NoResult> {
    let ran = match outcome {
        Outcome::Ran(ran) => ran,
        Outcome::Failed(message) => return Err(NoResult(message.clone())),
    };
    let run = RunDir::new(directory.to_path_buf());
    let stdout = Runs::read(&run, Stream::Stdout, ran.stdout, max_result)?;
    let stderr = Runs::read(&run, Stream::Stderr, ran.stderr, max_result)?;
    for (stream, written, kept) in [
        ("stdout", ran.stdout, stdout.length()),
        ("stderr", ran.stderr, stderr.length()),
    ] {
        // The report may have reached the disk before the output, just when power failed.
        if !written.truncated && kept < written.bytes {
            return Err(NoResult(format!(
                "the task ended with exit code {}, but its output was lost when the machine \
                 restarted: {kept} of {} bytes of {stream} are left",
                ran.exitcode, written.bytes
            )));
        }
    }
    let mut notes = String::new();
    if let Some(why) = ended_by(&ran.took) {
        notes.push_str(&format!("pxp-agent: {why}\n"));
    }
    for (stream, written, kept) in [
        ("stdout", ran.stdout, stdout.length()),
        ("stderr", ran.stderr, stderr.length()),
    ] {
        if written.truncated {
            notes.push_str(&format!(
                "pxp-agent: the task wrote {} bytes to {stream}, of which the first and the last, \
                 {kept} together, were kept (task-output-limit)\n",
                written.bytes
            ));
        }
    }
    let stdout = stdout.text(ran.stdout)?;
    let mut stderr = stderr.lossy_text(ran.stderr);
    if !notes.is_empty() && !stderr.is_empty() && !stderr.ends_with('\n') {
        stderr.push('\n');
    }
    stderr.push_str(&notes);
    let mut result = ActionResult {
        exitcode: ran.exitcode,
        stdout: Some(stdout).filter(|text| !text.is_empty()),
        stderr: Some(stderr).filter(|text| !text.is_empty()),
        usage: Some(usage(ran, about.rule.as_deref())),
    };
    about.form.check(&mut result)?;
    Ok(result)
}

/// What was kept of a stream: runs of bytes, with a gap between each two.
struct Runs(Vec<(u64, Vec<u8>)>);

impl Runs {
    fn read(
        run: &RunDir,
        stream: Stream,
        written: Written,
        max_result: u64,
    ) -> Result<Self, NoResult> {
        let name = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        let failed = |error: io::Error| {
            NoResult(format!(
                "the task's {name} could not be read back from the spool: {error}"
            ))
        };
        let output = Output::of(run, stream);
        let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
        let (mut next, mut length) = (0, 0_u64);
        while next < written.bytes {
            let (offset, _, bytes) = output.read(next, READ).map_err(failed)?;
            if bytes.is_empty() {
                break;
            }
            next = offset + bytes.len() as u64;
            length += bytes.len() as u64;
            if length > max_result {
                return Err(NoResult(format!(
                    "the task's {name} exceeds max-message-size {max_result}"
                )));
            }
            match runs.last_mut() {
                Some((from, run)) if *from + run.len() as u64 == offset => run.extend(bytes),
                _ => runs.push((offset, bytes)),
            }
        }
        Ok(Self(runs))
    }

    fn length(&self) -> u64 {
        self.0.iter().map(|(_, run)| run.len() as u64).sum()
    }

    /// Standard output must be UTF-8 without NUL, as in the original.
    fn text(self, written: Written) -> Result<String, NoResult> {
        self.join(written, |offset, run| {
            let invalid = |at: usize| {
                NoResult(format!(
                    "the task returned invalid UTF-8 on stdout, at byte {}: tasks must print text, \
                     without NUL characters",
                    offset + at as u64
                ))
            };
            if let Some(at) = run.iter().position(|b| *b == 0) {
                return Err(invalid(at));
            }
            String::from_utf8(run).map_err(|error| invalid(error.utf8_error().valid_up_to()))
        })
    }

    /// Standard error is made to be text.
    fn lossy_text(self, written: Written) -> String {
        let replace = |_, run: Vec<u8>| Ok(String::from_utf8_lossy(&run).into_owned());
        // It replaces what is no text, so it cannot fail.
        self.join(written, replace).unwrap_or_default()
    }

    /// All runs, with a line in each gap that says how much is missing. Where a gap has cut a
    /// character in two, the rest of it counts as missing.
    fn join(
        self,
        written: Written,
        text: impl Fn(u64, Vec<u8>) -> Result<String, NoResult>,
    ) -> Result<String, NoResult> {
        let mut all = String::new();
        let mut end = 0;
        let mut runs = self.0.into_iter().peekable();
        while let Some((mut offset, mut run)) = runs.next() {
            if offset > end {
                let rest = run
                    .iter()
                    .take(3)
                    .take_while(|b| is_continuation(**b))
                    .count();
                offset += run.drain(..rest).len() as u64;
                gap(&mut all, offset - end);
            }
            if (runs.peek().is_some() || offset + (run.len() as u64) < written.bytes)
                && let Err(error) = std::str::from_utf8(&run)
                && error.error_len().is_none()
            {
                run.truncate(error.valid_up_to());
            }
            end = offset + run.len() as u64;
            all.push_str(&text(offset, run)?);
        }
        if end < written.bytes {
            gap(&mut all, written.bytes - end);
        }
        Ok(all)
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

fn gap(text: &mut String, missing: u64) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&format!("[pxp-agent: {missing} bytes were not kept]\n"));
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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_output_is_a_result_within_the_limit_or_a_reason(
            stdout in prop::collection::vec(any::<u8>(), 0..40),
            stderr in prop::collection::vec(any::<u8>(), 0..40),
            text in "\\PC{0,20}", unwritten in 0..3_u64,
        ) {
            for stdout in [stdout.as_slice(), text.as_bytes()] {
                let mut ran = ran(0);
                let bytes = |kept: &[u8]| Written {
                    bytes: kept.len() as u64 + unwritten,
                    truncated: unwritten > 0,
                };
                ran.stdout = bytes(stdout);
                ran.stderr = bytes(&stderr);
                match of_output(stdout, &stderr, ran) {
                    Ok(result) if unwritten == 0 => {
                        prop_assert_eq!(result.stdout.unwrap_or_default().into_bytes(), stdout);
                    }
                    Ok(_) => {}
                    Err(NoResult(why)) => prop_assert!(why.contains("invalid UTF-8"), "{}", why),
                }
            }
        }
    }

    const LIMIT: u64 = 1000;

    const ABOUT: About = About {
        form: Form::Output,
        rule: None,
    };

    fn of_output(stdout: &[u8], stderr: &[u8], ran: Ran) -> Result<ActionResult, NoResult> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("stdout"), stdout).unwrap();
        std::fs::write(dir.path().join("stderr"), stderr).unwrap();
        of(dir.path(), &Outcome::Ran(ran), &ABOUT, LIMIT)
    }

    fn ran(exitcode: i32) -> Ran {
        Ran {
            exitcode,
            stdout: Written::default(),
            stderr: Written::default(),
            took: Took {
                duration: Duration::from_millis(1),
                ..Took::default()
            },
        }
    }

    fn wrote(stdout: &[u8], stderr: &[u8]) -> Ran {
        let whole = |bytes: &[u8]| Written {
            bytes: bytes.len() as u64,
            truncated: false,
        };
        Ran {
            stdout: whole(stdout),
            stderr: whole(stderr),
            ..ran(0)
        }
    }

    fn of_whole(stdout: &[u8], stderr: &[u8]) -> Result<ActionResult, NoResult> {
        of_output(stdout, stderr, wrote(stdout, stderr))
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
        let result = of_whole(b"", b"").unwrap();
        assert_eq!(
            (result.exitcode, result.stdout, result.stderr),
            (0, None, None)
        );
        let result = of_whole(b"{}", b"no").unwrap();
        assert_eq!(result.stdout.as_deref(), Some("{}"));
        assert_eq!(result.stderr.as_deref(), Some("no"));
    }

    #[test]
    fn stdout_must_be_text_and_stderr_is_made_to_be() {
        for bytes in [&b"ab\xff"[..], b"a\0b", b"\xc3"] {
            let NoResult(message) = of_whole(bytes, b"").unwrap_err();
            assert!(message.contains("invalid UTF-8 on stdout"), "{message}");
        }
        let result = of_whole("ä".as_bytes(), b"a\xffb").unwrap();
        assert_eq!(result.stderr.as_deref(), Some("a\u{fffd}b"));
    }

    #[test]
    fn a_cut_is_said_and_never_falls_into_a_character() {
        let dir = tempfile::tempdir().unwrap();
        let head = dir.path().join("stdout");
        // "ab" and half an "ä"; bytes 3 to 9 are gone; the rest of an "ö" and "cd".
        std::fs::write(&head, b"ab\xc3").unwrap();
        std::fs::write(sandbox::output::segment_path(&head, 10), b"\xb6cd").unwrap();
        std::fs::write(dir.path().join("stderr"), b"x").unwrap();
        let cut = Ran {
            stdout: Written {
                bytes: 13,
                truncated: true,
            },
            ..wrote(b"", b"x")
        };
        let result = of(dir.path(), &Outcome::Ran(cut), &ABOUT, LIMIT).unwrap();
        assert_eq!(
            result.stdout.as_deref(),
            Some("ab\n[pxp-agent: 9 bytes were not kept]\ncd")
        );
        let stderr = result.stderr.unwrap();
        assert!(
            stderr.starts_with("x\npxp-agent: the task wrote 13 bytes to stdout, of which"),
            "{stderr}"
        );
    }

    #[test]
    fn a_stream_without_a_tail_ends_with_what_is_missing() {
        let cut = Ran {
            stdout: Written {
                bytes: 10,
                truncated: true,
            },
            ..ran(0)
        };
        let result = of_output(b"ab\n", b"", cut).unwrap();
        assert_eq!(
            result.stdout.as_deref(),
            Some("ab\n[pxp-agent: 7 bytes were not kept]\n")
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
        let NoResult(message) = of_whole(&[b'a'; 1001], b"").unwrap_err();
        assert!(message.contains("exceeds max-message-size"), "{message}");
    }

    #[test]
    fn every_end_of_a_run_is_a_result_or_says_why_not() {
        let exit = outcome(&report(sandbox::Outcome::Exited { code: 3 }), None);
        assert_eq!(exit, Outcome::Ran(ran(3)));
        let signal = outcome(&report(sandbox::Outcome::Signaled { signal: 9 }), None);
        assert_eq!(signal, Outcome::Ran(ran(137)));
        let limit = Some(Duration::from_secs(90));
        for (how, killed_by, words) in [
            (
                sandbox::Outcome::TimedOut,
                KilledBy::TimeLimit,
                "time limit of 90 s",
            ),
            (
                sandbox::Outcome::Stopped,
                KilledBy::Stop,
                "the task was stopped",
            ),
        ] {
            let ended = outcome(&report(how), limit);
            let dir = tempfile::tempdir().unwrap();
            let result = of(dir.path(), &ended, &ABOUT, LIMIT).unwrap();
            assert_eq!(result.exitcode, 143);
            assert_eq!(result.usage.unwrap().killed_by, Some(killed_by));
            let stderr = result.stderr.unwrap();
            assert!(stderr.contains(words), "{stderr}");
        }
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
