//! Errors as the API answers them: a kind that programs decide by, a sentence for people, details.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The kinds of errors, each with its text on the wire and its HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is not what the endpoint takes.
    ValidationError,
    /// The environment has no nodes or no code.
    EmptyEnvironment,
    /// The scope names no node.
    EmptyTarget,
    /// Applications depend on each other in a circle.
    DependencyCycle,
    /// PuppetDB is not configured, or did not answer.
    PuppetdbError,
    /// PuppetDB refused the query.
    QueryError,
    /// A schedule lies in the past.
    InvalidTime,
    /// The scheduled job is disabled.
    DisabledScheduledJob,
    /// The caller may not do this.
    NotPermitted,
    /// There is no environment of that name.
    UnknownEnvironment,
    /// There is no job of that number.
    UnknownJob,
    /// There is no task of that name.
    UnknownTask,
    /// There is no plan of that name.
    UnknownPlan,
    /// There is no node group of that id or name.
    UnknownNodeGroup,
    /// There is no task target of that number.
    UnknownTaskTarget,
    /// The event belongs to another job.
    MismatchedJobEventId,
    /// The plan has ended already.
    PlanAlreadyFinished,
    /// Something failed in the orchestrator.
    UnknownError,
    /// A task could not be run on a node. Stands in results of nodes only.
    ExecutionFailure,
    /// There is no endpoint of that path.
    NotFound,
    /// The endpoint does not know that method.
    MethodNotAllowed,
    /// The body is larger than the server takes.
    TooLarge,
    /// The server cannot do it just now, for example because its disk is full; try again later.
    Unavailable,
    /// No token, or one that is not known or has expired.
    UserUnauthenticated,
    /// The token or its user has been revoked.
    UserRevoked,
    /// The token's user lacks the permission.
    PermissionDenied,
    /// Too many wrong passwords: nothing is tried for a while.
    LockedOut,
}

impl ErrorKind {
    const ALL: [(Self, &'static str, u16); 27] = [
        (
            Self::ValidationError,
            "puppetlabs.orchestrator/validation-error",
            400,
        ),
        (
            Self::EmptyEnvironment,
            "puppetlabs.orchestrator/empty-environment",
            400,
        ),
        (
            Self::EmptyTarget,
            "puppetlabs.orchestrator/empty-target",
            400,
        ),
        (
            Self::DependencyCycle,
            "puppetlabs.orchestrator/dependency-cycle",
            400,
        ),
        (
            Self::PuppetdbError,
            "puppetlabs.orchestrator/puppetdb-error",
            400,
        ),
        (Self::QueryError, "puppetlabs.orchestrator/query-error", 400),
        (
            Self::InvalidTime,
            "puppetlabs.orchestrator/invalid-time",
            400,
        ),
        (
            Self::DisabledScheduledJob,
            "puppetlabs.orchestrator/disabled-scheduled-job",
            400,
        ),
        (
            Self::NotPermitted,
            "puppetlabs.orchestrator/not-permitted",
            403,
        ),
        (
            Self::UnknownEnvironment,
            "puppetlabs.orchestrator/unknown-environment",
            404,
        ),
        (Self::UnknownJob, "puppetlabs.orchestrator/unknown-job", 404),
        (
            Self::UnknownTask,
            "puppetlabs.orchestrator/unknown-task",
            404,
        ),
        (
            Self::UnknownPlan,
            "puppetlabs.orchestrator/unknown-plan",
            404,
        ),
        (
            Self::UnknownNodeGroup,
            "puppetlabs.orchestrator/unknown-node-group",
            404,
        ),
        (
            Self::UnknownTaskTarget,
            "puppetlabs.orchestrator/unknown-task-target",
            404,
        ),
        (
            Self::MismatchedJobEventId,
            "puppetlabs.orchestrator/mismatched-job-event-id",
            404,
        ),
        (
            Self::PlanAlreadyFinished,
            "puppetlabs.orchestrator/plan-already-finished",
            409,
        ),
        (
            Self::UnknownError,
            "puppetlabs.orchestrator/unknown-error",
            500,
        ),
        (
            Self::ExecutionFailure,
            "puppetlabs.orchestrator/execution-failure",
            500,
        ),
        (Self::NotFound, "puppetlabs.orchestrator/not-found", 404),
        (
            Self::MethodNotAllowed,
            "puppetlabs.orchestrator/method-not-allowed",
            405,
        ),
        (Self::TooLarge, "puppetlabs.orchestrator/too-large", 413),
        (
            Self::Unavailable,
            "puppetlabs.orchestrator/unavailable",
            503,
        ),
        (
            Self::UserUnauthenticated,
            "puppetlabs.rbac/user-unauthenticated",
            401,
        ),
        (Self::UserRevoked, "puppetlabs.rbac/user-revoked", 401),
        (
            Self::PermissionDenied,
            "puppetlabs.rbac/permission-denied",
            403,
        ),
        (Self::LockedOut, "puppetlabs.rbac/user-locked-out", 429),
    ];

    /// The kind as it stands in answers.
    #[must_use]
    pub fn text(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(kind, ..)| *kind == self)
            .map_or("", |(_, text, _)| text)
    }

    /// The HTTP status that goes with it.
    #[must_use]
    pub fn http_status(self) -> u16 {
        Self::ALL
            .iter()
            .find(|(kind, ..)| *kind == self)
            .map_or(500, |(.., status)| *status)
    }

    /// The kind behind a text; nothing for one that this version does not know.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known, _)| *known == text)
            .map(|(kind, ..)| *kind)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApiError {
    /// What a program decides by; [`ApiError::known`] gives the type.
    pub kind: String,
    /// What a person reads.
    pub msg: String,
    /// The offending values by name.
    #[serde(default)]
    pub details: Value,
}

impl ApiError {
    /// An error without details.
    #[must_use]
    pub fn new(kind: ErrorKind, msg: impl Into<String>) -> Self {
        Self {
            kind: kind.text().to_owned(),
            msg: msg.into(),
            details: Value::Object(Map::new()),
        }
    }

    /// Adds a detail: the offending value under its own name.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        if let Value::Object(details) = &mut self.details {
            details.insert(key.to_owned(), value.into());
        }
        self
    }

    /// The kind, when this version knows it.
    #[must_use]
    pub fn known(&self) -> Option<ErrorKind> {
        ErrorKind::from_text(&self.kind)
    }

    /// The HTTP status that goes with the kind; 500 for an unknown one.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        self.known().map_or(500, ErrorKind::http_status)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.msg, self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_text_and_an_error_status() {
        for (kind, text, status) in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_text(text), Some(kind));
            assert!((400..600).contains(&status));
        }
    }

    #[test]
    fn details_repeat_the_offending_value() {
        let error = ApiError::new(ErrorKind::UnknownEnvironment, "Unknown environment dev")
            .with("environment", "dev");
        assert_eq!(
            serde_json::to_value(&error).unwrap(),
            serde_json::json!({"kind": "puppetlabs.orchestrator/unknown-environment",
                "msg": "Unknown environment dev", "details": {"environment": "dev"}})
        );
        assert_eq!(error.http_status(), 404);
    }
}
