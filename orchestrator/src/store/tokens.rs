//! Tokens. What is stored is their SHA-256: whoever reads the database cannot use them.

use rusqlite::{OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::access::{self, Account};
use super::{Store, StoreError};

/// The SHA-256 of a token. Found by an index: how long that takes says nothing about a token,
/// because nobody can choose the digest of a guess.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TokenHash([u8; 32]);

/// A token as it is stored. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredToken {
    pub(crate) login: String,
    pub(crate) created: i64,
    pub(crate) expires: i64,
    pub(crate) revoked: Option<i64>,
    /// Whose permissions it has; without one it may do everything.
    pub(crate) user: Option<String>,
}

/// A token and whom it stands for, read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownToken {
    pub(crate) token: StoredToken,
    /// The user of [`StoredToken::user`].
    pub(crate) account: Option<Account>,
}

/// It identifies a token, so it is shown nowhere.
impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash")
    }
}

impl TokenHash {
    pub(crate) fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }
}

impl Store {
    /// Stores a new token.
    ///
    /// # Errors
    /// [`StoreError`]: it has not been stored.
    pub(crate) async fn add_token(
        &self,
        hash: TokenHash,
        token: StoredToken,
    ) -> Result<(), StoreError> {
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO tokens (hash, login, created, expires, revoked, user) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )
                .and_then(|mut insert| {
                    insert.execute(params![
                        hash.0,
                        token.login,
                        token.created,
                        token.expires,
                        token.revoked,
                        token.user
                    ])
                })
                .map(drop)
                .map_err(StoreError::of("store a token"))
        })
        .await
    }

    /// Finds a token and whom it stands for.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub(crate) async fn token(&self, hash: TokenHash) -> Result<Option<KnownToken>, StoreError> {
        self.read(move |connection| {
            let token = connection
                .prepare_cached(
                    "SELECT login, created, expires, revoked, user FROM tokens WHERE hash = ?1",
                )
                .and_then(|mut select| {
                    select
                        .query_row(params![hash.0], |row| {
                            Ok(StoredToken {
                                login: row.get(0)?,
                                created: row.get(1)?,
                                expires: row.get(2)?,
                                revoked: row.get(3)?,
                                user: row.get(4)?,
                            })
                        })
                        .optional()
                })
                .map_err(StoreError::of("look a token up"))?;
            let Some(token) = token else { return Ok(None) };
            let account = match &token.user {
                Some(login) => access::account(connection, login)?,
                None => None,
            };
            Ok(Some(KnownToken { token, account }))
        })
        .await
    }

    /// Revokes one token; gives whether it was there and valid.
    ///
    /// # Errors
    /// [`StoreError`]: nothing has been revoked.
    pub(crate) async fn revoke_token(&self, hash: TokenHash, at: i64) -> Result<bool, StoreError> {
        self.write(move |connection| {
            connection
                .execute(
                    "UPDATE tokens SET revoked = ?2 WHERE hash = ?1 AND revoked IS NULL",
                    params![hash.0, at],
                )
                .map(|rows| rows > 0)
                .map_err(StoreError::of("revoke a token"))
        })
        .await
    }

    /// Revokes all tokens of a login; gives how many were valid.
    ///
    /// # Errors
    /// [`StoreError`]: nothing has been revoked.
    pub(crate) async fn revoke_tokens(&self, login: String, at: i64) -> Result<usize, StoreError> {
        self.write(move |connection| {
            connection
                .execute(
                    "UPDATE tokens SET revoked = ?2 \
                     WHERE login = ?1 AND revoked IS NULL AND expires > ?2",
                    params![login, at],
                )
                .map_err(StoreError::of("revoke tokens"))
        })
        .await
    }

    /// Forgets tokens that have been of no use since `before`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn prune_tokens(&self, before: i64) -> Result<usize, StoreError> {
        self.write(move |connection| {
            connection
                .execute(
                    "DELETE FROM tokens WHERE min(expires, ifnull(revoked, expires)) < ?1",
                    [before],
                )
                .map_err(StoreError::of("forget old tokens"))
        })
        .await
    }
}
