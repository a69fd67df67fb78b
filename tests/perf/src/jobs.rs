//! A whole job: a task that does nothing, on a fleet of simulated agents behind a compiler, from the
//! start of the command line to its summary, with every result on the disk.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use lab::generator::Fleet;
use lab::{Lab, wait_until};
use serde_json::{Value, json};

use crate::memory::{cpu_seconds, mib, peak, resident};
use crate::table::Table;

/// How long a fleet may take to be connected.
const DEADLINE: Duration = Duration::from_secs(300);

/// How often a job is run: the first fills caches, the best of the rest counts.
const ROUNDS: usize = 3;

/// The largest estate that the orchestrator is made for.
const ESTATE: usize = 50_000;

/// Rows of the database that the end of a node is: its own, and that of the event.
const ROWS: f64 = 2.0;

/// What one job has cost.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// Seconds from the command line's start to its end.
    wall: f64,
    /// CPU seconds of the orchestrator.
    cpu: f64,
    /// KiB of the orchestrator after it.
    resident: u64,
}

/// Measures each size with a mesh of its own.
pub(crate) fn measure(sizes: &[usize], table: &mut Table) -> Result<()> {
    let mut smallest = None;
    for &agents in sizes {
        let cost = size(agents)?;
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let each = |seconds: f64| seconds * 1e6 / agents as f64;
        let (wall, cpu) = (each(cost.wall), each(cost.cpu));
        let (first, first_cpu) = *smallest.get_or_insert((wall, cpu));
        table.row(
            format!("no-op job on {agents} agents, command line to summary"),
            format!("{:.2} s", cost.wall),
            format!("{:.2} times the cost a node of the smallest", wall / first),
            "10,000: <= 4 s, flat",
        );
        table.row(
            format!("orchestrator CPU a node, job on {agents}"),
            format!("{cpu:.0} us"),
            format!("{:.2} times that of the smallest", cpu / first_cpu),
            "flat",
        );
        table.row(
            format!("orchestrator resident after a job on {agents}"),
            mib(cost.resident),
            "-",
            "50,000: <= 300 MiB",
        );
    }
    estate(table)
}

/// A job on a whole estate of which nobody is there: what the orchestrator and its database take,
/// without a mesh.
fn estate(table: &mut Table) -> Result<()> {
    let lab = Lab::builder().start().context("cannot start a mesh")?;
    let pid = lab.pid("orchestrator").context("it does not run")?;
    let names: Vec<_> = (1..=ESTATE)
        .map(|number| format!("node-{number}.example.com"))
        .collect();
    let body = json!({"task": "sample::host", "params": {}, "scope": {"nodes": names}});
    let start = Instant::now();
    let (status, answer) = lab.api_post("command/task", &body)?;
    if status != 202 {
        bail!("the job was not accepted: {answer}");
    }
    let accepted = start.elapsed().as_secs_f64();
    let name = answer.pointer("/job/name").and_then(Value::as_str);
    let path = format!("jobs/{}", name.context("no name")?);
    wait_until("the job has ended", DEADLINE, || match lab.api_get(&path) {
        Ok((200, job)) if job.get("state") == Some(&json!("failed")) => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    let ended = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rows = ESTATE as f64 * ROWS;
    table.row(
        format!("job on {ESTATE} absent nodes: stored and accepted; ended"),
        format!("{accepted:.2} s; {ended:.2} s"),
        "-",
        "-",
    );
    table.row(
        "rows durable a second, ends of nodes and their events",
        format!("{:.0} /s", rows / (ended - accepted)),
        "-",
        ">= 60,000 /s",
    );
    table.row(
        format!("orchestrator peak, job on {ESTATE} nodes"),
        mib(peak(pid)?),
        "-",
        "<= 300 MiB",
    );
    Ok(())
}

fn size(agents: usize) -> Result<Cost> {
    let modules = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/lab-modules");
    let lab = Lab::builder()
        .compilers(1)
        .modulepath(modules)
        .start()
        .context("cannot start a mesh")?;
    let pid = lab.pid("orchestrator").context("it does not run")?;
    let fleet = Fleet::start(lab.dir(), lab.broker_compilers(), agents)?;
    let wanted = u64::try_from(agents)?;
    wait_until("the fleet is connected", DEADLINE, || {
        match fleet.counts().connected {
            connected if connected == wanted => Ok(()),
            connected => Err(fleet.ended().unwrap_or_else(|| format!("{connected} are"))),
        }
    })?;
    wait_until("the orchestrator knows the fleet", DEADLINE, || {
        let connected = lab.connected().map_err(|error| error.to_string())?.len();
        if connected >= agents {
            return Ok(());
        }
        Err(format!("{connected} are known"))
    })?;
    let names: Vec<_> = (1..=agents)
        .map(|number| format!("load-{number}"))
        .collect();
    let nodes = lab.dir().join("nodes");
    fs::write(&nodes, names.join("\n")).context("cannot write the list of nodes")?;
    let nodes = format!("@{}", nodes.display());
    let mut best: Option<Cost> = None;
    for _ in 0..ROUNDS {
        let before = cpu_seconds(pid)?;
        let start = Instant::now();
        let output = lab.puppet_task(&["run", "sample::host", "--nodes", &nodes]);
        let wall = start.elapsed().as_secs_f64();
        let cpu = cpu_seconds(pid)? - before;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout);
            let tail: String = text.chars().rev().take(2000).collect();
            let tail: String = tail.chars().rev().collect();
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("the job did not succeed: {tail}\n{error}");
        }
        let resident = resident(pid)?;
        let is_better = best.is_none_or(|best| wall < best.wall);
        if is_better {
            best = Some(Cost {
                wall,
                cpu,
                resident,
            });
        }
    }
    fleet.end();
    best.context("no job was run")
}
