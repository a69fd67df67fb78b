//! A process full of simulated agents (`fleet agents`), or one controller that asks them
//! (`fleet ping`). Made for `lab load`, which reads one JSON line after the other from it; it ends
//! when its standard input does, so that it never outlives who started it.

use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use fleet::controller::Controller;
use fleet::{Counts, Fleet, certname, identity, limits};
use lab_ca::CertificateAuthority;
use pcp::{Certname, ClientType};
use pcp_client::{BrokerAddress, Ways};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

/// How often the counters are told.
const REPORT: Duration = Duration::from_millis(100);

/// How long sessions have at the end to say goodbye.
const GOODBYE: Duration = Duration::from_secs(10);

/// Simulated agents, or the controller that asks them.
#[derive(Debug, Parser)]
#[command(name = "fleet", version)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Hold sessions as agents, until standard input ends.
    Agents(Agents),
    /// Ask every agent once for each line on standard input; say how that went.
    Ping(Ping),
}

#[derive(Debug, Args)]
struct Common {
    /// The directory of the lab whose CA has issued the certificates.
    #[arg(long)]
    dir: PathBuf,
    /// Where brokers listen.
    #[arg(long, value_delimiter = ',', required = true)]
    brokers: Vec<BrokerAddress>,
    /// The number of the first agent.
    #[arg(long, default_value_t = 1)]
    first: usize,
    /// How many agents.
    #[arg(long)]
    agents: usize,
}

#[derive(Debug, Args)]
struct Agents {
    #[command(flatten)]
    common: Common,
    /// How they reach the brokers: auto, quic or websocket.
    #[arg(long, default_value = "auto")]
    transport: Ways,
}

#[derive(Debug, Args)]
struct Ping {
    #[command(flatten)]
    common: Common,
    /// The controller's certname.
    #[arg(long)]
    controller: String,
    /// How many seconds all may take to answer.
    #[arg(long, default_value_t = 120)]
    deadline: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = daemon::runtime(daemon::Threads::Multi(2)).context("cannot start a runtime")?;
    match arguments.command {
        Action::Agents(arguments) => runtime.block_on(agents(&arguments)),
        Action::Ping(ping) => runtime.block_on(pings(&ping)),
    }
}

async fn agents(arguments: &Agents) -> Result<()> {
    let common = &arguments.common;
    limits::allow_sockets(common.agents)?;
    let tasks = daemon::Tasks::new();
    let ca = CertificateAuthority::open(&common.dir)?;
    let numbers = common.first..common.first + common.agents;
    let fleet = Fleet::start(&ca, numbers, &common.brokers, arguments.transport, &tasks)?;
    let mut ticks = interval(REPORT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut told: Option<Counts> = None;
    let mut lines = standard_input();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let counts = fleet.counts();
                if told != Some(counts) {
                    tell(&counts)?;
                    told = Some(counts);
                }
            }
            line = lines.recv() => if line.is_none() { break },
        }
    }
    tasks.shutdown(GOODBYE).await;
    Ok(())
}

async fn pings(ping: &Ping) -> Result<()> {
    let common = &ping.common;
    let tasks = daemon::Tasks::new();
    let ca = CertificateAuthority::open(&common.dir)?;
    let numbers = common.first..common.first + common.agents;
    let agents: Vec<Certname> = numbers
        .map(|number| Certname::parse(&certname(number)))
        .collect::<Result<_, _>>()?;
    let mut controller = Controller::start(
        common.brokers.clone(),
        identity(&ca, &ping.controller)?,
        ClientType::parse("controller")?,
        &tasks,
    );
    let deadline = Duration::from_secs(ping.deadline);
    let mut lines = standard_input();
    while lines.recv().await.is_some() {
        tell(&controller.ping_all(&agents, deadline).await?)?;
    }
    tasks.shutdown(GOODBYE).await;
    Ok(())
}

/// A notice for each line of standard input, until its end. The thread ends with it, or with us.
fn standard_input() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() || sender.blocking_send(()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// One line for who started us.
fn tell(value: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(line.as_bytes())?;
    stdout.flush().context("nobody listens")
}
