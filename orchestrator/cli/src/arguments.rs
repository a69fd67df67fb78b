//! What can be written on the command line.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Runs Puppet tasks on many nodes at once, through the orchestrator.
#[derive(Debug, Parser)]
#[command(
    name = "puppet-task",
    version,
    disable_version_flag = true,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_long_help = "Configuration (JSON, all keys inside \"options\": service-url, cacert, token-file, environment, \
color, noop):\n  /etc/puppetlabs/client-tools/orchestrator.conf, then ~/.puppetlabs/client-tools/orchestrator.conf\n  \
(or the file in PXP_CLIENT_CONFIG, or --config-file), then the options given here.\n\nExit codes:\n  0  every node \
succeeded\n  1  a node did not, or the orchestrator refused the request\n  2  wrong usage or configuration\n  3  no \
connection, no trust, or no valid token\n  130  interrupted"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print the version
    #[arg(short = 'V', long, action = clap::ArgAction::Version, global = true, display_order = 1000)]
    version: Option<bool>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a task on nodes and follow it to its end
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArguments),
    /// List the tasks, or describe one
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArguments),
}

const RUN_EXAMPLES: &str = "\
Examples:
  Two nodes, one parameter:
    puppet-task run service action=status name=nginx --nodes web1.example.com,web2.example.com
  Nodes from a file, one a line (blank lines and # comments are skipped), or from another command:
    puppet-task run sample::host --nodes @nodes.txt
    list-nodes | puppet-task run sample::host --nodes -
  Lists, hashes and secrets are given as JSON, best in a file:
    puppet-task run sample::ports --params '{\"ports\": [22, 443]}' --nodes web1.example.com
    puppet-task run sample::account --params @account.json --nodes web1.example.com
  Only look, where the task supports it; one JSON document for a program:
    puppet-task run sample --noop --nodes web1.example.com --format json

An inline value that reads as a number, true or false is given as that; put it in double quotes to
give text: version='\"1.10\"'.
Ctrl-C stops the job: nodes that have started finish, the others are skipped. Twice leaves at once.";

const SHOW_EXAMPLES: &str = "\
Examples:
  puppet-task show                    the tasks you may run
  puppet-task show sample::ports      what one does and takes";

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// The task: MODULE::TASK, or MODULE for the module's own
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) task: String,
    /// Parameters of the task
    #[arg(value_name = "NAME=VALUE", conflicts_with = "params")]
    pub(crate) inline: Vec<String>,
    /// All parameters as a JSON object, in a file (@FILE) or on standard input (-)
    #[arg(long, value_name = "JSON|@FILE|-")]
    pub(crate) params: Option<String>,
    #[command(flatten)]
    pub(crate) targets: TargetArguments,
    /// Only say what would be done; the task must support it
    #[arg(long)]
    pub(crate) noop: bool,
    /// What the job is for, kept with it
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Print the number of the job and leave it to run
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) common: CommonArguments,
}

/// Where to run: exactly one of these.
#[derive(Debug, Default, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct TargetArguments {
    /// Certnames with commas between, in a file (@FILE) or on standard input (-)
    #[arg(short, long, value_name = "NAMES|@FILE|-")]
    pub(crate) nodes: Option<String>,
    /// A PQL query to PuppetDB, or a file with one (@FILE)
    #[arg(short, long, value_name = "PQL|@FILE")]
    pub(crate) query: Option<String>,
    /// The id of a node group
    #[arg(long, value_name = "ID")]
    pub(crate) node_group: Option<String>,
}

/// `show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// The task to describe; without it all tasks are listed
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) task: Option<String>,
    /// List private tasks too, and those you may not run
    #[arg(long, conflicts_with = "task")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) common: CommonArguments,
}

/// What all commands take.
#[derive(Debug, Default, Args)]
pub(crate) struct CommonArguments {
    /// The environment that the task comes from [default: the server's]
    #[arg(short, long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) environment: Option<String>,
    /// How to show the outcome
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) format: Format,
    /// The orchestrator, such as `https://puppet.example.com:8143`
    #[arg(long, value_name = "URL", help_heading = "Connection")]
    pub(crate) service_url: Option<String>,
    /// The CA certificates to trust, as a PEM file
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub(crate) ca_cert: Option<PathBuf>,
    /// The file with the token
    #[arg(short, long, value_name = "FILE", help_heading = "Connection")]
    pub(crate) token_file: Option<PathBuf>,
    /// A configuration file in the place of your own
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub(crate) config_file: Option<PathBuf>,
    /// Use colors on a terminal
    #[arg(long, overrides_with = "no_color", help_heading = "Output")]
    pub(crate) color: bool,
    /// Use no colors
    #[arg(long, overrides_with = "color", help_heading = "Output")]
    pub(crate) no_color: bool,
    /// Tell on standard error what is asked of the orchestrator; never shows secrets
    #[arg(short, long, help_heading = "Output")]
    pub(crate) debug: bool,
}

/// How to show the outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON document.
    Json,
}

impl Command {
    pub(crate) fn format(&self) -> Format {
        match self {
            Self::Run(arguments) => arguments.common.format,
            Self::Show(arguments) => arguments.common.format,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(arguments: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once("puppet-task").chain(arguments.split(' ')))
    }

    fn refused(arguments: &str) -> ErrorKind {
        parse(arguments).unwrap_err().kind()
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn parameters_and_options_mix() {
        let parsed = parse("run a::b x=1 --nodes n1,n2 y=-2 --noop -e dev --format json").unwrap();
        let Command::Run(run) = parsed.command else {
            panic!()
        };
        assert_eq!(run.task, "a::b");
        assert_eq!(run.inline, ["x=1", "y=-2"]);
        assert_eq!(run.targets.nodes.as_deref(), Some("n1,n2"));
        assert_eq!(run.common.environment.as_deref(), Some("dev"));
        assert!(run.noop && run.common.format == Format::Json);
    }

    #[test]
    fn there_is_exactly_one_target_form() {
        assert_eq!(refused("run a"), ErrorKind::MissingRequiredArgument);
        assert_eq!(
            refused("run a -n x -q nodes{}"),
            ErrorKind::ArgumentConflict
        );
        assert_eq!(
            refused("run a -q nodes{} --node-group 1"),
            ErrorKind::ArgumentConflict
        );
        assert!(parse("run a --nodes -").is_ok());
    }

    #[test]
    fn inline_parameters_and_params_exclude_each_other() {
        assert_eq!(
            refused("run a x=1 --params {} -n x"),
            ErrorKind::ArgumentConflict
        );
    }

    #[test]
    fn the_last_word_on_color_wins() {
        let Command::Show(show) = parse("show --color --no-color").unwrap().command else {
            panic!()
        };
        assert!(show.common.no_color && !show.common.color);
    }
}
