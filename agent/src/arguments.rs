//! The command line: every key of the configuration is an option, too, with one dash or two, as in the
//! original.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, FromArgMatches, Parser, Subcommand};
use pxp_agent::config::Given;
use pxp_agent::config::file::{Form, KEYS};
use pxp_agent::exit::ExitCode;

use crate::commands::policy::PolicyCommand;
use crate::commands::transactions::Transactions;

/// Takes requests from the orchestrator over a PCP broker and runs them on this node.
#[derive(Debug, Parser)]
#[command(version = daemon::VERSION, name = "pxp-agent")]
struct Fixed {
    /// The configuration file, or a directory of *.conf files.
    #[arg(long, alias = "config-file", value_name = "PATH", global = true)]
    config: Option<PathBuf>,
    /// Accepted as the original's; has no effect: see loglevel.
    #[arg(long, short = 'v', action = clap::ArgAction::Count, global = true, hide = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do other than to run.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check the configuration, print what it means, and exit.
    CheckConfig,
    /// Look at everything that the agent needs, and say what is wrong and what to do.
    Doctor,
    /// Show what lies in the spool.
    Transactions(Transactions),
    /// An action that the agent has run in a process of its own. Its input comes on standard input.
    #[command(hide = true)]
    Module {
        /// The module.
        module: String,
        /// Its action.
        action: String,
    },
    /// About the policy of this node.
    Policy {
        /// What about it.
        #[command(subcommand)]
        command: PolicyCommand,
    },
}

/// What the process was called with.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) config: Option<PathBuf>,
    pub(crate) command: Option<Command>,
    /// Keys of the configuration and what was given for them.
    pub(crate) given: Vec<(String, Given)>,
}

/// What the original calls two of its options on the command line.
const SINGULAR: [(&str, &str); 2] = [
    ("primary-uri", "primary-uris"),
    ("master-uri", "master-uris"),
];

impl Arguments {
    /// Reads the command line; prints help, the version, or what is wrong.
    pub(crate) fn parse() -> Result<Self, ExitCode> {
        let arguments = std::env::args_os().map(two_dashes);
        Self::of(arguments).map_err(|error| {
            // Nothing can be done about a closed output.
            error.print().ok();
            match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::Ok,
                _ => ExitCode::Usage,
            }
        })
    }

    fn of(arguments: impl Iterator<Item = OsString>) -> Result<Self, clap::Error> {
        let command = KEYS.iter().fold(
            <Fixed as clap::CommandFactory>::command(),
            |command, key| command.arg(option(key.field, key.form, key.help)),
        );
        let matches = command.try_get_matches_from(arguments)?;
        let fixed = Fixed::from_arg_matches(&matches)?;
        Ok(Self {
            config: fixed.config,
            command: fixed.command,
            given: given(&matches),
        })
    }
}

fn option(field: &'static str, form: Form, help: &'static str) -> Arg {
    let name = field.replace('_', "-");
    let singular = SINGULAR.iter().find(|(_, key)| *key == name);
    let option = Arg::new(field)
        .long(name)
        .aliases(singular.map(|(singular, _)| *singular))
        .help(help.trim_start())
        .help_heading("Keys of the configuration")
        .global(true);
    match form {
        Form::Single => option.value_name("VALUE"),
        Form::List => option.value_name("VALUE,…").value_delimiter(','),
        Form::Switch => option
            .value_name("true|false")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
    }
}

fn given(matches: &ArgMatches) -> Vec<(String, Given)> {
    let mut given = Vec::new();
    for key in KEYS {
        if matches.value_source(key.field) != Some(ValueSource::CommandLine) {
            continue;
        }
        let values = matches.get_many::<String>(key.field).into_iter().flatten();
        let mut values: Vec<_> = values.cloned().collect();
        let value = match key.form {
            Form::List => Given::List(values),
            Form::Single | Form::Switch => Given::Single(values.pop().unwrap_or_default()),
        };
        given.push((key.field.replace('_', "-"), value));
    }
    given
}

/// The original takes its long options with one dash, too.
fn two_dashes(argument: OsString) -> OsString {
    let Some(text) = argument.to_str() else {
        return argument;
    };
    let Some(name) = text.strip_prefix('-').filter(|name| !name.starts_with('-')) else {
        return argument;
    };
    let name = name.split('=').next().unwrap_or(name);
    let field = name.replace('-', "_");
    let known = ["config", "config-file", "version", "help", "verbose"].contains(&name)
        || SINGULAR.iter().any(|(singular, _)| *singular == name)
        || KEYS.iter().any(|key| key.field == field);
    if known {
        format!("-{text}").into()
    } else {
        argument
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        let words = std::iter::once("pxp-agent").chain(line.split_whitespace());
        Arguments::of(words.map(OsString::from).map(two_dashes))
    }

    fn single(key: &str, value: &str) -> (String, Given) {
        (key.to_owned(), Given::Single(value.to_owned()))
    }

    #[test]
    fn every_key_is_an_option_with_one_dash_or_two() {
        let arguments =
            parse("-config-file /x -loglevel=debug --spool-dir /s check-config").unwrap();
        assert_eq!(arguments.config, Some(PathBuf::from("/x")));
        assert!(matches!(arguments.command, Some(Command::CheckConfig)));
        let wanted = [single("spool-dir", "/s"), single("loglevel", "debug")];
        assert_eq!(arguments.given, wanted);
    }

    #[test]
    fn lists_have_commas_and_switches_need_no_value() {
        let arguments = parse("--broker-uris a,b:7 --foreground -vvv --primary-uri p").unwrap();
        let list = |key: &str, values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned());
            (key.to_owned(), Given::List(values.collect()))
        };
        let wanted = [
            list("broker-uris", &["a", "b:7"]),
            list("primary-uris", &["p"]),
            single("foreground", "true"),
        ];
        assert_eq!(arguments.given, wanted);
    }

    #[test]
    fn what_is_no_option_is_an_error() {
        assert!(parse("--no-such-key 1").is_err());
        assert!(parse("-spool /s").is_err());
        assert!(parse("no-such-command").is_err());
    }
}
