//! [`Fault`]: one thing that is wrong in a configuration, on one line.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::ExitCode;

/// The most that a guess may differ from what was written.
const MAX_DISTANCE: usize = 3;

/// One thing that is wrong in a configuration. Displayed as `FILE:LINE: KEY: PROBLEM; HINT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file, or the directory when no file can be told.
    pub file: PathBuf,
    /// The line from 1, when the key is written anywhere.
    pub line: Option<u32>,
    /// The key with dots; empty when the fault is not of one key.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What may have been meant.
    pub hint: Option<String>,
}

impl Fault {
    pub(super) fn of_file(file: &Path, problem: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: None,
            key: String::new(),
            problem: problem.into(),
            hint: None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.problem)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Tells on standard error what is wrong, and how to end because of it. For `main`, before logging
/// has begun.
#[must_use]
pub fn refuse(faults: &[Fault]) -> ExitCode {
    for fault in faults {
        #[expect(clippy::print_stderr, reason = "there is no log yet")]
        {
            eprintln!("{fault}");
        }
    }
    ExitCode::Config
}

/// The known word that is nearest to what was written, as a hint.
pub(super) fn nearest(written: &str, known: &[&str]) -> Option<String> {
    known
        .iter()
        .map(|word| (distance(written, word), *word))
        .filter(|(distance, word)| *distance <= MAX_DISTANCE.min(word.len() / 2))
        .min()
        .map(|(_, word)| format!("did you mean {word:?}?"))
}

/// How many letters must be added, left out or replaced to make one word of the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.chars().enumerate() {
        let mut left = index + 1;
        let mut diagonal = index;
        for (other, above) in to.iter().zip(row.iter_mut().skip(1)) {
            let here = (diagonal + usize::from(letter != *other))
                .min(left + 1)
                .min(*above + 1);
            diagonal = std::mem::replace(above, here);
            left = here;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// A key with dots, its parts quoted where they have to be.
pub(super) fn dotted(path: &[String]) -> String {
    let parts: Vec<_> = path
        .iter()
        .map(|part| {
            if part.contains(['.', '"', ' ']) || part.is_empty() {
                quoted(part)
            } else {
                part.clone()
            }
        })
        .collect();
    parts.join(".")
}

/// One part of a key, quoted.
pub(super) fn quoted(part: &str) -> String {
    format!("\"{}\"", part.replace('\\', "\\\\").replace('"', "\\\""))
}
