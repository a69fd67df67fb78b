//! Tokens and users, as the original's RBAC service has them: what `puppet access` calls.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// `POST rbac-api/v1/auth/token`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// Whose token.
    pub login: String,
    /// The password. Not shown by `Debug`.
    pub password: String,
    /// How long it is to be valid, as [`lifetime`] reads it; the server's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<String>,
    /// What the caller calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Which program asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

/// The password is a secret.
impl std::fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenRequest")
            .field("login", &self.login)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

/// The answer to it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// The token. This is the only time that it is seen.
    pub token: String,
}

/// The token is a secret.
impl std::fmt::Debug for TokenAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenAnswer([redacted])")
    }
}

/// `GET rbac-api/v1/users/current`: who the caller is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentUser {
    /// The login, here too: users have no other id.
    pub id: String,
    /// The login.
    pub login: String,
    /// The name for people.
    pub display_name: String,
    /// Whether nothing is allowed any more.
    pub is_revoked: bool,
    /// Whether everything is allowed.
    pub is_superuser: bool,
    /// When a password was last given.
    pub last_login: Option<Time>,
    /// The roles by name.
    pub roles: Vec<String>,
    /// What is permitted, as `pxp-orchestrator role grant` takes it.
    pub permissions: Vec<String>,
}

/// A lifetime is not `N` with one of the units y, d, h, m, s.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a lifetime: a number with the unit y, d, h, m or s, or 0 for the longest")]
pub struct LifetimeError(String);

/// Reads `4h`, `30m`, `1y`; a number alone is seconds, and zero asks for the longest there is
/// (`None`).
///
/// # Errors
/// [`LifetimeError`].
pub fn lifetime(text: &str) -> Result<Option<Duration>, LifetimeError> {
    let wrong = || LifetimeError(text.to_owned());
    let trimmed = text.trim();
    let digits = trimmed.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match trimmed.get(digits.len()..).unwrap_or_default() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "y" => 365 * 86_400,
        _ => return Err(wrong()),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let seconds = number.checked_mul(unit).ok_or_else(wrong)?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read_as_the_original_reads_them() {
        for (text, seconds) in [
            ("90", 90),
            ("5m", 300),
            ("4h", 14_400),
            ("2d", 172_800),
            ("1y", 31_536_000),
            (" 30s ", 30),
        ] {
            let lasting = Some(Duration::from_secs(seconds));
            assert_eq!(lifetime(text), Ok(lasting), "{text}");
        }
        assert_eq!(lifetime("0"), Ok(None));
        for text in [
            "",
            "h",
            "-1h",
            "1.5h",
            "4 hours",
            "1w",
            "99999999999999999999y",
            "9999999999999999y",
        ] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_are_not_shown_by_debug() {
        let request = TokenRequest {
            login: "ada".into(),
            password: "hunter2".into(),
            lifetime: None,
            label: None,
            description: None,
            client: None,
        };
        assert!(!format!("{request:?}").contains("hunter2"));
        let answer = TokenAnswer {
            token: "hunter2".into(),
        };
        assert!(!format!("{answer:?}").contains("hunter2"));
    }
}
