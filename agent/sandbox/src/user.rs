//! As whom a task runs where it may not choose.

use serde::{Deserialize, Serialize};

/// The ids of an ordinary user, the same inside and outside of its user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserIds {
    /// The effective user id.
    pub uid: u32,
    /// The effective group id.
    pub gid: u32,
}
