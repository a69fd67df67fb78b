//! `lab`: a whole mesh on this machine, to look at and to play with.

mod load;
mod run;
mod signals;
mod up;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use lab::{Builder, Lab, Site};

/// A whole PXP mesh on this machine: a CA, a primary broker, compilers, agents and an orchestrator,
/// each a real process on 127.0.0.1.
#[derive(Debug, Parser)]
#[command(name = "lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start a mesh, run a task on all its nodes, show it, stop everything.
    Run(RunArguments),
    /// Start a mesh and keep it running until Ctrl-C; other shells get in by `. DIR/lab.env`.
    Up(UpArguments),
    /// Connect thousands of simulated agents, kill brokers under them, and print what that takes.
    Load(load::LoadArguments),
    /// Start a process of a running lab again that has ended or was killed.
    Restart {
        /// The directory of the running lab.
        #[arg(long)]
        dir: PathBuf,
        /// The process: primary, compiler-1, orchestrator, agent-1 …
        name: String,
    },
    /// Issue one more certificate from the lab's CA.
    Cert {
        /// The directory of the lab, running or not.
        #[arg(long)]
        dir: PathBuf,
        /// The certname.
        name: String,
        /// A DNS name or IP address the certificate is also for; without any it has a CN only.
        #[arg(long)]
        san: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct RunArguments {
    #[command(flatten)]
    mesh: Mesh,
    /// Keep everything in this directory; without it, in a temporary one that is removed.
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct UpArguments {
    #[command(flatten)]
    mesh: Mesh,
    /// Where everything lies; an earlier lab of the same directory is continued.
    #[arg(long)]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct Mesh {
    /// How many compilers stand between agents and primary.
    #[arg(long, default_value_t = 2)]
    compilers: usize,
    /// How many agents.
    #[arg(long, default_value_t = 5)]
    agents: usize,
    /// A directory of Puppet modules (may be repeated) [default: the lab's sample modules].
    #[arg(long, value_name = "DIR")]
    modulepath: Vec<PathBuf>,
    /// A directory with files KIND.conf or NAME.conf, laid over the processes' configuration; KIND
    /// is pcp-broker, pxp-agent or orchestrator.
    #[arg(long, value_name = "DIR")]
    config_dir: Option<PathBuf>,
}

impl Mesh {
    fn builder(&self) -> Builder {
        let mut builder = Lab::builder()
            .compilers(self.compilers)
            .agents(self.agents)
            .progress(say);
        for dir in &self.modulepath {
            builder = builder.modulepath(dir);
        }
        if let Some(dir) = &self.config_dir {
            builder = builder.config_dir(dir);
        }
        builder
    }
}

fn main() -> ExitCode {
    match act(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "this is a command line")]
            {
                eprintln!("lab: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn act(action: Action) -> Result<ExitCode> {
    match action {
        Action::Run(arguments) => run::run(&arguments),
        Action::Up(arguments) => up::up(&arguments),
        Action::Load(arguments) => load::load(&arguments),
        Action::Restart { dir, name } => {
            lab::control::restart(&dir, &name)?;
            say(&format!("{name} is ready"));
            Ok(ExitCode::SUCCESS)
        }
        Action::Cert { dir, name, san } => {
            let ssl = Site::open(&dir)?.issue(&name, &san)?;
            for (what, path) in [
                ("cert", ssl.cert()),
                ("key", ssl.key()),
                ("ca", ssl.ca()),
                ("crl", ssl.crl()),
            ] {
                say(&format!("{what:<4} {}", path.display()));
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What an ordinary user's lab cannot show, said at its start.
fn say_what_is_missing() {
    if !nix::unistd::Uid::effective().is_root() {
        say("note           you are not root: tasks run as you, in user namespaces; tasks that");
        say("               manage the host (packages, services) and cgroup limits need root");
    }
}

/// One line for the user, who may have stopped listening: the mesh goes on all the same.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let written = if stdout.is_terminal() {
        writeln!(stdout, "\u{1b}[2m{line}\u{1b}[0m")
    } else {
        writeln!(stdout, "{line}")
    };
    written.and_then(|()| stdout.flush()).unwrap_or_default();
}
