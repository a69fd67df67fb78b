//! `task run`: which executable runs, with which files beside it, and how its parameters reach it.
//! Decided here, in pure code, when the request comes in; what it needs from the cache and the disk
//! is done in [`crate::runner`].

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use pxp::{Implementation, TaskMetadata, TaskRun, Wishes};
use sandbox::Delivery;

use super::MAX_TEXT;
use super::launch::{Launch, Place};
use super::path::RelativePath;
use super::puppet::{self, NoPuppet};
use super::source::{self, Source, SourceError};

/// What every node with this agent has.
const FEATURES: [&str; 2] = ["puppet-agent", "shell"];

/// The most files in a request. Real tasks have fewer than ten; a whole module directory given as
/// support files may have hundreds.
const MAX_FILES: usize = 10_000;

/// A task that can be staged and run.
#[derive(Debug)]
pub struct Task {
    run: TaskRun,
    executable: Source,
    support: BTreeMap<RelativePath, Source>,
    delivery: Method,
}

/// How parameters reach a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Stdin,
    Environment,
    Both,
}

/// Why a task cannot be run as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// There is nothing to run.
    #[error("the request has no files")]
    NoFiles,
    /// There are too many files.
    #[error("the request has {0} files, more than {MAX_FILES}")]
    TooManyFiles(usize),
    /// The name of the task does not begin with that of a module.
    #[error("the task name {0:?} is malformed")]
    TaskName(String),
    /// A file cannot be fetched, or leads elsewhere.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The node has not what any implementation needs.
    #[error("no implementations match supported features: {0}")]
    NoImplementation(String),
    /// It is to change nothing, and its metadata says that it cannot do that.
    #[error("Task {0} does not support noop")]
    NoNoop(String),
    /// The metadata names a file that did not come with the request.
    #[error("the file {0:?} is named in the metadata, and not among the files of the request")]
    MissingFile(String),
    /// It is a manifest, and there is nothing to apply it with.
    #[error(transparent)]
    NoPuppet(#[from] NoPuppet),
    /// The input method is not known, or not on this platform.
    #[error("unsupported task input method: {0}")]
    InputMethod(String),
    /// A parameter cannot be an environment variable.
    #[error(
        "the parameter {0:?} cannot be handed over in the environment: it has a NUL character, or '=' in its name"
    )]
    Variable(String),
    /// A parameter is too large for the environment.
    #[error(
        "the parameter {name:?} has {size} bytes, which is too large for the environment: set the task's input_method to stdin"
    )]
    TooLargeVariable {
        /// The parameter.
        name: String,
        /// The size of its value in bytes.
        size: usize,
    },
}

impl Task {
    /// Decides how a task is run.
    ///
    /// # Errors
    /// [`TaskError`] when it cannot be run as asked.
    pub fn new(run: TaskRun) -> Result<Self, TaskError> {
        if run.files.len() > MAX_FILES {
            return Err(TaskError::TooManyFiles(run.files.len()));
        }
        RelativePath::component(module_of(&run.task))
            .map_err(|_| TaskError::TaskName(run.task.clone()))?;
        let none = TaskMetadata::default();
        let metadata = run.metadata.as_ref().unwrap_or(&none);
        if metadata.supports_noop == Some(false) && is_noop(&run) {
            return Err(TaskError::NoNoop(run.task));
        }
        let implementation = choose(metadata, &features(&run))?;
        let executable = match implementation {
            None => run.files.first().ok_or(TaskError::NoFiles)?,
            Some(implementation) => run
                .files
                .iter()
                .find(|file| file.filename == implementation.name)
                .ok_or_else(|| TaskError::MissingFile(implementation.name.clone()))?,
        };
        let executable = Source::plain(executable)?;
        let method = implementation
            .and_then(|implementation| implementation.input_method.as_deref())
            .or(metadata.input_method.as_deref())
            .or(run.input_method.as_deref());
        let delivery = Method::parse(method, &executable.name)?;
        let support = support_files(&run, metadata, implementation)?;
        let task = Self {
            run,
            executable,
            support,
            delivery,
        };
        // Also found when the task is started; but then a person waits for nothing.
        task.delivery(None)?;
        Ok(task)
    }

