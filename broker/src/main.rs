//! `pcp-broker`: arguments, configuration, build, run, exit code.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Parser, Subcommand};
use daemon::config::refuse;
use daemon::logs::{LogFileHandle, Logs};
use daemon::{ExitCode, Signal, Signals, Threads};
use identity::Current;
use jiff::Timestamp;
use pcp::{MessageType, Target, Uri};
use pcp_broker::authorize::rules::Pattern;
use pcp_broker::config::Config;
use pcp_broker::operator::{self, AskError, Filter};
use pcp_broker::{Broker, BuildError};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

/// The threads of the runtime: one can take packets from the kernel while the other routes.
const THREADS: Threads = Threads::Multi(2);

/// A PCP broker: routes messages between orchestrators and agents.
#[derive(Debug, Parser)]
#[command(version = daemon::VERSION)]
struct Args {
    /// The configuration: a file, or a directory whose *.conf files are read in order. Without it, the
    /// first of /etc/puppetlabs/pcp-broker/conf.d and Puppet Server's own
    /// /etc/puppetlabs/puppetserver/conf.d that is there.
    #[arg(long)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Check configuration and certificates, print what is in effect, and exit.
    CheckConfig,
    /// Look at everything that a broker needs, and say what is wrong and what to do; exits with 1 when
    /// something is. A running broker is not disturbed.
    Doctor,
    /// Show who is connected to the running broker, since when, and what waits for them. Uses the
    /// broker's own certificate.
    #[command(after_help = "Example:\n  pcp-broker connections --certname 'web*' --type agent")]
    Connections(Show),
    /// Show which clients the running broker knows, and where each is connected. Uses the broker's own
    /// certificate.
    Inventory(Show),
    /// Say whether a message would pass, and by which rule; exits with 1 if it would not.
    #[command(
        after_help = "Example:\n  pcp-broker explain --sender pcp://web1/agent \
        --message-type rpc_blocking_request --target pcp://db1/agent"
    )]
    Explain {
        /// The sender's address: pcp://CERTNAME/CLIENT-TYPE.
        #[arg(long)]
        sender: Uri,
        /// The message type: with or without http://puppetlabs.com/ before it.
        #[arg(long)]
        message_type: String,
        /// The target's address; the broker itself when left out.
        #[arg(long)]
        target: Option<Uri>,
    },
}

