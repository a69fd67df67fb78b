//! The program `pxp-agent`: arguments, configuration, run, exit code.

mod arguments;
mod commands;

use std::process::ExitCode as ProcessCode;

use anyhow::Context;
use arguments::{Arguments, Command};
use daemon::Threads;
use pxp_agent::config::{Config, defaults};
use pxp_agent::exit::ExitCode;

fn main() -> ProcessCode {
    let arguments = match Arguments::parse() {
        Ok(arguments) => arguments,
        Err(code) => return code.into(),
    };
    match run(arguments) {
        Ok(code) => code,
        #[expect(clippy::print_stderr, reason = "logging may not have begun")]
        Err(error) => {
            eprintln!("pxp-agent: {error:#}");
            ExitCode::Failure.into()
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ProcessCode> {
    // What it needs of the configuration, the agent that starts it has read.
    if let Some(Command::Module { module, action }) = &arguments.command {
        return commands::module::run(module, action);
    }
    serve(arguments).map(Into::into)
}

fn serve(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let path = match arguments.config {
        Some(path) => path,
        None => defaults::config_file().context("cannot find the configuration file")?,
    };
    let config = match Config::read(&path, &arguments.given) {
        Ok(config) => config,
        Err(refused) => {
            // Its code is the other daemons'; ours is the original's.
            let _of_daemons = daemon::config::refuse(&refused.faults);
            return Ok(refused.code);
        }
    };
    match arguments.command {
        Some(Command::CheckConfig) => Ok(commands::check_config::run(&config)),
        Some(Command::Doctor) => {
            let runtime = daemon::runtime(Threads::Current).context("cannot start")?;
            Ok(runtime.block_on(commands::doctor::run(&config)))
        }
        Some(Command::Transactions(asked)) => commands::transactions::run(&config, &asked),
        Some(Command::Policy { command }) => commands::policy::run(&config, &command),
        Some(Command::Module { .. }) | None => {
            let logs = match daemon::logs::start(&config.log) {
                Ok(logs) => logs,
                #[expect(clippy::print_stderr, reason = "there is no log")]
                Err(error) => {
                    eprintln!("pxp-agent: {}", daemon::error_chain(&error));
                    return Ok(ExitCode::Config);
                }
            };
            let runtime = daemon::runtime(Threads::Current).context("cannot start")?;
            Ok(runtime.block_on(pxp_agent::serve(&config, &logs)))
        }
    }
}
