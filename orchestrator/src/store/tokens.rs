//! Tokens. What is stored is their SHA-256: whoever reads the database cannot use them.

use rusqlite::{OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::{Store, StoreError};

/// The SHA-256 of a token. Found by an index: how long that takes says nothing about a token,
/// because nobody can choose the digest of a guess.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenHash([u8; 32]);

/// A token as it is stored. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredToken {
    pub(crate) login: String,
    pub(crate) created: i64,
    pub(crate) expires: i64,
    pub(crate) revoked: Option<i64>,
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
                    "INSERT INTO tokens (hash, login, created, expires, revoked) \
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )
                .and_then(|mut insert| {
                    insert.execute(params![
                        hash.0,
                        token.login,
                        token.created,
                        token.expires,
                        token.revoked
                    ])
                })
                .map(drop)
                .map_err(StoreError::of("store a token"))
        })
        .await
    }

    /// Finds a token.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read.
    pub(crate) async fn token(&self, hash: TokenHash) -> Result<Option<StoredToken>, StoreError> {
        self.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT login, created, expires, revoked FROM tokens WHERE hash = ?1",
                )
                .and_then(|mut select| {
                    select
                        .query_row(params![hash.0], |row| {
                            Ok(StoredToken {
                                login: row.get(0)?,
                                created: row.get(1)?,
                                expires: row.get(2)?,
                                revoked: row.get(3)?,
                            })
                        })
                        .optional()
                })
                .map_err(StoreError::of("look a token up"))
        })
        .await
    }
}
