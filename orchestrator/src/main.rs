//! `pxp-orchestrator`: arguments, configuration, and how the process begins and ends.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use daemon::{ExitCode, Signal, Signals, Tasks, Threads};
use orchestrator::{Bound, Config, StartError};

/// How long open requests and the last write have when the process is asked to end.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// The API, the controller and the HTTP connections share these; the database has its own threads.
const WORKERS: usize = 2;

/// Runs tasks on the nodes of a Puppet estate and keeps what became of them.
#[derive(Debug, Parser)]
#[command(name = "pxp-orchestrator", version)]
struct Arguments {
    /// The configuration: a file, or a directory whose *.conf are read in the order of their names.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/etc/puppetlabs/orchestration-services/conf.d"
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration and print what is in effect.
    CheckConfig,
    /// Make a token for a login and print it. It is shown this once.
    CreateToken {
        /// Who the token stands for.
        login: String,
        /// How long it is valid, such as 30m, 1h or 365d.
        #[arg(long, default_value = "1h", value_parser = daemon::config::duration)]
        lifetime: Duration,
    },
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    run(arguments).into()
}

fn run(arguments: Arguments) -> ExitCode {
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(faults) => return daemon::config::refuse(&faults),
    };
    let result = match arguments.command {
        Some(Command::CheckConfig) => return check(&config),
        Some(Command::CreateToken { login, lifetime }) => create_token(&config, &login, lifetime),
        None => serve(config, &arguments.config),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("pxp-orchestrator: {error:#}"));
            match error.downcast_ref() {
                Some(StartError::Identity(_)) => ExitCode::Config,
                _ => ExitCode::Failure,
            }
        }
    }
}

/// Says what the configuration means, and whether its certificates can be used.
fn check(config: &Config) -> ExitCode {
    print(&config.to_string());
    match identity::Identity::load(&config.ssl) {
        Ok(_) => ExitCode::Ok,
        Err(error) => {
            complain(&format!(
                "pxp-orchestrator: {}",
                daemon::error_chain(&error)
            ));
            ExitCode::Config
        }
    }
}

fn create_token(config: &Config, login: &str, lifetime: Duration) -> anyhow::Result<ExitCode> {
    let runtime = daemon::runtime(Threads::Current)?;
    let token = runtime.block_on(orchestrator::create_token(config, login, lifetime))?;
    print(&format!("{token}\n"));
    Ok(ExitCode::Ok)
}

fn serve(config: Config, path: &std::path::Path) -> anyhow::Result<ExitCode> {
    daemon::logs::start(&config.log)?;
    tracing::info!(version = daemon::VERSION, config = %path.display(), "starting");
    let runtime = daemon::runtime(Threads::Multi(WORKERS))?;
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let tasks = Tasks::new();
        let bound = Bound::new(config).await?;
        let address = bound.address();
        bound.start(&tasks).await?;
        daemon::watchdog(&tasks);
        tracing::info!(%address, "listening");
        daemon::ready();
        let code = wait(&mut signals, &tasks).await;
        daemon::stopping();
        if !tasks.shutdown(SHUTDOWN).await {
            tracing::warn!("some tasks did not end in time");
        }
        tracing::info!("stopped");
        Ok(code)
    })
}

/// Waits until the process is to end, because it was asked to or because it cannot go on.
async fn wait(signals: &mut Signals, tasks: &Tasks) -> ExitCode {
    let failed = tasks.shutdown_token();
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Terminate | Signal::Interrupt => return ExitCode::Ok,
                Signal::Hangup => {
                    tracing::warn!("certificates are read at start only: restart to renew them");
                }
            },
            () = failed.cancelled() => return ExitCode::Failure,
        }
    }
}

#[expect(clippy::print_stdout, reason = "what the command was asked for")]
fn print(text: &str) {
    print!("{text}");
}

#[expect(
    clippy::print_stderr,
    reason = "the last words of a process that may have no log"
)]
fn complain(text: &str) {
    eprintln!("{text}");
}
