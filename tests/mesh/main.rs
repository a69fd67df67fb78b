//! A mesh of several hosts, each a network namespace: what is cut, lost, slow, killed or restarted
//! between them costs no result, runs no task twice, and leaves one truth about who is where.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test says what it expects, and fails by panicking"
)]

mod cuts;
mod deaths;
#[path = "../midway.rs"]
mod midway;
mod paths;
#[path = "../said.rs"]
mod said;
mod support;
