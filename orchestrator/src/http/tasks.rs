//! `tasks`: what can be run, and what it takes.

use axum::Extension;
use axum::extract::State;
use orchestrator_api::{
    ApiError, DEFAULT_ENVIRONMENT, Environment, EnvironmentQuery, ErrorKind, FileUri, TaskDetail,
    TaskFile, TaskItem, TaskList, path,
};
use task_data::TaskName;

use super::Api;
use super::answer::{Answer, Fallible};
use super::request::{Base, Params, Parts};
use crate::auth::Caller;

/// `GET tasks`.
pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    base: Base,
    Params(query): Params<EnvironmentQuery>,
) -> Fallible<TaskList> {
    let environment = environment(query);
    let tasks = api.code.list(&environment.name).await?;
    let names: Vec<String> = tasks.iter().map(|task| task.name.to_string()).collect();
    let asked: Vec<&str> = names.iter().map(String::as_str).collect();
    let permitted = api.access.may_run(&caller, &asked).await?;
    let items = tasks
        .into_iter()
        .zip(permitted)
        .map(|(task, permitted)| {
            let name = task.name.to_string();
            TaskItem {
                id: url(&base, &name, &environment),
                name,
                permitted,
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
    Extension(caller): Extension<Caller>,
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
    let permitted = api.access.may_run(&caller, &[&name]).await?;
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
        permitted: permitted.first().copied().unwrap_or(false),
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
