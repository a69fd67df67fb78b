//! A real Puppet estate: Puppet Server, PuppetDB, PostgreSQL and Puppet's CA, and a mesh whose
//! certificates come from that CA. All tests share one running stack; see `stack`.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test says what it expects, and fails by panicking"
)]

mod code_ids;
mod deploy;
mod errors;
mod gate;
mod outages;
mod played;
mod rules;
#[path = "../said.rs"]
mod said;
mod scopes;
mod stack;
mod support;
mod tasks;
