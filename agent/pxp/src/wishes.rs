//! What a requester may ask of the agent beyond the original's parameters. In `task run` it stands
//! below the task's metadata, as `extensions.pxp_mesh`, where the specification has a place for it;
//! in all other actions it is the key `pxp_mesh` of the parameters.

use serde::{Deserialize, Deserializer, Serialize, de};

/// How far a process is kept from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// It may change anything.
    Host,
    /// It may manage the host, and not reach the node's keys or the agent.
    Standard,
    /// It may look.
    Confined,
}

/// The wishes. The node's policy decides: a wish makes things stricter or does nothing. A wish that
/// this agent does not know is refused, for nothing that was asked for may be left out in silence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wishes {
    /// After how many seconds the process is ended, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit: Option<u64>,
    /// The weakest profile that will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// The user to run as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as: Option<UserName>,
}

/// The longest name of a user that Linux knows (`LOGIN_NAME_MAX` with its NUL is 256).
const MAX_USER_NAME: usize = 255;

/// The name of a user, as it may stand in a user database.
///
/// 1 to 255 characters, none of them a control character, white space, `:` or `/`; the first is not
/// `-`, `+` or `~`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct UserName(String);

/// The text cannot be the name of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of a user has 1 to {MAX_USER_NAME} bytes, no white space, ':' or '/', and does not begin with '-', '+' or '~'"
)]
pub struct InvalidUserName;

impl UserName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`InvalidUserName`] when no user database can hold it.
    pub fn parse(text: &str) -> Result<Self, InvalidUserName> {
        let fits = (1..=MAX_USER_NAME).contains(&text.len())
            && !text.starts_with(['-', '+', '~'])
            && !text
                .chars()
                .any(|c| c.is_control() || c.is_whitespace() || matches!(c, ':' | '/'));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidUserName)
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for UserName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(de::Error::custom)
    }
}
