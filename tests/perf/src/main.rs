//! Figures of the running product, printed as a table, each beside a baseline of the same run: a
//! machine is never twice equally fast, a ratio within one run is.
//!
//! `cargo run --release -p perf` measures all; `cargo run --release -p perf -- latency` one.

mod baseline;
mod controller;
mod estate;
mod fleet;
mod hostile;
mod idle;
mod jobs;
mod latency;
mod memory;
mod routing;
mod row;
mod sandbox_cost;
mod sqlite;
mod start;
mod table;

use std::io::Write as _;
use std::path::PathBuf;

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
    /// How many agents are connected for the figures of a fleet (may be repeated).
    #[arg(long, default_values_t = [1000, 5000, 10_000])]
    agents: Vec<usize>,
    /// Be the baseline: bare quinn, with the certificate of this ssldir.
    #[arg(long, hide = true, value_name = "SSLDIR")]
    bare_quinn_server: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Figure {
    /// Resident memory of each process at rest.
    Idle,
    /// What containment costs a task, by profile.
    Sandbox,
    /// From request to result of a trivial task, and tasks per second at ten at once.
    Latency,
    /// Broker memory and CPU a connected agent, connections a second, fan-out with acknowledgement.
    Connections,
    /// Broker memory for peers that finish nothing.
    Hostile,
    /// Broker CPU a routed message, through one broker and two.
    Routing,
    /// From a broker's start to its readiness.
    Start,
    /// A job that does nothing on all agents, from the command line's start to its summary.
    Jobs,
    /// What a whole estate takes above its brokers: known, in a job, and absent.
    Estate,
}

/// The certname of the controller that this program plays.
const CONTROLLER: &str = "perf";

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = daemon::runtime(daemon::Threads::Multi(2)).context("cannot start a runtime")?;
    if let Some(ssldir) = &args.bare_quinn_server {
        return runtime.block_on(baseline::serve(ssldir));
    }
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
    if wanted(Figure::Sandbox) {
        sandbox_cost::measure(&lab, args.tasks, &mut table)?;
    }
    if wanted(Figure::Latency) {
        runtime.block_on(latency::measure(&lab, args.tasks, &mut table))?;
    }
    if wanted(Figure::Routing) {
        runtime.block_on(routing::measure(&lab, &mut table))?;
    }
    if wanted(Figure::Start) {
        start::measure(&lab, &mut table)?;
    }
    drop(lab);
    if wanted(Figure::Connections) {
        runtime.block_on(fleet::measure(&args.agents, &mut table))?;
    }
    if wanted(Figure::Hostile) {
        runtime.block_on(hostile::measure(&mut table))?;
    }
    if wanted(Figure::Jobs) {
        jobs::measure(&args.agents, &mut table)?;
    }
    if wanted(Figure::Estate) {
        runtime.block_on(estate::measure([1000, jobs::ESTATE], &mut table))?;
        jobs::absent(&mut table)?;
    }
    write!(std::io::stdout(), "{table}").context("cannot print")
}
