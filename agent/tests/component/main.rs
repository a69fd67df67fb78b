//! The agent against a broker that is played here: real sockets, real certificates, the real
//! execution wrapper, real processes.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why it skips, in its helpers too"
)]

mod apply;
mod commands;
mod delivery;
mod downloads;
mod external;
mod full_disk;
mod given_cgroup;
mod hostile;
mod https;
mod kills;
mod metrics;
mod modules;
mod node;
mod output;
mod played;
mod policy;
mod puppet_runs;
mod real_puppet;
mod resilience;
mod restart;
mod scripts;
mod stop;
mod tasks;
