//! `rbac-api`: tokens for passwords, and who the caller is.

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use orchestrator_api::rbac::{CurrentUser, TokenAnswer, TokenRequest};
use orchestrator_api::{ApiError, ErrorKind, TOKEN_HEADER, Time};
use serde_json::{Map, Value};

use super::Api;
use super::answer::{Answer, Fallible};
use super::request::Body;
use crate::auth::{Caller, Peer};
use crate::clock::wall;
use crate::store::TokenHash;

/// `POST rbac-api/v1/auth/token`.
pub(super) async fn login(
    State(api): State<Api>,
    peer: Option<Extension<Peer>>,
    Body(request): Body<TokenRequest>,
) -> Fallible<TokenAnswer> {
    let peer = peer.map(|Extension(peer)| peer).unwrap_or_default();
    let token = api.access.login(request, &peer).await?;
    Ok(Answer::ok(TokenAnswer { token }))
}

/// `POST rbac-api/v1/auth/token/revoke`: the token that the request itself has.
pub(super) async fn revoke(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Fallible<Map<String, Value>> {
    let token = headers.get(TOKEN_HEADER).and_then(|it| it.to_str().ok());
    let hash = token.map(|token| TokenHash::of(token.trim()));
    let is_ours = match hash {
        Some(hash) => api.store.revoke_token(hash, wall()).await?,
        None => false,
    };
    if !is_ours {
        let msg = "the request has no token of this orchestrator in its header";
        return Err(ApiError::new(ErrorKind::ValidationError, msg).into());
    }
    tracing::info!(login = caller.login, "token revoked");
    Ok(Answer::ok(Map::new()))
}

/// `GET rbac-api/v1/users/current`.
pub(super) async fn current(Extension(caller): Extension<Caller>) -> Answer<CurrentUser> {
    let is_superuser = caller.is_superuser();
    let login = caller.login.clone();
    Answer::ok(match caller.account() {
        Some(account) => CurrentUser {
            id: login.clone(),
            login,
            display_name: account.user.display_name.clone(),
            is_revoked: false,
            is_superuser,
            last_login: account.user.last_login.map(Time::from_millis),
            roles: account.roles.clone(),
            permissions: account.grants.iter().map(ToString::to_string).collect(),
        },
        None => CurrentUser {
            id: login.clone(),
            display_name: login.clone(),
            login,
            is_revoked: false,
            is_superuser,
            last_login: None,
            roles: vec![],
            permissions: if is_superuser {
                vec!["*".to_owned()]
            } else {
                vec![]
            },
        },
    })
}
