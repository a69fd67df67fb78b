//! Who is calling. A token names a login until it expires or is revoked; the database knows only
//! its SHA-256.

use std::time::Duration;

use orchestrator_api::{ApiError, ErrorKind};
use uuid::Uuid;

use crate::dispatch::wall;
use crate::store::{Store, StoreError, StoredToken, TokenHash};

/// The longest token that is looked at. Ours have 64 characters; tokens of others are not much longer.
const MAX_TOKEN: usize = 4096;

/// The longest login.
const MAX_LOGIN: usize = 255;

/// Somebody whose token was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) login: String,
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

/// Why a caller is not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Denied {
    /// No token, or one that is of no use.
    #[error("refused")]
    Refused(ApiError),
    /// Tokens cannot be looked up.
    #[error("tokens cannot be looked up")]
    Store(#[source] StoreError),
}

/// Makes a token for a login. This is the only time that it is seen.
///
/// # Errors
/// [`CreateError`].
pub(crate) async fn create(
    store: &Store,
    login: &str,
    lifetime: Duration,
) -> Result<String, CreateError> {
    let fits = (1..=MAX_LOGIN).contains(&login.len())
        && !login.chars().any(|c| c.is_whitespace() || c.is_control());
    if !fits {
        return Err(CreateError::Login);
    }
    if lifetime.is_zero() {
        return Err(CreateError::Lifetime);
    }
    // Two random UUIDs: 244 bits of the system's randomness.
    let token = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let created = wall();
    let lifetime = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
    let stored = StoredToken {
        login: login.to_owned(),
        created,
        expires: created.saturating_add(lifetime),
        revoked: None,
    };
    store
        .add_token(TokenHash::of(&token), stored)
        .await
        .map_err(CreateError::Store)?;
    Ok(token)
}

/// Finds out who a token stands for.
///
/// # Errors
/// [`Denied`].
pub(crate) async fn authenticate(store: &Store, token: Option<&str>) -> Result<Caller, Denied> {
    let unauthenticated =
        |msg: &str| Denied::Refused(ApiError::new(ErrorKind::UserUnauthenticated, msg));
    let Some(token) = token.map(str::trim).filter(|token| !token.is_empty()) else {
        return Err(unauthenticated(
            "no token: send one in the header X-Authentication",
        ));
    };
    if token.len() > MAX_TOKEN {
        return Err(unauthenticated("the token is not valid"));
    }
    let stored = store
        .token(TokenHash::of(token))
        .await
        .map_err(Denied::Store)?;
    let Some(stored) = stored else {
        return Err(unauthenticated("the token is not valid"));
    };
    if stored.revoked.is_some() {
        let error = ApiError::new(ErrorKind::UserRevoked, "the token has been revoked");
        return Err(Denied::Refused(error));
    }
    if stored.expires <= wall() {
        return Err(unauthenticated("the token has expired"));
    }
    Ok(Caller {
        login: stored.login,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn kind(store: &Store, token: Option<&str>) -> Result<String, String> {
        match authenticate(store, token).await {
            Ok(caller) => Ok(caller.login),
            Err(Denied::Refused(error)) => Err(format!("{}: {}", error.kind, error.msg)),
            Err(Denied::Store(error)) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn a_token_is_good_until_it_expires_or_is_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("orchestrator.db");
        let store = Store::open(&path).unwrap();
        let token = create(&store, "ada", Duration::from_secs(60))
            .await
            .unwrap();
        assert_eq!(kind(&store, Some(&token)).await.as_deref(), Ok("ada"));
        assert_eq!(
            kind(&store, Some(&format!("{token}\n"))).await.as_deref(),
            Ok("ada")
        );
        for (token, text) in [
            (None, "no token"),
            (Some("x"), "not valid"),
            (Some(" "), "no token"),
        ] {
            let error = kind(&store, token).await.unwrap_err();
            assert!(
                error.starts_with("puppetlabs.rbac/user-unauthenticated"),
                "{error}"
            );
            assert!(error.contains(text), "{error}");
        }
        for (name, expires, revoked, text) in [
            (
                "old",
                1,
                None,
                "puppetlabs.rbac/user-unauthenticated: the token has expired",
            ),
            (
                "bad",
                i64::MAX,
                Some(1),
                "puppetlabs.rbac/user-revoked: the token has been revoked",
            ),
        ] {
            let stored = StoredToken {
                login: name.into(),
                created: 0,
                expires,
                revoked,
            };
            store.add_token(TokenHash::of(name), stored).await.unwrap();
            assert_eq!(kind(&store, Some(name)).await, Err(text.to_owned()));
        }
        let bytes: Vec<u8> = ["orchestrator.db", "orchestrator.db-wal"]
            .iter()
            .flat_map(|name| std::fs::read(dir.path().join(name)).unwrap_or_default())
            .collect();
        assert!(
            !bytes
                .windows(token.len())
                .any(|part| part == token.as_bytes())
        );
    }

    #[tokio::test]
    async fn odd_logins_get_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("a.db")).unwrap();
        for login in ["", "a b", "a\n"] {
            assert!(create(&store, login, Duration::from_secs(1)).await.is_err());
        }
        assert!(create(&store, "ada", Duration::ZERO).await.is_err());
    }
}
