//! The id of a transaction: chosen by the requester, and hostile until parsed, because it becomes
//! the name of a directory on the agent.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, de};

/// The longest id. UUIDs have 36 characters; file names end at 255.
pub const MAX_TRANSACTION_ID: usize = 128;

/// Names one request and everything that comes of it, for ever: a request is never run twice.
///
/// 1 to [`MAX_TRANSACTION_ID`] characters of `[A-Za-z0-9_.-]`, the first neither `.` nor `-`, so
/// that it is safe as the name of a directory and as an argument.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(Arc<str>);

/// The text cannot be the id of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a transaction id is 1 to {MAX_TRANSACTION_ID} letters, digits, '_', '.' or '-', beginning with a letter, digit or '_'"
)]
pub struct InvalidTransactionId;

impl TransactionId {
    /// Parses an id.
    ///
    /// # Errors
    /// [`InvalidTransactionId`] when it is empty, too long or has a character outside the set.
    pub fn parse(text: &str) -> Result<Self, InvalidTransactionId> {
        let head = text.bytes().next().ok_or(InvalidTransactionId)?;
        let fits = text.len() <= MAX_TRANSACTION_ID
            && !b".-".contains(&head)
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(InvalidTransactionId)
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TransactionId {
    type Err = InvalidTransactionId;

    fn from_str(text: &str) -> Result<Self, InvalidTransactionId> {
        Self::parse(text)
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for TransactionId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TransactionId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&Cow::<'de, str>::deserialize(d)?).map_err(de::Error::custom)
    }
}
