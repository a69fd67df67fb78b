//! Names of tasks: `module` and `module::task`. Parsed once at the edge, safe as path components.

use std::fmt;
use std::str::FromStr;

/// The longest module or task part of a name: what a file system takes as a file name, less the
/// extension.
const MAX_PART: usize = 200;

/// The task that is named like its module.
const INIT: &str = "init";

/// The name of a task: a module and a task in it. `module` is short for `module::init`, and both
/// texts give the same name. Each part matches `[a-z][a-z0-9_]*`, so a part is a safe file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskName {
    module: String,
    task: String,
}

/// Why a text is not the name of a task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A part is empty, too long, or has a character that task names do not have.
    #[error(
        "a task name is MODULE or MODULE::TASK, each a lower case letter followed by lower case letters, digits and '_'"
    )]
    Form,
}

impl TaskName {
    /// The task `task` of the module `module`; `init` is the module's own task.
    ///
    /// # Errors
    /// [`NameError::Form`] when a part has an illegal character or a wrong length.
    pub fn new(module: &str, task: &str) -> Result<Self, NameError> {
        if is_name(module) && is_name(task) {
            Ok(Self {
                module: module.to_owned(),
                task: task.to_owned(),
            })
        } else {
            Err(NameError::Form)
        }
    }

    /// The module's name.
    #[must_use]
    pub fn module(&self) -> &str {
        &self.module
    }

    /// The task's name within its module: `init` for the module's own task.
    #[must_use]
    pub fn task(&self) -> &str {
        &self.task
    }
}

/// Whether `text` can be the name of a module or of a task in it.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= MAX_PART
        && text
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

impl FromStr for TaskName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once("::") {
            Some((module, task)) => Self::new(module, task),
            None => Self::new(text, INIT),
        }
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.task == INIT {
            f.write_str(&self.module)
        } else {
            write!(f, "{}::{}", self.module, self.task)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_alone_names_its_init_task() {
        let short: TaskName = "apache".parse().unwrap();
        assert_eq!(short, "apache::init".parse().unwrap());
        assert_eq!((short.module(), short.task()), ("apache", "init"));
        assert_eq!(short.to_string(), "apache");
        assert_eq!("a::b_2".parse::<TaskName>().unwrap().to_string(), "a::b_2");
    }

    #[test]
    fn refuses_names_that_are_no_safe_file_names() {
        let long = "a".repeat(MAX_PART + 1);
        for text in [
            "", "::", "a::", "::a", "A", "a::B-c", "a::b::c", "1a", "a/b", "..", "a\n", "é", &long,
        ] {
            assert_eq!(text.parse::<TaskName>(), Err(NameError::Form), "{text:?}");
        }
    }
}
