//! What the execution wrapper promises, tried on real processes: in every containment that this
//! host offers, and once more as an ordinary user.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "test code throughout: what cannot go on fails the test, and a skip says why"
)]

mod adoption;
mod attacks;
mod bed;
mod endings;
mod guest;
mod host;
mod launching;
mod limits;
mod message_bus;
mod ordinary;
mod ordinary_user;
mod preparing;
mod refusals;
mod streams;
mod surroundings;
mod tree;
