//! What Puppet Server answers, read into types. Its errors are a text for what it does not find and
//! JSON for what it finds broken.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use pcp::frame::Digest;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use task_data::{FileUri, Metadata, Task, TaskFile, TaskName, TaskSummary};

use super::{MAX_ANSWER, ServerError};
use crate::service::{Answer, ServiceError};

/// `GET environments`.
pub(super) async fn environments(answer: Answer) -> Result<BTreeSet<String>, ServerError> {
    #[derive(Deserialize)]
    struct Environments {
        environments: BTreeMap<String, IgnoredAny>,
    }
    let answer: Environments = answer.json(MAX_ANSWER).await?;
    Ok(answer.environments.into_keys().collect())
}

/// `GET tasks`, by name.
pub(super) async fn tasks(answer: Answer) -> Result<Vec<TaskSummary>, ServerError> {
    #[derive(Deserialize)]
    struct Item {
        name: String,
        #[serde(default)]
        private: Option<bool>,
        #[serde(default)]
        description: Option<String>,
    }
    let items: Vec<Item> = answer.json(MAX_ANSWER).await?;
    let mut tasks: Vec<TaskSummary> = items
        .into_iter()
        .filter_map(|item| {
            let name = item.name.parse().inspect_err(|_| {
                tracing::warn!(
                    name = item.name,
                    "Puppet Server lists a task with such a name"
                );
            });
            Some(TaskSummary {
                name: name.ok()?,
                description: item.description.unwrap_or_default(),
                private: item.private.unwrap_or_default(),
            })
        })
        .collect();
    tasks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tasks)
}

/// `GET tasks/:module/:task`. `place` says where the file of a digest lies, once it has been fetched.
pub(super) async fn task(
    answer: Answer,
    name: &TaskName,
    place: impl Fn(&Digest) -> PathBuf,
) -> Result<Task, ServerError> {
    #[derive(Deserialize)]
    struct Described {
        metadata: Value,
        files: Vec<FileItem>,
    }
    #[derive(Deserialize)]
    struct FileItem {
        filename: String,
        sha256: String,
        size_bytes: u64,
        uri: UriItem,
    }
    #[derive(Deserialize)]
    struct UriItem {
        path: String,
        #[serde(default)]
        params: Map<String, Value>,
    }
    let unusable = |reason| answer_fault(&answer, reason);
    let (no_digest, no_metadata) = (
        unusable("a file of the task has a digest that is none"),
        unusable("the task's metadata are not as Puppet Server lets them be"),
    );
    let described: Described = answer.json(MAX_ANSWER).await?;
    let files = described
        .files
        .into_iter()
        .map(|file| {
            let digest: Digest = file.sha256.parse().map_err(|_| no_digest.clone())?;
            Ok(TaskFile {
                filename: file.filename,
                path: place(&digest),
                sha256: digest.to_string(),
                size_bytes: file.size_bytes,
                // Opaque to us and to agents: whatever the server says is where the file is.
                uri: FileUri {
                    path: file.uri.path,
                    params: file.uri.params,
                },
            })
        })
        .collect::<Result<Vec<_>, ServerError>>()?;
    let metadata = Metadata::read(name, described.metadata).map_err(|error| {
        let error = daemon::error_chain(&error);
        tracing::warn!(task = %name, error, "metadata of a task");
        no_metadata
    })?;
    for warning in &metadata.warnings {
        tracing::debug!(task = %name, warning, "metadata of a task are odd");
    }
    Ok(Task {
        name: name.clone(),
        metadata,
        files,
    })
}

fn answer_fault(answer: &Answer, reason: &str) -> ServerError {
    answer.unusable(reason).into()
}

/// What an answer that is an error means, when `task` of `environment` was asked for.
pub(super) fn fault(error: ServiceError, environment: &str, task: &str) -> ServerError {
    let ServiceError::Status {
        status,
        reason,
        fault,
        ..
    } = &error
    else {
        return error.into();
    };
    if *status >= 500
        && let Some(fault) = fault
        && fault.kind.starts_with("puppet.tasks/")
    {
        // Puppet Server knows this kind, and some versions use it where others say 404.
        if fault.kind == "puppet.tasks/task-not-found" {
            return ServerError::UnknownTask(task.to_owned());
        }
        return ServerError::Broken {
            kind: fault.kind.clone(),
            // What does not parse is shown by Puppet Server to its end.
            msg: reason.clone(),
            details: fault.details.clone(),
        };
    }
    let is = |text: &str| reason.starts_with(text);
    match status {
        404 if is("Could not find environment ") => {
            ServerError::UnknownEnvironment(environment.to_owned())
        }
        404 if is("Could not find module ") || is("Could not find task ") => {
            ServerError::UnknownTask(task.to_owned())
        }
        400 if is("The environment must be purely alphanumeric") => {
            ServerError::UnknownEnvironment(environment.to_owned())
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::service::Fault;

    fn status(status: u16, reason: &str) -> ServiceError {
        ServiceError::Status {
            service: "Puppet Server",
            address: "https://puppet:8140".to_owned(),
            status,
            reason: reason.to_owned(),
            fault: None,
        }
    }

    #[test]
    fn errors_mean_what_puppet_server_says() {
        let of = |code, reason: &str| fault(status(code, reason), "env", "m::t");
        let unknown_task = ServerError::UnknownTask("m::t".to_owned());
        let unknown_environment = ServerError::UnknownEnvironment("env".to_owned());
        assert_eq!(
            of(404, "Could not find environment 'env'"),
            unknown_environment
        );
        assert_eq!(
            of(
                400,
                "The environment must be purely alphanumeric, not 'env'"
            ),
            unknown_environment
        );
        assert_eq!(of(404, "Could not find module 'm'"), unknown_task);
        assert_eq!(of(404, "Could not find task 't'"), unknown_task);
        let explained = |kind: &str| ServiceError::Status {
            service: "Puppet Server",
            address: "https://puppet:8140".to_owned(),
            status: 500,
            reason: "absent".to_owned(),
            fault: Some(Box::new(Fault {
                kind: kind.to_owned(),
                msg: "absent, and on for pages".to_owned(),
                details: json!({"missing": ["a.sh"]}),
            })),
        };
        let kind = "puppet.tasks/missing-implementation";
        assert_eq!(
            fault(explained(kind), "env", "m::t"),
            ServerError::Broken {
                kind: kind.to_owned(),
                msg: "absent".to_owned(),
                details: json!({"missing": ["a.sh"]}),
            }
        );
        let gone = explained("puppet.tasks/task-not-found");
        assert_eq!(fault(gone, "env", "m::t"), unknown_task);
        let other = explained("other");
        assert_eq!(
            fault(other.clone(), "env", "m::t"),
            ServerError::Service(other)
        );
        for (code, reason) in [
            (404, "<html><title>Error 404 Not Found</title>"),
            (400, "An environment parameter must be specified"),
            (503, "starting"),
        ] {
            assert_eq!(of(code, reason), ServerError::Service(status(code, reason)));
        }
    }
}
