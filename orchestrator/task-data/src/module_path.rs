//! The module path of an environment: directories of modules, the first of a name winning.
//!
//! The rules are Puppet Server's. A file belongs to `tasks/` when its name without the extension is
//! a task name and its extension is neither `.md` nor `.conf`; `.json` are metadata, the others can
//! be run. A task that is broken is left out of lists, and asking for it says what is wrong.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{ListError, TaskError};
use crate::files::{Located, locate, within};
use crate::metadata::Metadata;
use crate::name::{TaskName, is_name};
use crate::task::{Task, TaskFile};

/// The largest metadata file that is read. The largest of the Puppet Forge have some 50 KiB.
const MAX_METADATA_BYTES: u64 = 1 << 20;

/// How many entries of one directory are looked at: far above any module path.
const MAX_ENTRIES: usize = 20_000;

/// Extensions that are never tasks: documents and configuration.
const FORBIDDEN_EXTENSIONS: [&str; 2] = [".md", ".conf"];

/// The environment whose name stands in file URIs unless another is set.
const DEFAULT_ENVIRONMENT: &str = "production";

/// Directories of modules, searched in order. A directory that does not exist is skipped, as Puppet
/// does. Nothing is cached: an edit is seen by the next call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModulePath {
    directories: Vec<PathBuf>,
    environment: String,
}

/// A task as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSummary {
    /// The task's name.
    pub name: TaskName,
    /// One line on what the task does; empty when its metadata have none.
    pub description: String,
    /// Whether the task is to be left out of lists for people.
    pub private: bool,
}

/// All the tasks of a module path, and what is wrong with those that cannot be listed.
#[derive(Debug)]
pub struct Survey {
    /// The sound tasks, by name.
    pub tasks: Vec<TaskSummary>,
    /// The broken ones, by name. For the log: no list shows them.
    pub broken: Vec<(TaskName, TaskError)>,
    /// What is odd about the metadata of sound ones. For the log, too.
    pub warnings: Vec<(TaskName, String)>,
}

/// The `tasks` directory of one module.
struct TasksDirectory {
    module: String,
    /// The module's own directory, as the module path has it.
    root: PathBuf,
    /// The names of the files that belong to tasks, sorted.
    files: Vec<String>,
}

impl ModulePath {
    /// A module path of these directories, for the environment `production`.
    #[must_use]
    pub fn new(directories: Vec<PathBuf>) -> Self {
        Self {
            directories,
            environment: DEFAULT_ENVIRONMENT.to_owned(),
        }
    }

    /// The same directories under another environment's name, which stands in file URIs.
    #[must_use]
    pub fn in_environment(mut self, environment: &str) -> Self {
        environment.clone_into(&mut self.environment);
        self
    }

    /// The sound tasks of all modules, by name. Private ones are included and marked.
    ///
    /// # Errors
    /// When a directory is there but cannot be read.
    pub fn list(&self) -> Result<Vec<TaskSummary>, ListError> {
        self.survey().map(|survey| survey.tasks)
    }

    /// The sound tasks of all modules and the faults of the others.
    ///
    /// # Errors
    /// When a directory is there but cannot be read.
    pub fn survey(&self) -> Result<Survey, ListError> {
        let mut survey = Survey {
            tasks: Vec::new(),
            broken: Vec::new(),
            warnings: Vec::new(),
        };
        for (module, root) in self.modules()? {
            let directory = TasksDirectory::read(&module, root)?;
            for name in directory.task_names() {
                match self.describe(&directory, &name) {
                    Ok((metadata, _)) => {
                        let warnings = metadata.warnings.into_iter();
                        survey
                            .warnings
                            .extend(warnings.map(|warning| (name.clone(), warning)));
                        survey.tasks.push(TaskSummary {
                            name,
                            private: metadata.private,
                            description: metadata.description.unwrap_or_default(),
                        });
                    }
                    Err(error) => survey.broken.push((name, error)),
                }
            }
        }
        survey.tasks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(survey)
    }

    /// One task with its metadata, its files and their digests, as they are now.
    ///
    /// # Errors
    /// [`TaskError`], whose kinds are those of Puppet Server.
    pub fn task(&self, name: &TaskName) -> Result<Task, TaskError> {
        let Some(root) = self.module_directory(name.module())? else {
            return Err(TaskError::ModuleNotFound {
                module: name.module().to_owned(),
            });
        };
        let directory = TasksDirectory::read(name.module(), root)?;
        if !directory.has(name) {
            return Err(TaskError::NotFound { name: name.clone() });
        }
        let (metadata, located) = self.describe(&directory, name)?;
        let files: Vec<TaskFile> = located
            .into_iter()
            .map(|file| file.digest(&self.environment))
            .collect::<Result<_, _>>()?;
        Ok(Task {
            name: name.clone(),
            metadata,
            files,
        })
    }

    /// The metadata of a task and where its files are, without reading these.
    fn describe(
        &self,
        directory: &TasksDirectory,
        name: &TaskName,
    ) -> Result<(Metadata, Vec<Located>), TaskError> {
        let metadata = directory.metadata(name)?;
        let mut located = directory.executables(name, &metadata)?;
        let of_implementations = metadata
            .implementations
            .iter()
            .flatten()
            .flat_map(|i| &i.files);
        located.extend(locate(
            |module| self.module_directory(module),
            metadata.files.iter().chain(of_implementations),
        )?);
        Ok((metadata, located))
    }

