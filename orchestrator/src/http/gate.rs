//! What a caller must be permitted before an endpoint is asked at all. What is not named here needs
//! permission to see everything, so that a new endpoint is closed until somebody decides. Endpoints
//! that act on nodes look besides at which nodes are permitted.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use orchestrator_api::path;

use super::Api;
use super::answer::Failure;
use super::request::job_id;
use crate::auth::Caller;
use crate::grant::Action;

/// What stands before an endpoint.
#[derive(Debug, PartialEq, Eq)]
enum Need<'a> {
    /// A valid token is enough, or the endpoint decides by itself.
    Nothing,
    /// This permission, on some node at least.
    Permission(Action),
    /// To be the owner of this job, or to see those of all.
    Job(&'a str),
}

/// Lets pass who may.
pub(super) async fn permit(State(api): State<Api>, request: Request, next: Next) -> Response {
    let Some(caller) = request.extensions().get::<Caller>() else {
        // The layer before this one has put it there.
        return super::not_found(request.uri().clone())
            .await
            .into_response();
    };
    match check(&api, caller, need(request.uri().path())).await {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

async fn check(api: &Api, caller: &Caller, need: Need<'_>) -> Result<(), Failure> {
    match need {
        Need::Nothing => Ok(()),
        Need::Permission(action) => Ok(api.access.require(caller, action).await?),
        Need::Job(name) => {
            if let Ok(id) = job_id(name)
                && let Some((job, _)) = api.store.job(id).await?
                && job.owner == caller.login
            {
                return Ok(());
            }
            Ok(api.access.require(caller, Action::View).await?)
        }
    }
}

fn need(path: &str) -> Need<'_> {
    let path = path.strip_prefix(path::BASE).unwrap_or(path);
    let mut parts = path.trim_matches('/').split('/');
    match (parts.next().unwrap_or_default(), parts.next()) {
        // The tasks say of each whether it is permitted.
        ("" | "tasks" | "openapi.json", _) => Need::Nothing,
        ("command", Some("deploy")) => Need::Permission(Action::RunPuppet),
        // Which task it is, on which nodes, and whose job decides.
        ("command", Some("task" | "plan_task" | "stop" | "rerun")) => Need::Nothing,
        ("command", Some("plan_start" | "plan_finish" | "stop_plan")) => {
            Need::Permission(Action::RunPlan)
        }
        ("command", Some("task_target")) => Need::Permission(Action::EditTargets),
        ("jobs", Some(name)) => Need::Job(name),
        _ => Need::Permission(Action::View),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_endpoint_has_its_need_and_an_unknown_one_the_highest() {
        let at = |path: &'static str| need(path);
        assert_eq!(at("/orchestrator/v1"), Need::Nothing);
        assert_eq!(at("/orchestrator/v1/tasks/a/init"), Need::Nothing);
        assert_eq!(
            at("/orchestrator/v1/command/deploy"),
            Need::Permission(Action::RunPuppet)
        );
        assert_eq!(at(path::COMMAND_STOP), Need::Nothing);
        assert_eq!(at("/orchestrator/v1/jobs/7/events"), Need::Job("7"));
        for path in [
            "/orchestrator/v1/jobs",
            path::INVENTORY,
            "/orchestrator/v1/command/new",
            "/x",
        ] {
            assert_eq!(at(path), Need::Permission(Action::View), "{path}");
        }
    }
}
