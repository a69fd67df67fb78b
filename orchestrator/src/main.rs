//! `pxp-orchestrator`: arguments, configuration, and how the process begins and ends.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use daemon::{ExitCode, Signal, Signals, Tasks, Threads};
use identity::Current;
use orchestrator::admin::{self, RoleCommand, UserCommand};
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
    /// Look at everything that the orchestrator needs, and say what is wrong and what to do.
    Doctor,
    /// Make a token for a login and print it. It is shown this once.
    CreateToken {
        /// Who the token stands for.
        login: String,
        /// How long it is valid, such as 30m, 1h or 365d.
        #[arg(long, default_value = "1h", value_parser = daemon::config::duration)]
        lifetime: Duration,
    },
    /// Users: who may log in, and which roles they have.
    #[command(subcommand)]
    User(UserCommand),
    /// Roles: what users may do.
    #[command(subcommand)]
    Role(RoleCommand),
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
        Some(Command::Doctor) => doctor(&config),
        Some(Command::CreateToken { login, lifetime }) => create_token(&config, &login, lifetime),
        Some(Command::User(command)) => user(&config, command),
        Some(Command::Role(command)) => role(&config, command),
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
    for note in &config.notes {
        complain(&note.to_string());
    }
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

/// Prints what was found; ends with 1 if something does not work.
fn doctor(config: &Config) -> anyhow::Result<ExitCode> {
    let runtime = daemon::runtime(Threads::Current)?;
    let findings = runtime.block_on(orchestrator::doctor::examine(config));
    let mut text = Vec::new();
    findings.print(&mut text)?;
    print(&String::from_utf8_lossy(&text));
    Ok(findings.exit_code())
}

fn create_token(config: &Config, login: &str, lifetime: Duration) -> anyhow::Result<ExitCode> {
    let runtime = daemon::runtime(Threads::Current)?;
    let token = runtime.block_on(orchestrator::create_token(config, login, lifetime))?;
    print(&format!("{token}\n"));
    Ok(ExitCode::Ok)
}

fn user(config: &Config, command: UserCommand) -> anyhow::Result<ExitCode> {
    let password = match command.wants_password() {
        Some(login) => Some(password(login)?),
        None => None,
    };
    let runtime = daemon::runtime(Threads::Current)?;
    print(&runtime.block_on(admin::user(config, command, password))?);
    Ok(ExitCode::Ok)
}

fn role(config: &Config, command: RoleCommand) -> anyhow::Result<ExitCode> {
    let runtime = daemon::runtime(Threads::Current)?;
    print(&runtime.block_on(admin::role(config, command))?);
    Ok(ExitCode::Ok)
}

/// Asks for a new password twice on a terminal; else the first line of standard input is it.
fn password(login: &str) -> anyhow::Result<String> {
    if !std::io::stdin().is_terminal() {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        return Ok(line.trim_end_matches(['\n', '\r']).to_owned());
    }
    let first = rpassword::prompt_password(format!("New password for {login}: "))?;
    let second = rpassword::prompt_password("The same again: ")?;
    anyhow::ensure!(first == second, "the two passwords differ");
    Ok(first)
}

fn serve(config: Config, path: &std::path::Path) -> anyhow::Result<ExitCode> {
    daemon::logs::start(&config.log)?;
    for note in &config.notes {
        tracing::warn!(%note, "in the configuration");
    }
    tracing::info!(version = daemon::VERSION, config = %path.display(), "starting");
    let runtime = daemon::runtime(Threads::Multi(WORKERS))?;
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let tasks = Tasks::new();
        let bound = Bound::new(config).await?;
        let address = bound.address();
        let identity = bound.identity();
        bound.start(&tasks).await?;
        daemon::watchdog(&tasks);
        tracing::info!(%address, "listening");
        daemon::ready();
        let code = wait(&mut signals, &tasks, &identity).await;
        daemon::stopping();
        if !tasks.shutdown(SHUTDOWN).await {
            tracing::warn!("some tasks did not end in time");
        }
        tracing::info!("stopped");
        Ok(code)
    })
}

/// Waits until the process is to end, because it was asked to or because it cannot go on.
async fn wait(signals: &mut Signals, tasks: &Tasks, identity: &Current) -> ExitCode {
    let failed = tasks.shutdown_token();
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Terminate | Signal::Interrupt => return ExitCode::Ok,
                Signal::Hangup => identity.check_soon(),
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
