//! What a connected agent costs a broker, and what asking all of them takes, at several sizes, each
//! beside bare quinn. The agents are real sessions of the real client, each with a certificate of its
//! own, in a process of their own.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use lab::generator::{Asker, Fleet};
use lab::{Lab, wait_until};

use crate::baseline::{Clients, Server};
use crate::controller::identity;
use crate::memory::{cpu_seconds, resident};
use crate::table::Table;
use crate::{CONTROLLER, row};

/// How long a fleet may take to be connected.
const DEADLINE: Duration = Duration::from_secs(300);

/// What one fleet has cost.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// KiB for each connection.
    memory: f64,
    /// CPU milliseconds of the server for each connection.
    handshake: f64,
    /// Connections a second, with both ends on this machine.
    rate: f64,
    /// Seconds until all have answered one message.
    fan_out: f64,
}

/// What is read off a fleet, with the goal for its memory.
fn figures(memory: &'static str) -> [row::Figure<Cost>; 4] {
    [
        (
            "broker memory a connected agent",
            "KiB",
            |c| c.memory,
            memory,
        ),
        ("broker CPU a connection", "ms", |c| c.handshake, "-"),
        (
            "connections a second, both ends here",
            "/s",
            |c| c.rate,
            "-",
        ),
        (
            "fan-out, all have answered",
            "s",
            |c| c.fan_out,
            "10,000: <= 0.5 s",
        ),
    ]
}

/// Measures each size over each transport with a broker of its own.
pub(crate) async fn measure(sizes: &[usize], table: &mut Table) -> Result<()> {
    for &agents in sizes {
        let lab = mesh()?;
        let bare = bare(&lab, agents).await?;
        drop(lab);
        for (transport, name, memory) in [
            ("quic", "QUIC", "<= 30 KiB"),
            ("websocket", "WebSocket", "<= 32 KiB"),
        ] {
            let broker = broker(&mesh()?, transport, agents)?;
            for figure in figures(memory) {
                let size = format_args!("{agents} over {name}");
                row::compare(table, size, figure, broker, bare);
            }
        }
    }
    Ok(())
}

fn mesh() -> Result<Lab> {
    let builder = Lab::builder().controller(CONTROLLER);
    builder.start().context("cannot start a mesh")
}

fn broker(lab: &Lab, transport: &str, agents: usize) -> Result<Cost> {
    let pid = lab.pid("primary").context("the primary does not run")?;
    // Certificates are made before, so that they are not counted.
    let names: Vec<_> = (1..=agents)
        .map(|number| format!("load-{number}"))
        .collect();
    lab.site().ca().issue_missing(&names)?;
    let before = (resident(pid)?, cpu_seconds(pid)?);
    let start = Instant::now();
    let fleet = Fleet::start_over(
        transport,
        lab.dir(),
        &[lab.broker_primary().to_owned()],
        agents,
    )?;
    let wanted = u64::try_from(agents)?;
    wait_until("the fleet is connected", DEADLINE, || {
        match fleet.counts().connected {
            connected if connected == wanted => Ok(()),
            connected => Err(fleet.ended().unwrap_or_else(|| format!("{connected} are"))),
        }
    })?;
    let wall = start.elapsed();
    let after = (resident(pid)?, cpu_seconds(pid)?);
    let mut asker = Asker::start(lab.dir(), lab.broker_primary(), CONTROLLER, agents)?;
    let mut best = f64::INFINITY;
    // The first round opens the controller's session, too.
    for _ in 0..4 {
        best = best.min(asker.ask()?.seconds);
    }
    asker.end();
    fleet.end();
    Ok(cost(agents, before, after, wall, best))
}

async fn bare(lab: &Lab, agents: usize) -> Result<Cost> {
    let mut server = Server::start(lab)?;
    let tasks = daemon::Tasks::new();
    let mut clients = Clients::new(&server, &identity(lab, CONTROLLER)?.get())?;
    let pid = server.pid();
    let before = (resident(pid)?, cpu_seconds(pid)?);
    let start = Instant::now();
    clients.connect(agents, &tasks).await?;
    let wall = start.elapsed();
    let after = (resident(pid)?, cpu_seconds(pid)?);
    let mut best = f64::INFINITY;
    for _ in 0..4 {
        best = best.min(tokio::task::block_in_place(|| server.fan_out())?);
    }
    tasks.shutdown(Duration::from_secs(5)).await;
    drop(clients);
    server.end()?;
    if best.is_infinite() {
        bail!("the baseline has measured nothing");
    }
    Ok(cost(agents, before, after, wall, best))
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn cost(
    agents: usize,
    before: (u64, f64),
    after: (u64, f64),
    wall: Duration,
    fan_out: f64,
) -> Cost {
    let agents = agents as f64;
    Cost {
        memory: after.0.saturating_sub(before.0) as f64 / agents,
        handshake: (after.1 - before.1) * 1000.0 / agents,
        rate: agents / wall.as_secs_f64(),
        fan_out,
    }
}
