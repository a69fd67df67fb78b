//! The command line of PXP Mesh: `puppet-task`, `puppet-job` and `puppet-access`, which
//! `puppet task …` and so on find on the PATH. Three thin binaries call [`main`].
//!
//! It reads what a person wants, asks the orchestrator, and shows what happens: on a terminal with a
//! progress bar, plain when piped, as one JSON document on request. The exit code tells the truth:
//! 0 only when every node succeeded.

mod access;
mod arguments;
mod client;
mod config;
mod document;
mod error;
mod exit;
mod follow;
mod generate;
mod interrupt;
mod job;
mod output;
mod params;
mod printable;
mod render;
mod run;
mod screen;
mod show;
mod targets;
mod task;
mod tell;
mod why;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use arguments::Format;
use arguments::access::{AccessArguments, AccessCommand};
use arguments::job::{JobArguments, JobCommand};
use arguments::task::{TaskArguments, TaskCommand};
use error::Failure;
use exit::Exit;

/// Which of the three is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// `puppet-task`.
    Task,
    /// `puppet-job`.
    Job,
    /// `puppet-access`.
    Access,
}

/// What is to be done.
#[derive(Debug)]
enum Command {
    Task(TaskCommand),
    Job(JobCommand),
    Access(AccessCommand),
}

/// Does what the arguments of the process ask for.
#[must_use]
pub fn main(tool: Tool) -> ExitCode {
    if let Some(dir) = generate::wanted(std::env::args_os()) {
        let command = match tool {
            Tool::Task => TaskArguments::command(),
            Tool::Job => JobArguments::command(),
            Tool::Access => AccessArguments::command(),
        };
        return end(generate::write(command, &dir), Format::Human);
    }
    // clap prints usage errors itself and exits with 2.
    let command = match tool {
        Tool::Task => Command::Task(TaskArguments::parse().command),
        Tool::Job => Command::Job(JobArguments::parse().command),
        Tool::Access => Command::Access(AccessArguments::parse().command),
    };
    let format = match &command {
        Command::Task(command) => command.common().format,
        Command::Job(command) => command.common().format,
        Command::Access(command) => command.format(),
    };
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)
        .and_then(|runtime| runtime.block_on(execute(command)));
    end(outcome, format)
}

fn end(outcome: Result<Exit, Failure>, format: Format) -> ExitCode {
    let exit = outcome.unwrap_or_else(|failure| {
        report(&failure, format);
        failure.exit()
    });
    ExitCode::from(exit)
}

async fn execute(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Task(TaskCommand::Run(arguments)) => task::run(arguments).await,
        Command::Task(TaskCommand::Show(arguments)) => show::show(&arguments).await,
        Command::Task(TaskCommand::Why(arguments)) => why::why(&arguments).await,
        Command::Job(JobCommand::Run(arguments)) => job::run(arguments).await,
        Command::Job(JobCommand::Rerun(arguments)) => job::rerun(arguments).await,
        Command::Job(JobCommand::Show(arguments)) => job::show(&arguments).await,
        Command::Job(JobCommand::List(arguments)) => job::list(&arguments).await,
        Command::Job(JobCommand::Watch(arguments)) => job::watch(arguments).await,
        Command::Job(JobCommand::Stop(arguments)) => job::stop(&arguments).await,
        Command::Access(command) => access::access(command).await,
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
