//! The status endpoints: what monitoring asks, without a token.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use orchestrator_api::{
    ApiError, Detail, ErrorKind, ServiceState, ServiceStatus, Services, StatusQuery, path,
};
use serde_json::{Map, Value, json};

use super::Api;
use super::answer::{Answer, Failure, Fallible};
use super::request::{Params, Parts};

/// `GET /status/v1/services`.
pub(super) async fn services(
    State(api): State<Api>,
    Params(query): Params<StatusQuery>,
) -> Answer<Services> {
    let status = status(&api, &query);
    let code = code(status.state);
    Answer::Good(code, Services::from([(path::SERVICE.to_owned(), status)]))
}

/// `GET /status/v1/services/:service`.
pub(super) async fn service(
    State(api): State<Api>,
    Parts(name): Parts<String>,
    Params(query): Params<StatusQuery>,
) -> Fallible<ServiceStatus> {
    known(&name)?;
    let status = status(&api, &query);
    Ok(Answer::Good(code(status.state), status))
}

/// `GET /status/v1/simple`.
pub(super) async fn simple(State(api): State<Api>) -> Response {
    let state = status(&api, &StatusQuery::default()).state;
    let word = match state {
        ServiceState::Running => "running",
        ServiceState::Starting => "starting",
        ServiceState::Stopping => "stopping",
        ServiceState::Error => "error",
        ServiceState::Unknown => "unknown",
    };
    (code(state), word).into_response()
}

/// `GET /status/v1/simple/:service`.
pub(super) async fn simple_service(
    state: State<Api>,
    Parts(name): Parts<String>,
) -> Result<Response, Failure> {
    known(&name)?;
    Ok(simple(state).await)
}

fn known(name: &str) -> Result<(), ApiError> {
    if name == path::SERVICE {
        return Ok(());
    }
    let msg = format!("there is no service {name:?}");
    Err(ApiError::new(ErrorKind::NotFound, msg).with("service", name))
}

fn code(state: ServiceState) -> StatusCode {
    match state {
        ServiceState::Running => StatusCode::OK,
        ServiceState::Starting
        | ServiceState::Stopping
        | ServiceState::Error
        | ServiceState::Unknown => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The service works as long as the database takes what it is given. Without a broker it still
/// answers and keeps its jobs, so that is an alert and not an error.
fn status(api: &Api, query: &StatusQuery) -> ServiceStatus {
    let now = api.dispatch.status();
    let level = query.level.unwrap_or_default();
    let mut alerts = vec![];
    if let Some(error) = &now.store_error {
        alerts.push(json!({"severity": "critical", "message": error}));
    }
    if !now.counts.mesh {
        let message = "the orchestrator is not connected to any broker";
        alerts.push(json!({"severity": "warning", "message": message}));
    }
    let mut more = Map::new();
    if level != Detail::Critical {
        let broker = now.broker.as_ref().map(ToString::to_string);
        more.insert("broker".to_owned(), broker.map_or(Value::Null, Value::from));
        more.insert("connected_nodes".to_owned(), now.counts.connected.into());
    }
    if level == Detail::Debug {
        let counts = now.counts;
        more.insert("active_jobs".to_owned(), counts.jobs.into());
        more.insert("running_nodes".to_owned(), counts.running.into());
        more.insert("ready_nodes".to_owned(), counts.ready.into());
        more.insert("waiting_nodes".to_owned(), counts.waiting.into());
    }
    ServiceStatus {
        service_version: daemon::VERSION.to_owned(),
        service_status_version: 1,
        detail_level: level,
        state: match now.store_error {
            Some(_) => ServiceState::Error,
            None => ServiceState::Running,
        },
        status: more,
        active_alerts: alerts,
    }
}
