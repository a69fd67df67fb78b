//! Users and roles as lines.

use orchestrator_api::Time;

use crate::store::{Account, StoredRole};

/// A line a user.
pub(super) fn users(accounts: &[Account]) -> String {
    if accounts.is_empty() {
        return "There are no users: see user add.\n".to_owned();
    }
    let width = accounts
        .iter()
        .map(|account| account.user.login.chars().count())
        .max()
        .unwrap_or_default();
    accounts
        .iter()
        .map(|account| {
            let user = &account.user;
            let roles = match account.roles.as_slice() {
                [] => "no role".to_owned(),
                roles => roles.join(", "),
            };
            let mut line = format!("{:width$}  {roles}", user.login);
            if user.revoked.is_some() {
                line.push_str("  [revoked]");
            }
            if user.password.is_none() {
                line.push_str("  [no password]");
            }
            if let Some(at) = user.last_login {
                line.push_str(&format!("  last login {}", Time::from_millis(at)));
            }
            line + "\n"
        })
        .collect()
}

/// Each role with what it permits, as `role grant` takes it, and who has it.
pub(super) fn roles(roles: &[StoredRole]) -> String {
    let mut text = String::new();
    for role in roles {
        text.push_str(&role.name);
        if !role.description.is_empty() {
            text.push_str(&format!(": {}", role.description));
        }
        text.push('\n');
        for grant in &role.grants {
            text.push_str(&format!("  permits {grant}\n"));
        }
        if !role.users.is_empty() {
            text.push_str(&format!("  users: {}\n", role.users.join(", ")));
        }
    }
    text
}
