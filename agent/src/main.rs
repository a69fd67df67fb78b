//! The program `pxp-agent`: arguments, configuration, run, exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use daemon::Threads;
use pxp_agent::config::{Config, defaults};

/// Takes requests from the orchestrator over a PCP broker and runs them on this node.
#[derive(Debug, Parser)]
#[command(version = daemon::VERSION)]
struct Arguments {
    /// The configuration file, or a directory of *.conf files.
    #[arg(long, alias = "config-file", value_name = "PATH", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration, print what it means, and exit.
    CheckConfig,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => code.into(),
        #[expect(clippy::print_stderr, reason = "logging may not have begun")]
        Err(error) => {
            eprintln!("pxp-agent: {error:#}");
            daemon::ExitCode::Failure.into()
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<daemon::ExitCode> {
    let path = match arguments.config {
        Some(path) => path,
        None => defaults::config_file().context("cannot find the configuration file")?,
    };
    let config = match Config::load(&path) {
        Ok(config) => config,
        Err(faults) => return Ok(daemon::config::refuse(&faults)),
    };
    if let Some(Command::CheckConfig) = arguments.command {
        return Ok(check(&config));
    }
    daemon::logs::start(&config.log)?;
    let runtime = daemon::runtime(Threads::Current).context("cannot start")?;
    Ok(runtime.block_on(pxp_agent::serve(&config)))
}

/// Says what the configuration means, and whether its certificates can be used.
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what the command is for"
)]
fn check(config: &Config) -> daemon::ExitCode {
    print!("{config}");
    match identity::Identity::load(&config.tls) {
        Ok(_) => daemon::ExitCode::Ok,
        Err(error) => {
            eprintln!("pxp-agent: {}", daemon::error_chain(&error));
            daemon::ExitCode::Config
        }
    }
}
