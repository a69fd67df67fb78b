//! `pxp-agent module MODULE ACTION`: the part of an action that runs below the execution wrapper, apart
//! from the agent, and outlives it.

use std::io;
use std::process::ExitCode as ProcessCode;

use anyhow::{Context, bail};
use pxp_agent::exit::ExitCode;
use pxp_agent::modules::{external, file, puppet};

/// Does it. What comes to no result is told in one line on standard error, and gives nothing on standard
/// output.
pub(crate) fn run(module: &str, action: &str) -> anyhow::Result<ProcessCode> {
    match (module, action) {
        (file::MODULE, file::ACTION) => {
            let put = file::put::run(io::stdin().lock(), io::stdout().lock());
            Ok(told(put.map(|()| 0)))
        }
        (external::MODULE, external::ACTION) => {
            let called = external::call::run(io::stdin().lock(), io::stdout().lock());
            Ok(told(called))
        }
        (puppet::MODULE, puppet::ACTION) => {
            let done = puppet::run::run(io::stdin().lock(), io::stdout().lock());
            let went_well = done.context("cannot write the result of the Puppet run")?;
            let code = if went_well {
                ExitCode::Ok
            } else {
                ExitCode::Failure
            };
            Ok(code.into())
        }
        _ => bail!("no action {action:?} of a module {module:?} runs in a process of its own"),
    }
}

#[expect(clippy::print_stderr, reason = "the agent reads it there")]
fn told<E: std::error::Error>(done: Result<u8, E>) -> ProcessCode {
    match done {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("{}", daemon::error_chain(&error));
            ExitCode::Failure.into()
        }
    }
}
