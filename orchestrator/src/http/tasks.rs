//! `tasks`: what can be run, and what it takes.

use axum::extract::State;
use orchestrator_api::{
    ApiError, DEFAULT_ENVIRONMENT, Environment, EnvironmentQuery, ErrorKind, FileUri, TaskDetail,
    TaskFile, TaskItem, TaskList, path,
};
use task_data::TaskName;

use super::Api;
use super::answer::{Answer, Fallible};
use super::request::{Base, Params, Parts};

/// `GET tasks`.
pub(super) async fn list(
    State(api): State<Api>,
    base: Base,
    Params(query): Params<EnvironmentQuery>,
) -> Fallible<TaskList> {
    let environment = environment(query);
    let tasks = api.code.list(&environment.name).await?;
    let items = tasks
        .into_iter()
        .map(|task| {
            let name = task.name.to_string();
            TaskItem {
                id: url(&base, &name, &environment),
                name,
                permitted: true,
                description: task.description,
                private: task.private,
            }
        })
        .collect();
    Ok(Answer::ok(TaskList { environment, items }))
}

/// `GET tasks/:module/:task`.
pub(super) async fn one(
    State(api): State<Api>,
    base: Base,
    Parts((module, task)): Parts<(String, String)>,
    Params(query): Params<EnvironmentQuery>,
) -> Fallible<TaskDetail> {
    let name = TaskName::new(&module, &task).map_err(|error| {
        let msg = format!("Invalid task name '{module}::{task}': {error}");
        ApiError::new(ErrorKind::ValidationError, msg)
            .with("module", module.as_str())
            .with("task", task.as_str())
    })?;
    let environment = environment(query);
    let task = api.code.task(&environment.name, name).await?;
    let name = task.name.to_string();
    let files = task
        .files
        .into_iter()
        .map(|file| TaskFile {
            filename: file.filename,
            uri: FileUri {
                path: file.uri.path,
                params: file.uri.params,
            },
            sha256: file.sha256,
            size_bytes: file.size_bytes,
        })
        .collect();
    Ok(Answer::ok(TaskDetail {
        id: url(&base, &name, &environment),
        name,
        environment,
        metadata: task.metadata.raw().clone(),
        files,
        permitted: true,
    }))
}

fn environment(query: EnvironmentQuery) -> Environment {
    Environment {
        name: query
            .environment
            .unwrap_or_else(|| DEFAULT_ENVIRONMENT.to_owned()),
        code_id: None,
    }
}

fn url(base: &Base, name: &str, environment: &Environment) -> String {
    let path = path::task(name);
    base.url(&format!("{path}?environment={}", environment.name))
}
