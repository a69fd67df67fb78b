//! Puppet Server: which environments and tasks there are, what a task takes, and its files.
//!
//! Puppet Server says neither when its code changes nor whether an answer still holds, so an answer
//! is used again for a few seconds only: enough that a burst of jobs costs one request. Files are
//! kept for as long as there is room, since their digest is their name.

mod answers;
mod files;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::{Method, Url};
use task_data::{Task, TaskName, TaskSummary};

use crate::flight::Flight;
use crate::library::Library;
use crate::service::{Service, ServiceError, Source};
use files::Files;

/// How long an answer is used again.
const FRESH: Duration = Duration::from_secs(5);

/// How many answers of a kind are kept.
const KEPT: usize = 1000;

/// The longest list or description in bytes: some ten thousand tasks.
const MAX_ANSWER: usize = 32 * 1024 * 1024;

/// Asks Puppet Server.
#[derive(Debug)]
pub(crate) struct PuppetServer {
    service: Service,
    files: Files,
    environments: Flight<(), Arc<BTreeSet<String>>, ServerError>,
    lists: Flight<String, Arc<Vec<TaskSummary>>, ServerError>,
    tasks: Flight<(String, TaskName), Arc<Task>, ServerError>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ServerError {
    /// There is no environment of this name.
    #[error("Unknown environment {0}")]
    UnknownEnvironment(String),
    /// The environment has no such task.
    #[error("Unknown task {0}")]
    UnknownTask(String),
    /// The task's files are not in order. Kind, text and details are Puppet Server's.
    #[error("{msg}")]
    Broken {
        kind: String,
        msg: String,
        details: serde_json::Value,
    },
    /// A file is not what its description says: the code is being changed.
    #[error("the file {0} has changed while it was read: try again")]
    Changed(String),
    /// A file cannot be kept.
    #[error("{path} cannot be written: {problem}")]
    Keep { path: String, problem: String },
    /// Puppet Server gives no answer, or none that can be used.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

impl PuppetServer {
    /// A Puppet Server at these addresses, the preferred one first. Files are kept in `directory`,
    /// at most so many bytes of them beside those that `library` needs.
    pub(crate) fn new(
        addresses: Vec<Url>,
        identity: Source,
        directory: PathBuf,
        room: u64,
        library: Library,
    ) -> Self {
        Self {
            service: Service::new("Puppet Server", addresses, identity),
            files: Files::new(directory, room, library),
            environments: Flight::new(FRESH, 1),
            lists: Flight::new(FRESH, KEPT),
            tasks: Flight::new(FRESH, KEPT),
        }
    }

    /// How many seconds the clock of Puppet Server is ahead of ours, when it has said so.
    pub(crate) fn ahead(&self) -> Option<i64> {
        self.service.ahead()
    }

    /// The names of all environments.
    ///
    /// # Errors
    /// [`ServerError`].
    pub(crate) async fn environments(&self) -> Result<Arc<BTreeSet<String>>, ServerError> {
        let load = async {
            let body = self.get("/puppet/v3/environments").await?;
            Ok(Arc::new(answers::environments(body).await?))
        };
        self.environments.get(&(), load).await
    }

    /// All tasks of an environment. Broken ones are not among them: Puppet Server leaves them out.
    ///
    /// # Errors
    /// [`ServerError`].
    pub(crate) async fn list(
        &self,
        environment: &str,
    ) -> Result<Arc<Vec<TaskSummary>>, ServerError> {
        let load = async {
            let path = format!("/puppet/v3/tasks?environment={}", known(environment)?);
            let answer = self.get(&path).await;
            let answer = answer.map_err(|error| answers::fault(error, environment, ""))?;
            Ok(Arc::new(answers::tasks(answer).await?))
        };
        self.lists.get(&environment.to_owned(), load).await
    }

    /// One task of an environment.
    ///
    /// # Errors
    /// [`ServerError`].
    pub(crate) async fn task(
        &self,
        environment: &str,
        name: &TaskName,
    ) -> Result<Arc<Task>, ServerError> {
        let load = async {
            let path = format!(
                "/puppet/v3/tasks/{}/{}?environment={}",
                name.module(),
                name.task(),
                known(environment)?
            );
            let answer = self.get(&path).await;
            let answer =
                answer.map_err(|error| answers::fault(error, environment, &name.to_string()))?;
            let task = answers::task(answer, name, |digest| self.files.path(digest)).await?;
            Ok(Arc::new(task))
        };
        self.tasks
            .get(&(environment.to_owned(), name.clone()), load)
            .await
    }

    /// Makes sure that all files of a task are here, each with the content of its digest. Gives the
    /// task as it then is: when its code has changed meanwhile, the new one.
    ///
    /// # Errors
    /// [`ServerError`].
    pub(crate) async fn with_files(
        &self,
        environment: &str,
        task: Arc<Task>,
    ) -> Result<Arc<Task>, ServerError> {
        match self.fetch(&task).await {
            Err(ServerError::Changed(file)) => {
                tracing::info!(task = %task.name, environment, file, "task has changed meanwhile");
                self.tasks
                    .forget(&(environment.to_owned(), task.name.clone()));
                let task = self.task(environment, &task.name).await?;
                self.fetch(&task).await?;
                Ok(task)
            }
            outcome => outcome.map(|()| task),
        }
    }

    async fn fetch(&self, task: &Task) -> Result<(), ServerError> {
        for file in &task.files {
            self.files.fetch(&self.service, file).await?;
        }
        self.files.make_room(task).await;
        Ok(())
    }

    async fn get(&self, path: &str) -> Result<crate::service::Answer, ServiceError> {
        let json = HeaderValue::from_static("application/json");
        self.service
            .ask(&Method::GET, path, |request| {
                request.header(ACCEPT, json.clone())
            })
            .await
    }
}

/// The name of an environment that may exist, safe in a URL. Puppet's rule is `\A\w+\z`.
fn known(environment: &str) -> Result<&str, ServerError> {
    let fits = !environment.is_empty()
        && environment
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if fits {
        Ok(environment)
    } else {
        Err(ServerError::UnknownEnvironment(environment.to_owned()))
    }
}