    /// The task's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.run.task
    }

    /// What is asked beyond the task's own parameters.
    #[must_use]
    pub fn wishes(&self) -> Wishes {
        self.run.wishes()
    }

    /// The environments that its files are of, as the requester says.
    #[must_use]
    pub fn environments(&self) -> Vec<String> {
        source::environments(self.run.files.iter().map(|file| &file.uri))
    }

    /// Every file that must be there, and where it must lie below the staging directory.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, &Source)> {
        let mut files: Vec<_> = self
            .support
            .iter()
            .map(|(path, file)| (path.to_path_buf(), file))
            .collect();
        // Last, for it may be among the support files too.
        files.push((self.executable(), &self.executable));
        files
    }

    /// Where the executable lies below the staging directory: beside its module's other files when
    /// it needs them.
    fn executable(&self) -> PathBuf {
        let name = Path::new(&self.executable.name);
        if self.support.is_empty() {
            name.to_path_buf()
        } else {
            Path::new(module_of(&self.run.task))
                .join("tasks")
                .join(name)
        }
    }

    /// How it is started.
    ///
    /// # Errors
    /// [`TaskError`] when a parameter cannot be handed over.
    pub fn launch(&self, place: &Place<'_>) -> Result<Launch, TaskError> {
        let delivery = self.delivery(Some(place.staging))?;
        let program = place.staging.join(self.executable());
        if self.executable.name.ends_with(".pp") && !has_interpreter(&program) {
            let path = OsStr::new(super::launch::PATH);
            let puppet = puppet::find(place.node.puppet.as_deref(), path)?;
            return Ok(Launch {
                program: puppet,
                arguments: vec!["apply".to_owned(), program.to_string_lossy().into_owned()],
                delivery,
            });
        }
        Ok(Launch {
            program,
            arguments: Vec::new(),
            delivery,
        })
    }

    /// The parameters as the task gets them, when its files lie in `staging`.
    ///
    /// # Errors
    /// [`TaskError`] when a parameter cannot be handed over.
    fn delivery(&self, staging: Option<&Path>) -> Result<Delivery, TaskError> {
        let mut input = self.run.input.clone();
        input.set_text("_task", &self.run.task);
        if let (Some(staging), false) = (staging, self.support.is_empty()) {
            input.set_text("_installdir", &staging.to_string_lossy());
        }
        let mut delivery = Delivery::default();
        if self.delivery != Method::Environment {
            delivery.stdin = pxp::write(&input);
        }
        if self.delivery != Method::Stdin {
            for (name, value) in input.iter() {
                delivery.environment.push(variable(name, value)?);
            }
        }
        Ok(delivery)
    }
}

impl Method {
    fn parse(method: Option<&str>, executable: &str) -> Result<Self, TaskError> {
        let default = if executable.ends_with(".ps1") {
            "powershell"
        } else {
            "both"
        };
        match method.unwrap_or(default) {
            "stdin" => Ok(Self::Stdin),
            "environment" => Ok(Self::Environment),
            "both" => Ok(Self::Both),
            // "powershell" is for Windows, which this agent does not run on.
            other => Err(TaskError::InputMethod(other.to_owned())),
        }
    }
}

/// Whether it is to change nothing. It is the task that sees to that; the parameter says so.
fn is_noop(run: &TaskRun) -> bool {
    run.input
        .iter()
        .any(|(name, value)| name == "_noop" && value == "true")
}

fn features(run: &TaskRun) -> BTreeSet<&str> {
    let named = match &run.metadata {
        Some(metadata) => &metadata.features,
        None => &run.features,
    };
    let named = named.iter().flatten().map(String::as_str);
    FEATURES.into_iter().chain(named).collect()
}

/// The first implementation that the node can run; nothing when the metadata names none at all.
fn choose<'a>(
    metadata: &'a TaskMetadata,
    features: &BTreeSet<&str>,
) -> Result<Option<&'a Implementation>, TaskError> {
    let Some(implementations) = &metadata.implementations else {
        return Ok(None);
    };
    if implementations.is_empty() {
        return Ok(None);
    }
    let fits = |implementation: &&Implementation| {
        let mut needs = implementation.requirements.iter().flatten();
        needs.all(|feature| features.contains(feature.as_str()))
    };
    let chosen = implementations.iter().find(fits);
    chosen.map(Some).ok_or_else(|| {
        let features: Vec<_> = features.iter().copied().collect();
        TaskError::NoImplementation(features.join(", "))
    })
}

/// The files that metadata and implementation name: single ones, and everything below a directory.
fn support_files(
    run: &TaskRun,
    metadata: &TaskMetadata,
    implementation: Option<&Implementation>,
) -> Result<BTreeMap<RelativePath, Source>, TaskError> {
    let implementation = implementation.and_then(|implementation| implementation.files.as_ref());
    let wanted = metadata.files.iter().chain(implementation).flatten();
    let mut support = BTreeMap::new();
    for wanted in wanted {
        let mut found = false;
        for file in &run.files {
            let matches = if wanted.ends_with('/') {
                file.filename.starts_with(wanted.as_str())
            } else {
                file.filename == *wanted
            };
            if matches {
                found = true;
                let (path, source) = Source::at_path(file)?;
                support.insert(path, source);
            }
        }
        // A directory may be empty.
        if !found && !wanted.ends_with('/') {
            return Err(TaskError::MissingFile(wanted.clone()));
        }
    }
    Ok(support)
}

/// Whether a file says itself what runs it. One that cannot be read will say so when it is run.
fn has_interpreter(file: &Path) -> bool {
    let mut start = [0; 2];
    let read = File::open(file).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == *b"#!"
}

fn module_of(task: &str) -> &str {
    task.split_once("::").map_or(task, |(module, _)| module)
}

/// `PT_<name>`: texts as they are, everything else as JSON.
fn variable(name: &str, json: &str) -> Result<(OsString, OsString), TaskError> {
    let value = serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned());
    if name.contains(['\0', '=']) || value.contains('\0') {
        return Err(TaskError::Variable(name.to_owned()));
    }
    let variable = format!("PT_{name}");
    if variable.len() + value.len() + 2 > MAX_TEXT {
        return Err(TaskError::TooLargeVariable {
            name: name.to_owned(),
            size: value.len(),
        });
    }
    Ok((variable.into(), value.into()))
}

#[cfg(test)]
mod tests;
