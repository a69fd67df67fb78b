//! One rule of the node at a time, from outside: an input, and what the node does about it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: what cannot be must stop them"
)]

#[path = "rules/inventory.rs"]
mod inventory;
#[path = "rules/messages.rs"]
mod messages;
#[path = "rules/returning.rs"]
mod returning;
#[path = "rules/sessions.rs"]
mod sessions;
#[path = "rules/setup.rs"]
mod setup;
