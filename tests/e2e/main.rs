//! The whole path with real processes: command line, orchestrator, primary, compilers, agents, tasks.
//!
//! Tests of one topic share a mesh where they do not disturb each other; each starts by saying what
//! an operator would type, and ends with what that operator must see.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test says what it expects, and fails by panicking"
)]

mod debian_modules;
mod errors;
mod foreign_clients;
mod inventory;
mod lab_binary;
mod live;
mod policy;
mod puppet_runs;
mod rest;
#[path = "../said.rs"]
mod said;
mod sandbox;
mod support;
mod tasks;
mod transports;
