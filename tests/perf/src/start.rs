//! From the start of a broker's process until it says that it is ready.

use std::time::{Duration, Instant};

use anyhow::Result;
use lab::Lab;

use crate::table::Table;

/// How often it is started; the median counts.
const STARTS: usize = 9;

/// Starts the primary again and again, beside a process that does nothing.
pub(crate) fn measure(lab: &Lab, table: &mut Table) -> Result<()> {
    let mut starts = Vec::with_capacity(STARTS);
    let mut bare = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        lab.kill("primary")?;
        let start = Instant::now();
        lab.restart("primary")?;
        starts.push(start.elapsed());
        let start = Instant::now();
        std::process::Command::new("true").status()?;
        bare.push(start.elapsed());
    }
    table.row(
        format!("broker, from start to ready, median of {STARTS}"),
        format!("{:.3} s", median(&mut starts).as_secs_f64()),
        format!("true: {:.3} s", median(&mut bare).as_secs_f64()),
        "<= 0.2 s",
    );
    Ok(())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
