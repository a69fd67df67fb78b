//! `lab load`: how the mesh carries a fleet. Thousands of simulated agents hold sessions through the
//! compilers; all are asked through the primary; brokers are killed and started again; all are asked
//! once more. What that took is printed: time, attempts, and each broker's peak memory.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::Args;
use lab::generator::{Asker, Counts, Fleet};
use lab::{Lab, wait_until};

use crate::{say, signals};

/// The certname of the controller that asks.
const CONTROLLER: &str = "load-controller";

/// How long all sessions may take: several times the worst that two busy cores have shown.
const CONNECT_DEADLINE: Duration = Duration::from_secs(600);

/// How often the fleet is looked at while it comes back; it tells its numbers no oftener.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(crate) struct LoadArguments {
    /// How many simulated agents.
    #[arg(long, default_value_t = 10_000)]
    agents: usize,
    /// How many compilers stand between them and the primary.
    #[arg(long, default_value_t = 2)]
    compilers: usize,
    /// A broker to kill and start again while they are connected: primary, compiler-1 … (may be
    /// repeated) [default: primary, then compiler-1].
    #[arg(long, value_name = "NAME")]
    kill: Vec<String>,
    /// Keep the fleet connected until Ctrl-C, for other shells to use.
    #[arg(long)]
    hold: bool,
    /// Keep everything in this directory; without it, in a temporary one that is removed.
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub(crate) fn load(arguments: &LoadArguments) -> Result<ExitCode> {
    ensure!(arguments.agents > 0, "a fleet has at least one agent");
    lab::build()?;
    let interrupted = signals::watch()?.any;
    let mut builder = Lab::builder()
        .compilers(arguments.compilers)
        .controller(CONTROLLER)
        .interrupted(interrupted.clone())
        .progress(say);
    if let Some(dir) = &arguments.dir {
        builder = builder.dir(dir);
    }
    let lab = builder.start()?;
    let brokers = match lab.broker_compilers() {
        [] => vec![lab.broker_primary().to_owned()],
        compilers => compilers.to_vec(),
    };
    let fleet = Fleet::start(lab.dir(), &brokers, arguments.agents)?;
    let mut asker = Asker::start(
        lab.dir(),
        lab.broker_primary(),
        CONTROLLER,
        arguments.agents,
    )?;
    let stop = || interrupted.load(Ordering::Relaxed);
    let seconds = connected(&fleet, arguments.agents, &stop)?;
    let counts = fleet.counts();
    say(&format!(
        "connected      {} agents through {} brokers in {seconds:.1} s; {} attempts led nowhere",
        arguments.agents,
        brokers.len(),
        counts.failed
    ));
    let round = asker.ask()?;
    say(&format!(
        "addressed      all {} answered a ping in {:.2} s; {} asked again",
        round.answered, round.seconds, round.asked_again
    ));
    memory(&lab, arguments.agents)?;

    let mut kill = arguments.kill.clone();
    if kill.is_empty() {
        kill.push("primary".to_owned());
        kill.extend((arguments.compilers > 0).then(|| "compiler-1".to_owned()));
    }
    for name in &kill {
        outage(&lab, name, &fleet, &mut asker, arguments.agents, &stop)?;
    }
    if arguments.hold {
        say(&format!(
            "holding        . {}; $LAB_BIN/puppet-task show; Ctrl-C ends it",
            lab.dir().join(lab::ENVIRONMENT_FILE).display()
        ));
        while !stop() {
            thread::park_timeout(Duration::from_millis(200));
        }
    }
    asker.end();
    fleet.end();
    lab.shut_down();
    say("all stopped");
    Ok(ExitCode::SUCCESS)
}

/// Kills a broker, starts it again, and waits until all agents are back and have answered.
fn outage(
    lab: &Lab,
    name: &str,
    fleet: &Fleet,
    asker: &mut Asker,
    agents: usize,
    stop: &dyn Fn() -> bool,
) -> Result<()> {
    let before = fleet.counts();
    let begun = Instant::now();
    lab.kill(name)?;
    lab.restart(name)?;
    let ready = begun.elapsed().as_secs_f64();
    say(&format!(
        "killed         {name}; ready again after {ready:.2} s"
    ));
    let wanted = u64::try_from(agents)?;
    let mut all = Duration::ZERO;
    // Asking comes in rounds, and takes until the next one when the last agent is back: so look meanwhile.
    let round = thread::scope(|scope| {
        let asking = scope.spawn(|| asker.ask());
        while !asking.is_finished() {
            if fleet.counts().connected < wanted {
                all = begun.elapsed();
            }
            thread::park_timeout(LOOK);
        }
        asking.join()
    });
    let round = round.map_err(|_| anyhow!("the asking thread has panicked"))??;
    let addressed = begun.elapsed().as_secs_f64();
    if fleet.counts().connected < wanted {
        connected(fleet, agents, stop)?;
        all = begun.elapsed();
    }
    let after = fleet.counts();
    say(&format!(
        "back           all {} answered {addressed:.1} s after the kill and were connected after \
         {:.1} s; {} new sessions, {} attempts led nowhere, {} asked again",
        round.answered,
        all.as_secs_f64(),
        after.opened - before.opened,
        after.failed - before.failed,
        round.asked_again
    ));
    memory(lab, agents)
}

/// Waits until every agent has a session; gives how long that took in seconds.
fn connected(fleet: &Fleet, agents: usize, stop: &dyn Fn() -> bool) -> Result<f64> {
    let begun = Instant::now();
    let wanted = u64::try_from(agents)?;
    let outcome = wait_until("all agents are connected", CONNECT_DEADLINE, || {
        if stop() {
            return Ok(Err("interrupted".to_owned()));
        }
        if let Some(end) = fleet.ended() {
            return Ok(Err(end));
        }
        match fleet.counts() {
            Counts { connected, .. } if connected == wanted => Ok(Ok(())),
            counts => Err(format!("{counts:?}")),
        }
    })?;
    match outcome {
        Ok(()) => Ok(begun.elapsed().as_secs_f64()),
        Err(reason) => bail!("{reason}"),
    }
}

/// Prints what each broker has used at most since it was started.
fn memory(lab: &Lab, agents: usize) -> Result<()> {
    let brokers = lab.names();
    let brokers = brokers
        .iter()
        .filter(|name| *name == "primary" || name.starts_with("compiler-"));
    let mut line = String::from("peak memory   ");
    for name in brokers {
        let pid = lab.pid(name).with_context(|| format!("{name} has died"))?;
        let kib = peak(pid)?;
        line.push_str(&format!(" {name} {:.1} MiB", kib / 1024.0));
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let thousands = agents as f64 / 1000.0;
    line.push_str(&format!("  ({thousands:.1} thousand agents)"));
    say(&line);
    Ok(())
}

/// The most resident memory that a process has had, in KiB (`VmHWM`).
fn peak(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no VmHWM line")?.parse()?)
}
