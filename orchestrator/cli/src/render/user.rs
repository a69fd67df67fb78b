//! A user in words.

use orchestrator_api::rbac::CurrentUser;

use crate::printable::printable;

/// Who it is and what is permitted.
pub(crate) fn user(user: &CurrentUser) -> String {
    let mut text = printable(&user.login);
    if user.display_name != user.login && !user.display_name.is_empty() {
        text.push_str(&format!(" ({})", printable(&user.display_name)));
    }
    text.push('\n');
    if !user.roles.is_empty() {
        let roles: Vec<_> = user.roles.iter().map(|role| printable(role)).collect();
        text.push_str(&format!("  roles: {}\n", roles.join(", ")));
    }
    if user.permissions.is_empty() {
        text.push_str("  no permissions are known here\n");
    }
    for permission in &user.permissions {
        text.push_str(&format!("  may {}\n", printable(permission)));
    }
    text
}
