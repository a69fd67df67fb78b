//! Checks what a caller gives a task against the task's metadata.

use std::fmt;

use serde_json::{Map, Value};

use crate::metadata::{Parameter, Requirement, kind_of};
use crate::task::Task;

/// How much of a refused value an error shows, in characters. More does not help to find it.
const SHOWN_VALUE: usize = 120;

/// What the runner adds to a task's input. A caller may not set them.
const METAPARAMETERS: [&str; 4] = ["_task", "_noop", "_installdir", "_target"];

/// What is wrong with one parameter. The text names the parameter, the type that is expected and,
/// unless the parameter is sensitive, the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parameter '{parameter}' {problem}")]
pub struct ParameterFault {
    /// The parameter's name.
    pub parameter: String,
    /// What is wrong with it.
    pub problem: ParameterProblem,
}

/// What can be wrong with a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParameterProblem {
    /// The task has no parameter of this name; `nearest` is what may have been meant.
    Unknown {
        /// A known name that differs by little.
        nearest: Option<String>,
    },
    /// The name belongs to the runner.
    Reserved,
    /// A value is required and there is none.
    Missing {
        /// The type of the parameter.
        expected: String,
    },
    /// The value does not match the type.
    Mismatch {
        /// The type of the parameter.
        expected: String,
        /// The value as JSON, cut when it is long; `None` when the parameter is sensitive.
        value: Option<String>,
        /// What the value is, such as `String`.
        kind: &'static str,
    },
    /// The default in the metadata does not match the type. The remedy is to give a value.
    BadDefault {
        /// The type of the parameter.
        expected: String,
        /// The default as JSON, or `None` when the parameter is sensitive.
        value: Option<String>,
    },
    /// The type in the metadata cannot be understood, so that no value can be checked.
    BadType {
        /// The type as it is written.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Task {
    /// Checks the parameters that a caller gives, and fills in the defaults. `null` counts as absent.
    ///
    /// # Errors
    /// Every fault at once, ordered by parameter.
    pub fn check_parameters(
        &self,
        given: &Map<String, Value>,
    ) -> Result<Map<String, Value>, Vec<ParameterFault>> {
        let mut checked: Map<String, Value> = given
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let mut faults = Vec::new();
        for name in checked.keys() {
            if let Some(problem) = self.name_problem(name) {
                faults.push(ParameterFault {
                    parameter: name.clone(),
                    problem,
                });
            }
        }
        for (name, parameter) in self.metadata.parameters.iter().flatten() {
            match parameter.check(checked.get(name)) {
                Ok(Some(default)) => {
                    checked.insert(name.clone(), default);
                }
                Ok(None) => {}
                Err(problem) => faults.push(ParameterFault {
                    parameter: name.clone(),
                    problem,
                }),
            }
        }
        if faults.is_empty() {
            return Ok(checked);
        }
        faults.sort_by(|a, b| a.parameter.cmp(&b.parameter));
        Err(faults)
    }

    fn name_problem(&self, name: &str) -> Option<ParameterProblem> {
        if METAPARAMETERS.contains(&name) {
            return Some(ParameterProblem::Reserved);
        }
        match &self.metadata.parameters {
            Some(known) if known.contains_key(name) => None,
            Some(known) => Some(ParameterProblem::Unknown {
                nearest: nearest(name, known.keys().map(String::as_str)),
            }),
            None => name.starts_with('_').then_some(ParameterProblem::Reserved),
        }
    }
}

impl Parameter {
    /// Checks the value that is given, if any; gives the default that takes its place.
    fn check(&self, given: Option<&Value>) -> Result<Option<Value>, ParameterProblem> {
        let puppet_type = self
            .puppet_type
            .as_ref()
            .map_err(|error| ParameterProblem::BadType {
                text: self.type_text.clone(),
                reason: error.to_string(),
            })?;
        let expected = || self.type_text.clone();
        let shown = |value: &Value| (!self.sensitive).then(|| shorten(&value.to_string()));
        match (given, &self.default) {
            (Some(value), _) if puppet_type.matches(value) => Ok(None),
            (Some(value), _) => Err(ParameterProblem::Mismatch {
                expected: expected(),
                value: shown(value),
                kind: kind_of(value),
            }),
            (None, Some(Value::Null)) => Ok(None),
            (None, Some(default)) if puppet_type.matches(default) => Ok(Some(default.clone())),
            (None, Some(default)) => Err(ParameterProblem::BadDefault {
                expected: expected(),
                value: shown(default),
            }),
            (None, None) if self.requirement() == Requirement::Required => {
                Err(ParameterProblem::Missing {
                    expected: expected(),
                })
            }
            (None, None) => Ok(None),
        }
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_VALUE) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The known name that is at most two edits away, the nearest first.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    const NEAR: usize = 2;
    const LONGEST: usize = 64; // beyond it nobody mistypes by two letters, and the work is squared
    if name.chars().count() > LONGEST {
        return None;
    }
    known
        .filter(|candidate| candidate.len() <= LONGEST)
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(edits, _)| *edits <= NEAR)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// The edit distance of two names, row by row.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut previous = i + 1;
        for (right, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let substituted = diagonal + usize::from(left != *right);
            diagonal = *cell;
            *cell = substituted.min(previous + 1).min(diagonal + 1);
            previous = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

impl fmt::Display for ParameterProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { nearest: None } => f.write_str("is not a parameter of this task"),
            Self::Unknown {
                nearest: Some(known),
            } => {
                write!(
                    f,
                    "is not a parameter of this task; did you mean '{known}'?"
                )
            }
            Self::Reserved => f.write_str("is set by the runner and cannot be given"),
            Self::Missing { expected } => write!(f, "is required and expects {expected}"),
            Self::Mismatch {
                expected,
                value: Some(value),
                kind,
            } => {
                write!(f, "expects {expected}, got {kind} {value}")
            }
            Self::Mismatch {
                expected,
                value: None,
                kind,
            } => {
                write!(f, "expects {expected}, got {kind} [sensitive value]")
            }
            Self::BadDefault { expected, value } => {
                let value = value.as_deref().unwrap_or("[sensitive value]");
                write!(
                    f,
                    "expects {expected}, and the task's default {value} does not match it"
                )
            }
            Self::BadType { text, reason } => {
                write!(
                    f,
                    "has a type that cannot be understood ('{text}': {reason})"
                )
            }
        }
    }
}
