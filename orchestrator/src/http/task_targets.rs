//! Task targets: `command/task_target` and `scopes/task_targets`.

use axum::Extension;
use axum::extract::State;
use orchestrator_api::{
    ApiError, ErrorKind, TaskTarget, TaskTargetCreated, TaskTargetReference, TaskTargetRequest,
    TaskTargets, path,
};

use super::Api;
use super::answer::{Answer, Fallible};
use super::request::{Base, Body, Parts};
use crate::auth::Caller;
use crate::clock::wall;
use crate::grant::Action;
use crate::store::MAX_TASK_TARGETS;
use crate::task_target::{self, TargetId};

/// `POST command/task_target`.
pub(super) async fn create(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    base: Base,
    Body(request): Body<TaskTargetRequest>,
) -> Fallible<TaskTargetCreated> {
    let target = task_target::TaskTarget::try_from(request)?;
    let login = caller.login;
    let added = api.store.add_task_target(target, login.clone(), wall());
    let Some(id) = added.await? else {
        let msg = format!(
            "there are {MAX_TASK_TARGETS} task targets: remove one by DELETE scopes/task_targets/:id"
        );
        return Err(ApiError::new(ErrorKind::ValidationError, msg).into());
    };
    tracing::info!(task_target = %id, login, "task target made");
    let name = id.to_string();
    Ok(Answer::ok(TaskTargetCreated {
        task_target: TaskTargetReference {
            id: base.url(&path::task_target(&name)),
            name,
        },
    }))
}

/// `GET scopes/task_targets`.
pub(super) async fn list(State(api): State<Api>, base: Base) -> Fallible<TaskTargets> {
    let targets = api.store.task_targets().await?;
    let items = targets
        .into_iter()
        .map(|(id, target)| item(&base, id, target));
    Ok(Answer::ok(TaskTargets {
        items: items.collect(),
    }))
}

/// `GET scopes/task_targets/:id`.
pub(super) async fn one(
    State(api): State<Api>,
    base: Base,
    Parts(name): Parts<String>,
) -> Fallible<TaskTarget> {
    let id = target_id(&name)?;
    let target = api.store.task_target(id).await?;
    let target = target.ok_or_else(|| unknown(&name))?;
    Ok(Answer::ok(item(&base, id, target)))
}

/// `DELETE scopes/task_targets/:id`: permissions that name it permit nothing from then on.
pub(super) async fn remove(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    base: Base,
    Parts(name): Parts<String>,
) -> Fallible<TaskTarget> {
    api.access.require(&caller, Action::EditTargets).await?;
    let id = target_id(&name)?;
    let target = api.store.task_target(id).await?;
    match target {
        Some(target) if api.store.remove_task_target(id).await? => {
            tracing::info!(task_target = %id, login = caller.login, "task target removed");
            Ok(Answer::ok(item(&base, id, target)))
        }
        _ => Err(unknown(&name).into()),
    }
}

fn target_id(name: &str) -> Result<TargetId, ApiError> {
    name.parse().map_err(|()| {
        let msg = format!("Invalid task target id {name:?}: it is a whole number");
        ApiError::new(ErrorKind::ValidationError, msg).with("task_target", name)
    })
}

fn unknown(name: &str) -> ApiError {
    let msg = format!("Unknown task target {name}");
    ApiError::new(ErrorKind::UnknownTaskTarget, msg).with("task_target", name)
}

fn item(base: &Base, id: TargetId, target: task_target::TaskTarget) -> TaskTarget {
    let name = id.to_string();
    TaskTarget {
        id: base.url(&path::task_target(&name)),
        name,
        display_name: target.display_name,
        tasks: target.tasks,
        all_tasks: target.all_tasks,
        nodes: target.nodes.iter().map(ToString::to_string).collect(),
        node_groups: target.node_groups,
        pql_query: target.query,
    }
}
