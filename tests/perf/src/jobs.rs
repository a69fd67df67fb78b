//! A whole job: a task that does nothing, from the start of the command line to its summary, with
//! every result on the disk; on fleets of simulated agents behind a compiler, and on an estate of which
//! nobody is there.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use lab::generator::Fleet;
use lab::{Lab, wait_until};
use serde_json::{Value, json};

use crate::memory::{cpu_seconds, mib, peak, resident};
use crate::sqlite;
use crate::table::Table;

/// How long a fleet may take to be connected, or a job to end.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);

/// How often a job is run: the first fills caches, the best of the rest counts.
const ROUNDS: usize = 3;

/// The largest estate that the orchestrator is made for.
pub(crate) const ESTATE: usize = 50_000;

/// Rows of the database that the end of a node is: its own, and that of the event.
const ROWS: usize = 2;

/// What one job has cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// Seconds from the command line's start to its end.
    pub(crate) wall: f64,
    /// CPU seconds of the orchestrator.
    pub(crate) cpu: f64,
    /// KiB of the orchestrator after it.
    resident: u64,
    /// What the database was given, and the seconds it took for that.
    written: Written,
}

/// What the orchestrator has written since its start.
#[derive(Debug, Clone, Copy)]
struct Written {
    changes: f64,
    seconds: f64,
}

/// Microseconds for each node.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(crate) fn each(seconds: f64, nodes: usize) -> f64 {
    seconds * 1e6 / nodes as f64
}

/// Measures each size with a mesh of its own.
pub(crate) fn measure(sizes: &[usize], table: &mut Table) -> Result<()> {
    let mut smallest = None;
    for &agents in sizes {
        let (lab, cost) = size(agents)?;
        let (wall, cpu) = (each(cost.wall, agents), each(cost.cpu, agents));
        let (first, first_cpu) = *smallest.get_or_insert((wall, cpu));
        table.row(
            format!("no-op job on {agents} agents, command line to summary"),
            format!("{:.2} s", cost.wall),
            format!("--version: {:.3} s", start_of_command(&lab)?),
            "10,000: <= 4 s",
        );
        table.row(
            "the same, a node: all; orchestrator's CPU",
            format!("{wall:.0} us; {cpu:.0} us"),
            format!(
                "{:.2}; {:.2} times the smallest",
                wall / first,
                cpu / first_cpu
            ),
            "flat",
        );
        let rows = agents * 3;
        let bare = sqlite::insert(&lab.dir().join("bare.sqlite"), rows)?;
        table.row(
            format!(
                "its {:.0} changes, time of the database",
                cost.written.changes
            ),
            format!("{:.2} s", cost.written.seconds),
            format!("bare SQLite, {rows} events: {bare:.2} s"),
            "-",
        );
        table.row(
            format!("orchestrator resident after a job on {agents}"),
            mib(cost.resident),
            "-",
            "50,000: <= 300 MiB",
        );
    }
    Ok(())
}

/// A job on a whole estate of which nobody is there: what the orchestrator and its database take,
/// without a mesh.
pub(crate) fn absent(table: &mut Table) -> Result<()> {
    let lab = mesh()?;
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
    let bare = sqlite::insert(&lab.dir().join("bare.sqlite"), ESTATE * ROWS)?;
    table.row(
        format!("job on {ESTATE} absent nodes: stored and accepted; ended"),
        format!("{accepted:.2} s; {ended:.2} s"),
        "-",
        "-",
    );
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rows = (ESTATE * ROWS) as f64;
    table.row(
        "rows durable a second, ends of nodes and their events",
        format!("{:.0} /s", rows / (ended - accepted)),
        format!("bare SQLite: {:.0} /s", rows / bare),
        ">= 60,000 /s",
    );
    table.row(
        format!("orchestrator peak, job on {ESTATE} absent nodes"),
        mib(peak(pid)?),
        "-",
        "<= 300 MiB",
    );
    Ok(())
}

/// A primary, a compiler and an orchestrator that tells its metrics.
pub(crate) fn mesh() -> Result<Lab> {
    let modules = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/lab-modules");
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port")?;
    let metrics = free.local_addr().context("no port")?;
    drop(free);
    let listen = format!("orchestrator {{ metrics-listen: \"{metrics}\" }}");
    Lab::builder()
        .compilers(1)
        .modulepath(modules)
        .config("orchestrator", &listen)
        .start()
        .context("cannot start a mesh")
}

fn size(agents: usize) -> Result<(Lab, Cost)> {
    let lab = mesh()?;
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
    let names: Vec<_> = (1..=agents).map(fleet::certname).collect();
    let cost = run(&lab, &names)?;
    fleet.end();
    Ok((lab, cost))
}

/// Runs the job on these nodes a few times, and gives the best.
pub(crate) fn run(lab: &Lab, names: &[String]) -> Result<Cost> {
    let pid = lab.pid("orchestrator").context("it does not run")?;
    let nodes = lab.dir().join("nodes");
    fs::write(&nodes, names.join("\n")).context("cannot write the list of nodes")?;
    let nodes = format!("@{}", nodes.display());
    let mut best: Option<Cost> = None;
    for _ in 0..ROUNDS {
        let before = (cpu_seconds(pid)?, written(lab)?);
        let start = Instant::now();
        let output = lab.puppet_task(&["run", "sample::host", "--nodes", &nodes]);
        let wall = start.elapsed().as_secs_f64();
        let after = (cpu_seconds(pid)?, written(lab)?);
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout);
            let tail: String = text.chars().rev().take(2000).collect();
            let tail: String = tail.chars().rev().collect();
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("the job did not succeed: {tail}\n{error}");
        }
        if best.is_none_or(|best| wall < best.wall) {
            best = Some(Cost {
                wall,
                cpu: after.0 - before.0,
                resident: resident(pid)?,
                written: Written {
                    changes: after.1.changes - before.1.changes,
                    seconds: after.1.seconds - before.1.seconds,
                },
            });
        }
    }
    best.context("no job was run")
}

/// The shortest of a few starts of the command line that ask nobody.
fn start_of_command(lab: &Lab) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        let output = lab.puppet_task(&["--version"]);
        best = best.min(start.elapsed().as_secs_f64());
        if !output.status.success() {
            bail!("puppet-task --version fails");
        }
    }
    Ok(best)
}

/// Reads what the orchestrator has written off its metrics.
fn written(lab: &Lab) -> Result<Written> {
    let config = fs::read_to_string(lab.site().config("orchestrator"))?;
    let address = config
        .rsplit_once("metrics-listen")
        .context("no metrics")?
        .1;
    let address = address.split('"').nth(1).context("no address of metrics")?;
    let address: SocketAddr = address.parse().context("no address of metrics")?;
    let mut stream = TcpStream::connect(address).context("no metrics")?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let sum = |name: &str| {
        let name = format!("pxp_orchestrator_{name}");
        let lines = text.lines().filter(|line| line.starts_with(&name));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    };
    Ok(Written {
        changes: sum("changes_written_total"),
        seconds: sum("database_write_duration_seconds_sum"),
    })
}
