//! Figures of the running product, printed as a table, each beside a baseline of the same run: a
//! machine is never twice equally fast, a ratio within one run is.
//!
//! `cargo run --release -p perf` measures all; `cargo run --release -p perf -- latency` one.

mod controller;
mod fleet;
mod idle;
mod latency;
mod memory;
mod table;

use std::io::Write as _;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use lab::Lab;

use crate::table::Table;

/// Measures the product on this machine.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    /// What to measure; everything when nothing is named.
    figures: Vec<Figure>,
    /// How many tasks are run one after the other for the latency.
    #[arg(long, default_value_t = 200)]
    tasks: usize,
    /// How many agents are connected for the memory of a connection.
    #[arg(long, default_value_t = 2000)]
    agents: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Figure {
    /// Resident memory of each process at rest.
    Idle,
    /// From request to result of a trivial task, and tasks per second at ten at once.
    Latency,
    /// Broker memory a connected agent.
    Connections,
}

/// The certname of the controller that this program plays.
const CONTROLLER: &str = "perf";

fn main() -> Result<()> {
    let args = Args::parse();
    let wanted = |figure| args.figures.is_empty() || args.figures.contains(&figure);
    let mut table = Table::default();
    let lab = Lab::builder()
        .compilers(1)
        .agents(1)
        .controller(CONTROLLER)
        .start()
        .context("cannot start a mesh")?;
    if wanted(Figure::Idle) {
        idle::measure(&lab, &mut table)?;
    }
    let runtime = daemon::runtime(daemon::Threads::Multi(2)).context("cannot start a runtime")?;
    if wanted(Figure::Latency) {
        runtime.block_on(latency::measure(&lab, args.tasks, &mut table))?;
    }
    if wanted(Figure::Connections) {
        runtime.block_on(fleet::measure(&lab, args.agents, &mut table))?;
    }
    write!(std::io::stdout(), "{table}").context("cannot print")
}
