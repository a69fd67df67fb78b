//! The code of environments: which tasks there are, and what they take. Read from the module
//! directories each time, by one thread, so that what is on disk is what holds.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use task_data::{ListError, ModulePath, Task, TaskError, TaskName, TaskSummary};

use crate::worker::Worker;

/// Reads tasks of environments. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Code {
    reader: Arc<Worker<BTreeMap<String, ModulePath>>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodeError {
    /// No environment of that name is configured.
    #[error("there is no environment {0:?}")]
    UnknownEnvironment(String),
    /// The tasks cannot be listed.
    #[error("the tasks cannot be listed")]
    List(#[source] ListError),
    /// The task cannot be had.
    #[error("the task {name} cannot be read")]
    Task {
        /// Which.
        name: TaskName,
        /// Why.
        #[source]
        source: Box<TaskError>,
    },
    /// The reading thread has ended, or hit a bug.
    #[error("the thread that reads tasks gave no answer")]
    NoAnswer,
}

impl Code {
    /// Begins to read from these environments, each a list of module directories.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(environments: BTreeMap<String, Vec<PathBuf>>) -> io::Result<Self> {
        let environments: BTreeMap<_, _> = environments
            .into_iter()
            .map(|(name, directories)| {
                let path = ModulePath::new(directories).in_environment(&name);
                (name, path)
            })
            .collect();
        Ok(Self {
            reader: Arc::new(Worker::start("code-read", environments)?),
        })
    }

    /// All tasks of an environment.
    ///
    /// # Errors
    /// [`CodeError`].
    pub(crate) async fn list(&self, environment: &str) -> Result<Vec<TaskSummary>, CodeError> {
        self.read(environment, |path| path.list().map_err(CodeError::List))
            .await
    }

    /// One task of an environment, with the digests of its files as they are now.
    ///
    /// # Errors
    /// [`CodeError`].
    pub(crate) async fn task(&self, environment: &str, name: TaskName) -> Result<Task, CodeError> {
        self.read(environment, move |path| {
            path.task(&name).map_err(|source| CodeError::Task {
                name,
                source: Box::new(source),
            })
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        environment: &str,
        work: impl FnOnce(&ModulePath) -> Result<T, CodeError> + Send + 'static,
    ) -> Result<T, CodeError> {
        let environment = environment.to_owned();
        self.reader
            .run(move |environments| match environments.get(&environment) {
                Some(path) => work(path),
                None => Err(CodeError::UnknownEnvironment(environment)),
            })
            .await
            .map_err(|_| CodeError::NoAnswer)?
    }
}
