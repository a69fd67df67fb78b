//! Tokens: each names a login until it expires or is revoked. The database knows only their SHA-256.

use std::time::Duration;

use orchestrator_api::{ApiError, ErrorKind};
use uuid::Uuid;

use super::{Denied, unauthenticated, user_revoked};
use crate::clock::wall;
use crate::store::{Account, Store, StoreError, StoredToken, TokenHash};

/// The longest token that is looked at. Ours have 64 characters; tokens of others are not much longer.
pub(super) const MAX: usize = 4096;

/// The longest login.
const MAX_LOGIN: usize = 255;

/// Whom a valid token stands for.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) login: String,
    /// The user; nothing for a token that an administrator made for a login that is no user.
    pub(super) account: Option<Account>,
}

/// Why there is no new token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    /// The login is empty, too long, or has blanks or control characters.
    #[error("a login is 1 to {MAX_LOGIN} characters without blanks")]
    Login,
    /// A token that never was valid is of no use.
    #[error("the lifetime is zero")]
    Lifetime,
    /// It could not be stored.
    #[error("the token could not be stored")]
    Store(#[source] StoreError),
}

/// Whether a text can be a login.
pub(crate) fn is_login(text: &str) -> bool {
    (1..=MAX_LOGIN).contains(&text.len())
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// Makes a token for a login: with the permissions of the user of that login, or, when there is
/// none, with all. This is the only time that it is seen.
///
/// # Errors
/// [`CreateError`].
pub(crate) async fn create(
    store: &Store,
    login: &str,
    lifetime: Duration,
) -> Result<String, CreateError> {
    if !is_login(login) {
        return Err(CreateError::Login);
    }
    if lifetime.is_zero() {
        return Err(CreateError::Lifetime);
    }
    let account = store.account(login.to_owned()).await;
    let account = account.map_err(CreateError::Store)?;
    // Two random UUIDs: 244 bits of the system's randomness.
    let token = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let created = wall();
    let lifetime = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
    let stored = StoredToken {
        login: login.to_owned(),
        created,
        expires: created.saturating_add(lifetime),
        revoked: None,
        user: account.map(|account| account.user.login),
    };
    store
        .add_token(TokenHash::of(&token), stored)
        .await
        .map_err(CreateError::Store)?;
    Ok(token)
}

/// Whom a token stands for; nothing when it is not one of ours.
///
/// # Errors
/// [`Denied`] for one that is not valid any more.
pub(super) async fn find(store: &Store, token: &str) -> Result<Option<Found>, Denied> {
    let Some(known) = store.token(TokenHash::of(token)).await? else {
        return Ok(None);
    };
    let stored = known.token;
    if stored.revoked.is_some() {
        return Err(ApiError::new(ErrorKind::UserRevoked, "the token has been revoked").into());
    }
    if stored.expires <= wall() {
        return Err(unauthenticated("the token has expired").into());
    }
    if let Some(account) = &known.account
        && account.user.revoked.is_some()
    {
        return Err(user_revoked().into());
    }
    Ok(Some(Found {
        login: stored.login,
        account: known.account,
    }))
}