    /// The directory of a module: of the first entry of the path that has one.
    pub(crate) fn module_directory(&self, module: &str) -> Result<Option<PathBuf>, ListError> {
        for directory in &self.directories {
            let candidate = directory.join(module);
            match fs::metadata(&candidate) {
                Ok(found) if found.is_dir() => return Ok(Some(candidate)),
                Ok(_) => {}
                Err(error) if is_absent(&error) => {}
                Err(source) => {
                    return Err(ListError::Read {
                        path: candidate,
                        source,
                    });
                }
            }
        }
        Ok(None)
    }

    /// All modules by name, each with the directory that wins.
    fn modules(&self) -> Result<Vec<(String, PathBuf)>, ListError> {
        let mut modules: Vec<(String, PathBuf)> = Vec::new();
        for directory in &self.directories {
            for name in entries(directory)? {
                let path = directory.join(&name);
                if is_name(&name)
                    && path.is_dir()
                    && modules.iter().all(|(known, _)| *known != name)
                {
                    modules.push((name, path));
                }
            }
        }
        modules.sort();
        Ok(modules)
    }
}

impl TasksDirectory {
    fn read(module: &str, root: PathBuf) -> Result<Self, ListError> {
        let directory = root.join("tasks");
        let mut files = entries(&directory)?;
        files.retain(|file| is_task_file(file) && directory.join(file).is_file());
        Ok(Self {
            module: module.to_owned(),
            root,
            files,
        })
    }

    fn path(&self) -> PathBuf {
        self.root.join("tasks")
    }

    fn task_names(&self) -> Vec<TaskName> {
        let mut names: Vec<TaskName> = self
            .files
            .iter()
            .filter_map(|file| TaskName::new(&self.module, stem(file)).ok())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn has(&self, name: &TaskName) -> bool {
        self.files.iter().any(|file| stem(file) == name.task())
    }

    /// The metadata of a task; all defaults when it has no file or an empty one.
    fn metadata(&self, name: &TaskName) -> Result<Metadata, TaskError> {
        let file = format!("{}.json", name.task());
        if !self.files.contains(&file) {
            return Ok(Metadata::default());
        }
        let path = self.path().join(file);
        within(&self.root, &self.module, &path)?;
        let text = match read_metadata(&path) {
            Ok(text) => text,
            Err(source) => return Err(TaskError::UnreadableMetadata { path, source }),
        };
        if text.is_empty() {
            return Ok(Metadata::default());
        }
        match serde_json::from_slice::<Value>(&text) {
            Ok(value) => Metadata::read(name, value),
            Err(source) => Err(TaskError::UnparseableMetadata { path, source }),
        }
    }

    /// What can be run: all that `implementations` names, or the one file named like the task.
    fn executables(&self, name: &TaskName, metadata: &Metadata) -> Result<Vec<Located>, TaskError> {
        let mut runnable = self.files.iter().filter(|file| !file.ends_with(".json"));
        let locate = |file: &str| {
            Located::executable(&self.root, &self.module, file, self.path().join(file))
        };
        if let Some(implementations) = &metadata.implementations {
            return implementations
                .iter()
                .map(|implementation| {
                    if runnable.clone().any(|file| *file == implementation.name) {
                        locate(&implementation.name)
                    } else {
                        Err(TaskError::MissingImplementation {
                            name: name.clone(),
                            implementation: implementation.name.clone(),
                        })
                    }
                })
                .collect();
        }
        let mut candidates = runnable.by_ref().filter(|file| stem(file) == name.task());
        match (candidates.next(), candidates.next()) {
            (Some(only), None) => Ok(vec![locate(only)?]),
            (None, _) => Err(TaskError::NoImplementation {
                name: name.clone(),
                directory: self.path(),
            }),
            (Some(first), Some(_)) => Err(TaskError::MultipleImplementations {
                name: name.clone(),
                first: self.path().join(first),
            }),
        }
    }
}

/// The file name without its last extension, as Ruby's `File.basename(path, '.*')` cuts it.
fn stem(file: &str) -> &str {
    match file.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() && !extension.is_empty() => stem,
        _ => file,
    }
}

fn is_task_file(file: &str) -> bool {
    is_name(stem(file))
        && FORBIDDEN_EXTENSIONS
            .iter()
            .all(|forbidden| !file.ends_with(forbidden))
}

/// The names in a directory, sorted; none when it does not exist. Names that are not UTF-8 are no
/// names of modules or tasks.
fn entries(directory: &Path) -> Result<Vec<String>, ListError> {
    let failed = |source| ListError::Read {
        path: directory.to_owned(),
        source,
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
        if names.len() > MAX_ENTRIES {
            return Err(ListError::TooMany {
                path: directory.to_owned(),
                limit: MAX_ENTRIES,
            });
        }
    }
    names.sort();
    Ok(names)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn read_metadata(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?
        .take(MAX_METADATA_BYTES + 1)
        .read_to_end(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|length| length <= MAX_METADATA_BYTES) {
        Ok(text)
    } else {
        Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "metadata are larger than 1 MiB",
        ))
    }
}
