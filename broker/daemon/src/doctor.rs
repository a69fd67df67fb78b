//! What a `doctor` command finds: one line for each thing that was looked at, and what to do about it
//! when it is not as it should be. The daemons look; this says it in one form and decides the exit
//! code.

use std::fmt;
use std::io::{self, Write};

use crate::ExitCode;

/// How things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and will not for long, or not for many.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub level: Level,
    /// What it is, in a word or two.
    pub subject: String,
    /// What was found.
    pub found: String,
    /// What to do about it; empty when there is nothing to do.
    pub advice: String,
}

/// Everything that was looked at, in the order it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// As it should be.
    pub fn ok(&mut self, subject: &str, found: impl fmt::Display) {
        self.add(Level::Ok, subject, found, "");
    }

    /// It works, with a reason to act.
    pub fn warn(&mut self, subject: &str, found: impl fmt::Display, advice: impl fmt::Display) {
        self.add(Level::Warn, subject, found, advice);
    }

    /// It does not work.
    pub fn fail(&mut self, subject: &str, found: impl fmt::Display, advice: impl fmt::Display) {
        self.add(Level::Fail, subject, found, advice);
    }

    fn add(
        &mut self,
        level: Level,
        subject: &str,
        found: impl fmt::Display,
        advice: impl fmt::Display,
    ) {
        self.0.push(Finding {
            level,
            subject: subject.to_owned(),
            found: found.to_string(),
            advice: advice.to_string(),
        });
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Finding] {
        &self.0
    }

    /// The worst of them.
    #[must_use]
    pub fn worst(&self) -> Level {
        let levels = self.0.iter().map(|finding| finding.level);
        levels.max().unwrap_or(Level::Ok)
    }

    /// 1 when something does not work; warnings alone are no failure.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self.worst() {
            Level::Ok | Level::Warn => ExitCode::Ok,
            Level::Fail => ExitCode::Failure,
        }
    }

    /// Prints them, each with its advice below it, and a sum at the end.
    ///
    /// # Errors
    /// What the writer says.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let subjects = self.0.iter().map(|finding| finding.subject.chars().count());
        let width = subjects.max().unwrap_or(0);
        for finding in &self.0 {
            let Finding {
                level,
                subject,
                found,
                advice,
            } = finding;
            let mut lines = found.lines();
            let first = lines.next().unwrap_or_default();
            writeln!(out, "{level:<4}  {subject:<width$}  {first}")?;
            for line in lines {
                writeln!(out, "{:width$}  {line}", "", width = width + 6)?;
            }
            for line in advice.lines() {
                writeln!(out, "{:width$}  -> {line}", "", width = width + 6)?;
            }
        }
        let count = |level| self.0.iter().filter(|f| f.level == level).count();
        writeln!(
            out,
            "\n{} ok, {} to look at, {} wrong",
            count(Level::Ok),
            count(Level::Warn),
            count(Level::Fail)
        )
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_decides_and_advice_stands_below_what_it_is_about() {
        let mut findings = Findings::default();
        findings.ok("clock", "within 1 s");
        assert_eq!(findings.exit_code(), ExitCode::Ok);
        findings.warn("certificate", "ends in 3 days", "renew it");
        assert_eq!(findings.exit_code(), ExitCode::Ok);
        findings.fail("primary", "no answer\nsince yesterday", "open UDP 8142");
        assert_eq!(findings.exit_code(), ExitCode::Failure);
        let mut out = Vec::new();
        findings.print(&mut out).expect("written");
        let text = String::from_utf8(out).expect("text");
        assert_eq!(
            text,
            "ok    clock        within 1 s\n\
             warn  certificate  ends in 3 days\n\
             \u{20}                  -> renew it\n\
             FAIL  primary      no answer\n\
             \u{20}                  since yesterday\n\
             \u{20}                  -> open UDP 8142\n\
             \n1 ok, 1 to look at, 1 wrong\n"
        );
    }
}
