//! Passwords: argon2id with the parameters that OWASP names first for it. Slow on purpose, so it is done on
//! threads for blocking work, a few at once.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;
use uuid::Uuid;

/// The shortest password that is taken. What is guessed at is held up besides (see [`super::lockout`]).
pub(crate) const MIN: usize = 10;

/// The longest password in bytes: nobody types more, and its hashing is not for free.
pub(crate) const MAX: usize = 1024;

/// How many are hashed at once. Each takes 19 MiB and some tens of milliseconds of a core.
const AT_ONCE: usize = 2;

/// How long a login waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// KiB, passes and lanes: the first of OWASP's equally strong choices.
const PARAMETERS: (u32, u32, u32) = (19 * 1024, 2, 1);

/// Hashes and checks. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Passwords {
    turns: Arc<Semaphore>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PasswordError {
    /// Too many want the same.
    #[error("too many passwords are being checked; try again in a moment")]
    Busy,
    /// It is too short or too long.
    #[error("a password has {MIN} to {MAX} bytes")]
    Length,
    /// Hashing failed, or what is stored is no hash.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

impl Passwords {
    pub(crate) fn new() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// The text that is stored for a password.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub(crate) async fn hash(&self, password: String) -> Result<String, PasswordError> {
        if !(MIN..=MAX).contains(&password.len()) {
            return Err(PasswordError::Length);
        }
        self.turn(move || hash(&password)).await?
    }

    /// Whether a password is the one behind `stored`. Without a stored one this takes as long, so
    /// that the time does not tell which logins there are.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub(crate) async fn check(
        &self,
        password: String,
        stored: Option<String>,
    ) -> Result<bool, PasswordError> {
        if password.len() > MAX {
            return Ok(false);
        }
        self.turn(move || match stored {
            Some(stored) => verify(&password, &stored),
            None => verify(&password, &NOBODY).map(|_| false),
        })
        .await?
    }

    async fn turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(PasswordError::Busy);
        };
        // The turn ends with the work, also when the caller has gone away.
        let work = move || {
            let done = work();
            drop(turn);
            done
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| PasswordError::Hash(error.to_string()))
    }
}

/// What the password of a login that there is not is compared with.
static NOBODY: LazyLock<String> = LazyLock::new(|| hash("nobody's password").unwrap_or_default());

fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let (memory, passes, lanes) = PARAMETERS;
    let params = Params::new(memory, passes, lanes, None)
        .map_err(|error| PasswordError::Hash(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &str) -> Result<String, PasswordError> {
    let failed = |error: argon2::password_hash::Error| PasswordError::Hash(error.to_string());
    // 122 random bits of the system: a salt has to differ, not to be secret.
    let salt = SaltString::encode_b64(Uuid::new_v4().as_bytes()).map_err(failed)?;
    argon2()?
        .hash_password(password.as_bytes(), &salt)
        .map(|hash| hash.to_string())
        .map_err(failed)
}

/// Compares in constant time. The parameters are those of the stored hash.
fn verify(password: &str, stored: &str) -> Result<bool, PasswordError> {
    let parsed =
        PasswordHash::new(stored).map_err(|error| PasswordError::Hash(error.to_string()))?;
    match argon2()?.verify_password(password.as_bytes(), &parsed) {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::Password) => Ok(false),
        Err(error) => Err(PasswordError::Hash(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_fits_its_hash_and_no_other() {
        let passwords = Passwords::new();
        let stored = passwords.hash("correct horse".into()).await.unwrap();
        assert!(
            stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{stored}"
        );
        let check = |password: &str, stored: Option<&str>| {
            passwords.check(password.to_owned(), stored.map(str::to_owned))
        };
        assert_eq!(check("correct horse", Some(&stored)).await, Ok(true));
        assert_eq!(check("correct horsf", Some(&stored)).await, Ok(false));
        assert_eq!(check("correct horse", None).await, Ok(false));
        assert_eq!(check("nobody's password", None).await, Ok(false));
        assert_eq!(check(&"x".repeat(MAX + 1), Some(&stored)).await, Ok(false));
        assert!(check("correct horse", Some("plain")).await.is_err());
        let again = passwords.hash("correct horse".into()).await.unwrap();
        assert_ne!(stored, again, "each hash has its own salt");
    }

    #[tokio::test]
    async fn short_and_endless_passwords_are_refused() {
        let passwords = Passwords::new();
        for password in [String::new(), "short".into(), "x".repeat(MAX + 1)] {
            assert_eq!(passwords.hash(password).await, Err(PasswordError::Length));
        }
    }
}
