//! From request to result of a trivial task, one at a time and ten at once, beside bare spawns of the
//! same script in the same minute.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lab::Lab;
use tokio::task::JoinSet;

use crate::CONTROLLER;
use crate::controller::Controller;
use crate::memory::cpu_seconds;
use crate::table::Table;

/// How many requests are under way at once for the throughput.
const AT_ONCE: usize = 10;

/// Runs `count` tasks one after the other, then ten at once, with bare spawns between.
pub(crate) async fn measure(lab: &Lab, count: usize, table: &mut Table) -> Result<()> {
    let script = lab.dir().join("exit.sh");
    fs::write(&script, "#!/bin/sh\nexit 0\n").context("cannot write the script")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let tasks = daemon::Tasks::new();
    let controller = Controller::connect(lab, &tasks, CONTROLLER, "agent-1", &script).await?;
    // The first run fetches the script; it is not what is measured.
    controller.run().await?;

    let agent = lab.pid("agent-1").context("the agent does not run")?;
    let mut spawned = Vec::with_capacity(count);
    let mut requested = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        spawn(&script)?;
        spawned.push(start.elapsed());
        let start = Instant::now();
        controller.run().await?;
        requested.push(start.elapsed());
    }
    let (bare, task) = (median(&mut spawned), median(&mut requested));
    table.row(
        format!("request to result, one at a time, median of {count}"),
        milliseconds(task),
        format!(
            "bare spawn {} ({:.1} x)",
            milliseconds(bare),
            ratio(task, bare)
        ),
        "<= 5 ms",
    );

    let cpu = cpu_seconds(agent)?;
    let start = Instant::now();
    let mut running = JoinSet::new();
    let mut left = count * 2;
    while left > 0 || !running.is_empty() {
        while left > 0 && running.len() < AT_ONCE {
            let controller = controller.clone();
            running.spawn(async move { controller.run().await });
            left -= 1;
        }
        if let Some(ended) = running.join_next().await {
            ended.context("a request panicked")??;
        }
    }
    let wall = start.elapsed();
    let cpu = cpu_seconds(agent)? - cpu;
    let start = Instant::now();
    for _ in 0..count {
        spawn(&script)?;
    }
    let bare = per_second(count, start.elapsed());
    let product = per_second(count * 2, wall);
    table.row(
        "tasks per second on one agent, ten at once",
        format!("{product:.0}"),
        format!(
            "bare spawns, one at a time: {bare:.0}/s ({:.2} x)",
            product / bare
        ),
        ">= 500",
    );
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let cpu = cpu * 1000.0 / (count * 2) as f64;
    table.row(
        "CPU of the agent a task, ten at once",
        format!("{cpu:.2} ms"),
        "-",
        "-",
    );
    tasks.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

fn spawn(script: &Path) -> Result<()> {
    let status = Command::new(script)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("cannot start the script")?;
    ensure!(status.success(), "the script failed");
    Ok(())
}

pub(crate) fn median(durations: &mut [Duration]) -> Duration {
    durations.sort_unstable();
    durations
        .get(durations.len() / 2)
        .copied()
        .unwrap_or_default()
}

pub(crate) fn milliseconds(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn per_second(count: usize, wall: Duration) -> f64 {
    count as f64 / wall.as_secs_f64()
}