/// Which rows, and how.
#[derive(Debug, Clone, clap::Args)]
struct Show {
    /// Only these certnames: a name, a name with *, or a regular expression between slashes.
    #[arg(long)]
    certname: Option<Pattern>,
    /// Only this client type, such as agent.
    #[arg(long = "type")]
    client_type: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Where the configuration is looked for: a folder of our own, and where the original's section stands
/// beside Puppet Server's.
const FOLDERS: [&str; 2] = [
    "/etc/puppetlabs/pcp-broker/conf.d",
    "/etc/puppetlabs/puppetserver/conf.d",
];

fn main() -> std::process::ExitCode {
    run(&Args::parse()).into()
}

fn run(args: &Args) -> ExitCode {
    let folder = args.config.clone();
    let folder = folder.unwrap_or_else(|| daemon::config::first_of(&FOLDERS));
    let config = match Config::load(&folder) {
        Ok(config) => config,
        Err(faults) => return refuse(&faults),
    };
    match &args.command {
        Some(Command::CheckConfig) => return check(&folder, &config),
        Some(Command::Doctor) => return doctor(&config),
        Some(Command::Connections(show)) => {
            let asked = operator::connections(&config);
            return shown(show, asked, |row| &row.uri, operator::print_connections);
        }
        Some(Command::Inventory(show)) => {
            let asked = operator::inventory(&config);
            return shown(show, asked, |row| &row.uri, operator::print_inventory);
        }
        Some(Command::Explain {
            sender,
            message_type,
            target,
        }) => return explain(&config, sender, message_type, target.as_ref()),
        None => {}
    }
    let logs = match daemon::logs::start(&config.log) {
        Ok(logs) => logs,
        Err(error) => return fail(ExitCode::Config, &error),
    };
    for note in &config.notes {
        tracing::warn!(%note, "written in the configuration, without the effect it may seem to have");
    }
    let runtime = match daemon::runtime(THREADS) {
        Ok(runtime) => runtime,
        Err(error) => return fail(ExitCode::Failure, &error),
    };
    let broker = match Broker::build(config) {
        Ok(broker) => broker,
        Err(error @ (BuildError::Identity(_) | BuildError::AccessLog { .. })) => {
            return fail(ExitCode::Config, &error);
        }
        Err(error @ BuildError::Listen(_)) => return fail(ExitCode::Failure, &error),
    };
    let stop = stop_signal(broker.identity(), logs, broker.access_log());
    match runtime.block_on(broker.run(stop)) {
        Ok(()) => ExitCode::Ok,
        Err(error) => fail(ExitCode::Failure, &error),
    }
}

/// Ends with the first signal that means so.
async fn stop_signal(identity: Arc<Current>, logs: Logs, access_log: Option<LogFileHandle>) {
    let listened = Signals::listen().and_then(|signals| {
        let rotated = signal(SignalKind::user_defined2())?;
        Ok((signals, rotated))
    });
    let (mut signals, mut rotated) = match listened {
        Ok(listened) => listened,
        Err(error) => {
            tracing::warn!(%error, "cannot listen for signals: they end the process at once");
            return std::future::pending().await;
        }
    };
    loop {
        tokio::select! {
            biased;
            signal = signals.next() => match signal {
                Signal::Hangup => {
                    tracing::info!("SIGHUP: reading certificates and revocation lists again");
                    identity.check_soon();
                }
                Signal::Terminate | Signal::Interrupt => return,
            },
            _ = rotated.recv() => reopen(&logs, access_log.as_ref()),
        }
    }
}

/// SIGUSR2: whoever rotates logs has moved the files away.
fn reopen(logs: &Logs, access_log: Option<&LogFileHandle>) {
    let access_log = || access_log.map_or(Ok(()), LogFileHandle::reopen);
    match logs.reopen().and_then(|()| access_log()) {
        Ok(()) => tracing::info!("SIGUSR2: log files opened anew"),
        Err(error) => tracing::error!(%error, "SIGUSR2: a log file cannot be opened anew"),
    }
}

fn doctor(config: &Config) -> ExitCode {
    let runtime = match daemon::runtime(Threads::Current) {
        Ok(runtime) => runtime,
        Err(error) => return fail(ExitCode::Failure, &error),
    };
    let findings = runtime.block_on(pcp_broker::doctor::examine(config));
    match findings.print(&mut std::io::stdout()) {
        Ok(()) => findings.exit_code(),
        Err(error) => fail(ExitCode::Failure, &error),
    }
}

/// Asks the running broker, and prints the rows that are wanted.
fn shown<T: Serialize>(
    show: &Show,
    asked: impl Future<Output = Result<Vec<T>, AskError>>,
    uri: impl Fn(&T) -> &str,
    table: impl Fn(&[T], Timestamp) -> String,
) -> ExitCode {
    let runtime = match daemon::runtime(Threads::Current) {
        Ok(runtime) => runtime,
        Err(error) => return fail(ExitCode::Failure, &error),
    };
    let mut rows = match runtime.block_on(asked) {
        Ok(rows) => rows,
        Err(error) => return fail(ExitCode::Failure, &error),
    };
    let filter = Filter {
        certname: show.certname.clone(),
        client_type: show.client_type.clone(),
    };
    rows.retain(|row| filter.wants(uri(row)));
    let text = if show.json {
        match serde_json::to_string_pretty(&rows) {
            Ok(text) => text + "\n",
            Err(error) => return fail(ExitCode::Failure, &error),
        }
    } else {
        table(&rows, Timestamp::now())
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads only the first lines is right to do so.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => fail(ExitCode::Failure, &error),
        _ => ExitCode::Ok,
    }
}

fn explain(config: &Config, sender: &Uri, message_type: &str, target: Option<&Uri>) -> ExitCode {
    let full = if message_type.contains("://") {
        message_type.to_owned()
    } else {
        format!("http://puppetlabs.com/{message_type}")
    };
    let message_type = match MessageType::parse(&full) {
        Ok(message_type) => message_type,
        Err(error) => return fail(ExitCode::Usage, &error),
    };
    let target = target.map_or(Target::Broker, |uri| Target::Client(uri.clone()));
    let explanation = pcp_broker::explain::explain(config, sender, &message_type, &target);
    if let Err(error) = writeln!(std::io::stdout(), "{}", explanation.lines.join("\n")) {
        return fail(ExitCode::Failure, &error);
    }
    if explanation.passes {
        ExitCode::Ok
    } else {
        ExitCode::Failure
    }
}

fn check(folder: &Path, config: &Config) -> ExitCode {
    let read = daemon::config::files(folder).unwrap_or_default();
    let read = read
        .iter()
        .map(|file| format!("# read: {}\n", file.display()));
    let notes = config.notes.iter();
    let notes = notes.map(|note| format!("# note: {note}\n"));
    let head: String = read.chain(notes).collect();
    if let Err(error) = writeln!(std::io::stdout(), "{head}{config}") {
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
