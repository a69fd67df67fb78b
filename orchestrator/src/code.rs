//! The code of environments: which tasks there are, and what they take. Environments that are
//! configured with module directories are read from these each time, by one thread, so that what is
//! on disk is what holds; all others are Puppet Server's.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use task_data::{ListError, ModulePath, Survey, Task, TaskError, TaskName, TaskSummary};

use crate::puppetserver::{PuppetServer, ServerError};
use crate::worker::Worker;

/// Reads tasks of environments. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Code {
    /// The environments that are read from disk.
    names: Arc<[String]>,
    reader: Arc<Worker<BTreeMap<String, Environment>>>,
    server: Option<Arc<PuppetServer>>,
}

/// An environment as its reader has it.
struct Environment {
    path: ModulePath,
    faults: Faults,
}

/// The faults of an environment's tasks that are in the log already: whoever maintains the modules is
/// told once, however often the tasks are listed, and again when a fault comes back.
#[derive(Debug, Default)]
struct Faults(BTreeSet<String>);

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
    /// Puppet Server does not give it.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The reading thread has ended, or hit a bug.
    #[error("the thread that reads tasks gave no answer")]
    NoAnswer,
}

impl Code {
    /// Begins to read from these environments, each a list of module directories. Others are asked of
    /// `server`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(
        environments: BTreeMap<String, Vec<PathBuf>>,
        server: Option<Arc<PuppetServer>>,
    ) -> io::Result<Self> {
        let environments: BTreeMap<_, _> = environments
            .into_iter()
            .map(|(name, directories)| {
                let path = ModulePath::new(directories).in_environment(&name);
                let faults = Faults::default();
                (name, Environment { path, faults })
            })
            .collect();
        Ok(Self {
            names: environments.keys().cloned().collect(),
            reader: Arc::new(Worker::start("code-read", environments)?),
            server,
        })
    }

    /// Whether there is an environment of this name. Agents do not fail on one that is not there, so
    /// this must be known before they are asked for anything.
    ///
    /// # Errors
    /// [`CodeError::UnknownEnvironment`], or why nobody knows.
    pub(crate) async fn check_environment(&self, environment: &str) -> Result<(), CodeError> {
        let known = match self.of_server(environment) {
            Some(server) => server.environments().await?.contains(environment),
            None => self.names.iter().any(|name| name == environment),
        };
        if known {
            Ok(())
        } else {
            Err(CodeError::UnknownEnvironment(environment.to_owned()))
        }
    }

    /// Puppet Server, when the environment is its.
    fn of_server(&self, environment: &str) -> Option<&PuppetServer> {
        let on_disk = self.names.iter().any(|name| name == environment);
        self.server.as_deref().filter(|_| !on_disk)
    }

    /// All tasks of an environment. What is wrong with others goes to the log.
    ///
    /// # Errors
    /// [`CodeError`].
    pub(crate) async fn list(&self, environment: &str) -> Result<Vec<TaskSummary>, CodeError> {
        if let Some(server) = self.of_server(environment) {
            return Ok(Arc::unwrap_or_clone(server.list(environment).await?));
        }
        let name = environment.to_owned();
        self.read(environment, move |environment| {
            let survey = environment.path.survey().map_err(CodeError::List)?;
            for fault in environment.faults.news(&survey) {
                tracing::warn!(environment = name, fault, "fault in a module");
            }
            Ok(survey.tasks)
        })
        .await
    }

    /// Looks at the tasks of all environments, so that what is wrong with them is in the log.
    pub(crate) async fn survey(&self) {
        for environment in self.names.iter() {
            if let Err(error) = self.list(environment).await {
                let error = daemon::error_chain(&error);
                tracing::warn!(environment, error, "tasks not looked at");
            }
        }
    }

    /// One task of an environment, to be run: its files are here, and their digests hold.
    ///
    /// # Errors
    /// [`CodeError`].
    pub(crate) async fn task_to_run(
        &self,
        environment: &str,
        name: TaskName,
    ) -> Result<Task, CodeError> {
        if let Some(server) = self.of_server(environment) {
            let task = server.task(environment, &name).await?;
            let task = server.with_files(environment, task).await?;
            return Ok(Arc::unwrap_or_clone(task));
        }
        self.task(environment, name).await
    }

    /// One task of an environment, with the digests of its files as they are now.
    ///
    /// # Errors
    /// [`CodeError`].
    pub(crate) async fn task(&self, environment: &str, name: TaskName) -> Result<Task, CodeError> {
        if let Some(server) = self.of_server(environment) {
            let task = server.task(environment, &name).await?;
            return Ok(Arc::unwrap_or_clone(task));
        }
        self.read(environment, move |environment| {
            environment
                .path
                .task(&name)
                .map_err(|source| CodeError::Task {
                    name,
                    source: Box::new(source),
                })
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        environment: &str,
        work: impl FnOnce(&mut Environment) -> Result<T, CodeError> + Send + 'static,
    ) -> Result<T, CodeError> {
        let environment = environment.to_owned();
        self.reader
            .run(
                move |environments| match environments.get_mut(&environment) {
                    Some(environment) => work(environment),
                    None => Err(CodeError::UnknownEnvironment(environment)),
                },
            )
            .await
            .map_err(|_| CodeError::NoAnswer)?
    }
}

impl Faults {
    /// The faults that a survey has found and the one before has not.
    fn news(&mut self, survey: &Survey) -> Vec<String> {
        let broken = survey
            .broken
            .iter()
            .map(|(name, error)| format!("task {name}: {}", daemon::error_chain(error)));
        let odd = survey
            .warnings
            .iter()
            .map(|(name, warning)| format!("task {name}: {warning}"));
        let now: BTreeSet<String> = broken.chain(odd).collect();
        let news = now.difference(&self.0).cloned().collect();
        self.0 = now;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_in_a_module_is_told_once_and_again_when_it_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let tasks = dir.path().join("sample/tasks");
        std::fs::create_dir_all(&tasks).unwrap();
        let write = |name: &str, text: &str| std::fs::write(tasks.join(name), text).unwrap();
        write("broken.json", "{}");
        write("odd.sh", "");
        write("odd.json", r#"{"private": "yes"}"#);
        let path = ModulePath::new(vec![dir.path().to_owned()]);
        let mut faults = Faults::default();
        let mut news = || faults.news(&path.survey().unwrap());
        let told = news();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("task sample::broken: "), "{told:?}");
        assert!(told[1].contains("task sample::odd: 'private'"), "{told:?}");
        assert!(news().is_empty());
        write("broken.sh", "");
        assert!(news().is_empty());
        std::fs::remove_file(tasks.join("broken.sh")).unwrap();
        assert_eq!(news(), told[..1]);
    }
}
