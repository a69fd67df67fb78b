//! `pcp-broker`: arguments, configuration, build, run, exit code.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use daemon::config::refuse;
use daemon::{ExitCode, Signal, Signals, Threads};
use pcp_broker::config::Config;
use pcp_broker::{Broker, BuildError};

/// The threads of the runtime: one can take packets from the kernel while the other routes.
const THREADS: Threads = Threads::Multi(2);

/// A PCP broker: routes messages between orchestrators and agents.
#[derive(Debug, Parser)]
#[command(version = daemon::VERSION)]
struct Args {
    /// The configuration: a file, or a directory whose *.conf files are read in order.
    #[arg(long, default_value = "/etc/puppetlabs/pcp-broker/conf.d")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Command {
    /// Check configuration and certificates, print what is in effect, and exit.
    CheckConfig,
}

fn main() -> std::process::ExitCode {
    run(&Args::parse()).into()
}

fn run(args: &Args) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(faults) => return refuse(&faults),
    };
    if let Some(Command::CheckConfig) = args.command {
        return check(&config);
    }
    if let Err(error) = daemon::logs::start(&config.log) {
        return fail(ExitCode::Config, &error);
    }
    let runtime = match daemon::runtime(THREADS) {
        Ok(runtime) => runtime,
        Err(error) => return fail(ExitCode::Failure, &error),
    };
    let broker = match Broker::build(config) {
        Ok(broker) => broker,
        Err(error @ BuildError::Identity(_)) => return fail(ExitCode::Config, &error),
        Err(error @ BuildError::Listen(_)) => return fail(ExitCode::Failure, &error),
    };
    match runtime.block_on(broker.run(stop_signal())) {
        Ok(()) => ExitCode::Ok,
        Err(error) => fail(ExitCode::Failure, &error),
    }
}

/// Ends with the first signal that means so.
async fn stop_signal() {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::warn!(%error, "cannot listen for signals: they end the process at once");
            return std::future::pending().await;
        }
    };
    while signals.next().await == Signal::Hangup {
        tracing::warn!("SIGHUP: certificates are read at the start only; restart instead");
    }
}

fn check(config: &Config) -> ExitCode {
    if let Err(error) = writeln!(std::io::stdout(), "{config}") {
        return fail(ExitCode::Failure, &error);
    }
    match identity::Identity::load(&config.files) {
        Ok(_) => ExitCode::Ok,
        Err(error) => fail(ExitCode::Config, &error),
    }
}

/// One line for a person, also when logging goes elsewhere or has not begun.
fn fail(code: ExitCode, error: &dyn std::error::Error) -> ExitCode {
    let line = daemon::error_chain(error);
    tracing::error!(error = %line, "pcp-broker cannot run");
    // Without standard error there is nobody to tell.
    drop(writeln!(std::io::stderr(), "pcp-broker: {line}"));
    code
}
