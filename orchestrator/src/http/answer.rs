//! Answers: a value with its status, or an error with the status of its kind. This is the one place
//! where errors of the inner parts become answers, and where those that are our own are logged.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use orchestrator_api::{ApiError, ErrorKind};
use serde::Serialize;

use crate::auth::Denied;
use crate::code::CodeError;
use crate::dispatch::NoAnswer;
use crate::puppetserver::ServerError;
use crate::store::StoreError;

/// What an endpoint gives back.
pub(super) enum Answer<T> {
    /// It worked.
    Good(StatusCode, T),
    /// It did not.
    Error(Box<ApiError>),
}

/// For `?` in endpoints.
pub(super) type Fallible<T> = Result<Answer<T>, Failure>;

/// An error on its way to the caller.
#[derive(Debug)]
pub(super) struct Failure(Box<ApiError>);

impl<T> Answer<T> {
    /// 200.
    pub(super) fn ok(value: T) -> Self {
        Self::Good(StatusCode::OK, value)
    }

    /// 202: taken on, and on the disk.
    pub(super) fn accepted(value: T) -> Self {
        Self::Good(StatusCode::ACCEPTED, value)
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        match self {
            Self::Good(status, value) => (status, Json(value)).into_response(),
            Self::Error(error) => {
                let status = StatusCode::from_u16(error.http_status())
                    .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                (status, Json(*error)).into_response()
            }
        }
    }
}

impl<T> From<ApiError> for Answer<T> {
    fn from(error: ApiError) -> Self {
        Self::Error(Box::new(error))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        Answer::<()>::Error(self.0).into_response()
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(Box::new(error))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let text = error.with_hint();
        tracing::error!(error = text, "request failed");
        ApiError::new(ErrorKind::Unavailable, text).into()
    }
}

impl From<Denied> for Failure {
    fn from(error: Denied) -> Self {
        match error {
            Denied::Refused(error) => error.into(),
            Denied::Store(error) => error.into(),
            // Whoever found it has logged it.
            Denied::Unavailable(msg) => ApiError::new(ErrorKind::Unavailable, msg).into(),
        }
    }
}

impl From<NoAnswer> for Failure {
    fn from(error: NoAnswer) -> Self {
        tracing::warn!(%error, "request failed");
        let msg = match error {
            NoAnswer::Ended => "the orchestrator is being stopped",
            NoAnswer::Late => {
                "the database does not take changes just now; the request is carried out when it does"
            }
        };
        ApiError::new(ErrorKind::Unavailable, msg).into()
    }
}

impl From<CodeError> for Failure {
    fn from(error: CodeError) -> Self {
        match error {
            CodeError::UnknownEnvironment(name)
            | CodeError::Server(ServerError::UnknownEnvironment(name)) => {
                let msg = format!("Unknown environment {name}");
                ApiError::new(ErrorKind::UnknownEnvironment, msg)
                    .with("environment", name)
                    .into()
            }
            CodeError::Task { name, source } if source.is_not_found() => {
                let name = name.to_string();
                ApiError::new(ErrorKind::UnknownTask, format!("Unknown task {name}"))
                    .with("task", name)
                    .into()
            }
            // A fault of the module's files: its author must act, not the caller or the operator.
            CodeError::Task { name, source } => {
                let text = daemon::error_chain(&source);
                tracing::warn!(task = %name, error = text, "task is unusable");
                ApiError::new(ErrorKind::UnknownError, text)
                    .with("task", name.to_string())
                    .with("kind", source.kind())
                    .with("details", source.details())
                    .into()
            }
            CodeError::Server(ServerError::UnknownTask(name)) => {
                ApiError::new(ErrorKind::UnknownTask, format!("Unknown task {name}"))
                    .with("task", name)
                    .into()
            }
            CodeError::Server(ServerError::Broken { kind, msg, details }) => {
                tracing::warn!(kind, error = msg, "task is unusable");
                ApiError::new(ErrorKind::UnknownError, msg)
                    .with("kind", kind)
                    .with("details", details)
                    .into()
            }
            CodeError::Server(error @ (ServerError::Service(_) | ServerError::Changed(_))) => {
                let msg = match error {
                    ServerError::Service(error) => error.with_remedy(),
                    error => error.to_string(),
                };
                tracing::warn!(error = msg, "request failed");
                ApiError::new(ErrorKind::Unavailable, msg).into()
            }
            CodeError::List(_) | CodeError::NoAnswer | CodeError::Server(_) => {
                let text = daemon::error_chain(&error);
                tracing::error!(error = text, "request failed");
                ApiError::new(ErrorKind::UnknownError, text).into()
            }
        }
    }
}
