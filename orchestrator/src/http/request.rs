//! What every request carries: who calls, by which name, and a body or query that is read into a
//! type or refused in JSON.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts as Head;
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use orchestrator_api::{ApiError, ErrorKind, TOKEN_HEADER};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Api;
use super::answer::Failure;
use crate::auth::{Denied, Peer};
use crate::job::JobId;

/// A job's number as it stands in a path or a body.
pub(super) fn job_id(name: &str) -> Result<JobId, ApiError> {
    name.parse().map_err(|error| {
        let msg = format!("Invalid job id {name:?}: {error}");
        ApiError::new(ErrorKind::ValidationError, msg).with("job", name)
    })
}

pub(super) fn unknown_job(name: &str) -> ApiError {
    ApiError::new(ErrorKind::UnknownJob, format!("Unknown job {name}")).with("job", name)
}

/// A JSON body. Its content type is not looked at: only JSON is taken anyway.
pub(super) struct Body<T>(pub(super) T);

/// The query of the URL.
pub(super) struct Params<T>(pub(super) T);

/// The variable parts of the path.
pub(super) struct Parts<T>(pub(super) T);

/// The beginning of the URLs in answers: the name by which the caller has reached us.
pub(super) struct Base(String);

#[derive(Deserialize)]
struct TokenParam {
    token: Option<String>,
}

/// Lets in who has a valid token, in the header or in the query, or a certificate that is listed.
pub(super) async fn authenticate(
    State(api): State<Api>,
    mut request: Request,
    next: Next,
) -> Response {
    let header = request.headers().get(TOKEN_HEADER);
    let token = match header {
        Some(header) => header.to_str().ok().map(str::to_owned),
        None => Query::<TokenParam>::try_from_uri(request.uri())
            .ok()
            .and_then(|Query(param)| param.token),
    };
    let peer = request.extensions().get::<Peer>().cloned();
    let peer = peer.unwrap_or_default();
    match api.access.authenticate(token.as_deref(), &peer).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(Denied::Refused(error)) => {
            // Neither the token nor the query, which may hold it, belongs in a log.
            tracing::info!(
                path = request.uri().path(),
                kind = error.kind,
                "request refused"
            );
            Failure::from(error).into_response()
        }
        Err(denied) => Failure::from(denied).into_response(),
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = Bytes::from_request(request, state).await.map_err(|error| {
            if error.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
                let msg = format!("the body is larger than {} bytes", super::MAX_BODY);
                ApiError::new(ErrorKind::TooLarge, msg)
            } else {
                ApiError::new(ErrorKind::ValidationError, "the body could not be read")
            }
        })?;
        if bytes.is_empty() {
            let msg = "the request has no body";
            return Err(ApiError::new(ErrorKind::ValidationError, msg).into());
        }
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            let what = match error.classify() {
                serde_json::error::Category::Data => "the body is not what is expected here",
                _ => "the body is not JSON",
            };
            ApiError::new(ErrorKind::ValidationError, format!("{what}: {error}")).into()
        })
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Head, _: &S) -> Result<Self, Failure> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(params)| Self(params))
            .map_err(|error| {
                let msg = error.body_text();
                ApiError::new(ErrorKind::ValidationError, msg).into()
            })
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Parts<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Head, state: &S) -> Result<Self, Failure> {
        Path::from_request_parts(parts, state)
            .await
            .map(|Path(value)| Self(value))
            .map_err(|error| ApiError::new(ErrorKind::ValidationError, error.body_text()).into())
    }
}

impl Base {
    /// The URL of a path.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

impl FromRequestParts<Api> for Base {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Head, api: &Api) -> Result<Self, Self::Rejection> {
        let authority = named(&parts.uri, &parts.headers).unwrap_or(&api.settings.authority);
        Ok(Self(format!("https://{authority}")))
    }
}

/// The host and port that the request names, when that is one.
fn named<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let named = match uri.authority() {
        Some(authority) => authority.as_str(),
        None => headers.get(header::HOST)?.to_str().ok()?,
    };
    let fits = !named.is_empty()
        && named
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b));
    fits.then_some(named)
}
