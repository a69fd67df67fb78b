//! `transactions`: what lies in the spool, whether an agent uses it or not.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use pxp::TransactionId;
use pxp_agent::config::Config;
use pxp_agent::exit::ExitCode;
use pxp_agent::spool::{Spool, SpoolError};
use pxp_agent::transaction::{Outcome, Stored};
use serde_json::{Value, json};

use super::Format;

/// Which of them.
#[derive(Debug, Args)]
pub(crate) struct Transactions {
    /// One transaction; all, if not said.
    id: Option<String>,
    /// human or json
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
pub(crate) fn run(config: &Config, asked: &Transactions) -> Result<ExitCode> {
    let spool = match Spool::look(&config.spool_dir) {
        Ok(spool) => spool,
        Err(error) => bail!("{}", daemon::error_chain(&error)),
    };
    match &asked.id {
        Some(id) => one(&spool, id, asked.format),
        None => all(&spool, asked.format),
    }
}

fn all(spool: &Spool, format: Format) -> Result<ExitCode> {
    let mut contents = spool.contents().context("the spool cannot be read")?;
    contents.transactions.sort_by_key(Stored::accepted);
    let unreadable = contents.unreadable.iter();
    let unreadable: Vec<_> = unreadable
        .map(|unreadable| told(&unreadable.error))
        .collect();
    let answer = match format {
        Format::Json => {
            let transactions: Vec<_> = contents.transactions.iter().map(object).collect();
            format!(
                "{}\n",
                json!({"transactions": transactions, "unreadable": unreadable})
            )
        }
        Format::Human => {
            let mut lines = String::new();
            for stored in &contents.transactions {
                let request = stored.request();
                let what = request
                    .subject
                    .clone()
                    .unwrap_or_else(|| format!("{} {}", request.module, request.action));
                // Writing to a string cannot fail.
                writeln!(
                    lines,
                    "{}  {:<8}  {:<12}  {:.0}  {what}  {}",
                    request.id,
                    state(stored),
                    ending(stored),
                    stored.accepted(),
                    request.requester.certname(),
                )
                .unwrap_or_default();
            }
            for line in unreadable {
                writeln!(lines, "unreadable: {line}").unwrap_or_default();
            }
            lines
        }
    };
    super::print(&answer);
    Ok(ExitCode::Ok)
}

fn one(spool: &Spool, id: &str, format: Format) -> Result<ExitCode> {
    let id = TransactionId::parse(id).context("no transaction has such an id")?;
    let stored = match spool.read(&id) {
        Ok(Some(stored)) => stored,
        Ok(None) => bail!("there is no transaction {id} in the spool"),
        Err(error) => bail!("{}", told(&error)),
    };
    let mut object = object(&stored);
    let directory = spool.directory(&id);
    if let Some(members) = object.as_object_mut() {
        members.insert(
            "directory".to_owned(),
            directory.display().to_string().into(),
        );
        members.insert("disk_bytes".to_owned(), spool.measure(&id).0.into());
    }
    super::print(&match format {
        Format::Json => format!("{object}\n"),
        Format::Human => {
            let members = object.as_object().into_iter().flatten();
            let lines = members
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| {
                    let value = value
                        .as_str()
                        .map_or_else(|| value.to_string(), str::to_owned);
                    format!("{key:<15}  {value}\n")
                });
            lines.collect()
        }
    });
    Ok(ExitCode::Ok)
}

fn told(error: &SpoolError) -> String {
    daemon::error_chain(error)
}

fn object(stored: &Stored) -> Value {
    let request = stored.request();
    let (exitcode, stdout, stderr, error) = match stored.outcome() {
        Some((Outcome::Ran(ran), _)) => (
            Some(ran.exitcode),
            Some(ran.stdout.bytes),
            Some(ran.stderr.bytes),
            None,
        ),
        Some((Outcome::Failed(error), _)) => (None, None, None, Some(error.clone())),
        None => (None, None, None, None),
    };
    json!({
        "transaction_id": request.id.as_str(),
        "state": state(stored),
        "requester": request.requester.to_string(),
        "module": request.module,
        "action": request.action,
        "task": request.subject,
        "request_digest": request.digest.to_string(),
        "start": stored.accepted().to_string(),
        "end": stored.outcome().map(|(_, ended)| ended.to_string()),
        "exitcode": exitcode,
        "stdout_bytes": stdout,
        "stderr_bytes": stderr,
        "execution_error": error,
    })
}

fn state(stored: &Stored) -> &'static str {
    match stored {
        Stored::Accepted(_) => "accepted",
        Stored::Running(_) => "running",
        Stored::Finished(_) => "finished",
        Stored::Reported(_) => "reported",
    }
}

fn ending(stored: &Stored) -> String {
    match stored.outcome() {
        None => "-".to_owned(),
        Some((Outcome::Ran(ran), _)) => format!("exit {}", ran.exitcode),
        Some((Outcome::Failed(_), _)) => "failed".to_owned(),
    }
}
