//! Brokers over real sockets on loopback, with certificates as Puppet's CA makes them and our own
//! client as their peers; rogues speak QUIC by themselves.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod command;
mod content;
mod controllers_suite;
mod drain;
mod field;
mod floods;
mod foreign;
mod links;
mod original_broker;
mod pcp_broker_suite;
mod primaries;
mod rogues;
mod routing;
mod rude;
mod served;
mod storm;
mod transports;
mod trust;
mod valve;
mod watching;
