//! The command line of PXP Mesh: `puppet-task`, which `puppet task …` finds on the PATH.
//!
//! It reads what a person wants, asks the orchestrator, and shows what happens: on a terminal with a
//! progress bar, plain when piped, as one JSON document on request. The exit code tells the truth:
//! 0 only when every node succeeded.

mod arguments;
mod client;
mod config;
mod document;
mod error;
mod exit;
mod follow;
mod interrupt;
mod params;
mod printable;
mod render;
mod run;
mod screen;
mod show;
mod targets;

use std::process::ExitCode;

use clap::Parser as _;

use arguments::{Arguments, Command, Format};
use error::Failure;
use exit::Exit;

fn main() -> ExitCode {
    // clap prints usage errors itself and exits with 2.
    let arguments = Arguments::parse();
    let format = arguments.command.format();
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)
        .and_then(|runtime| runtime.block_on(execute(arguments.command)));
    let exit = outcome.unwrap_or_else(|failure| {
        report(&failure, format);
        failure.exit()
    });
    ExitCode::from(exit)
}

async fn execute(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Run(arguments) => run::run(arguments).await,
        Command::Show(arguments) => show::show(&arguments).await,
    }
}

/// The cause on standard error, and with `--format json` the error as the document on standard
/// output, where a program looks for it.
fn report(failure: &Failure, format: Format) {
    if format == Format::Json {
        screen::put(&document::error(failure));
    }
    screen::complain(&format!("Error: {}", error::chain(failure)));
    if let Some(step) = failure.next_step() {
        screen::complain(&step);
    }
}
