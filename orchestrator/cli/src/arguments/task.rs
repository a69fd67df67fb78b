//! `puppet-task`.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};

use super::{
    CONFIGURATION_AND_EXIT_CODES, CommonArguments, FollowArguments, StartArguments, TargetArguments,
};

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
    after_long_help = CONFIGURATION_AND_EXIT_CODES
)]
pub(crate) struct TaskArguments {
    #[command(subcommand)]
    pub(crate) command: TaskCommand,
    /// Print the version
    #[arg(short = 'V', long, action = clap::ArgAction::Version, global = true, display_order = 1000)]
    version: Option<bool>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Run a task on nodes and follow it to its end
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArguments),
    /// List the tasks, or describe one
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArguments),
    /// Tell why a node does or does not run tasks
    #[command(after_help = WHY_EXAMPLES)]
    Why(WhyArguments),
}

impl TaskCommand {
    pub(crate) fn common(&self) -> &CommonArguments {
        match self {
            Self::Run(arguments) => &arguments.common,
            Self::Show(arguments) => &arguments.common,
            Self::Why(arguments) => &arguments.common,
        }
    }
}

const RUN_EXAMPLES: &str = "\
Examples:
  Two nodes, one parameter:
    puppet-task run service action=status name=nginx -n web1.test,web2.test
  Nodes from a file, one a line (blank lines and # comments are skipped), or
  from another command:
    puppet-task run sample::host -n @nodes.txt
    list-nodes | puppet-task run sample::host -n -
  Lists, hashes and secrets are given as JSON, best in a file:
    puppet-task run sample::ports --params '{\"ports\": [22]}' -n web1.test
    puppet-task run sample::account --params @account.json -n web1.test
  What it writes, while it writes it:
    puppet-task run sample::slow -n web1.test --follow
  Only look, where the task supports it; one JSON document for a program:
    puppet-task run sample --noop -n web1.test --format json

An inline value that reads as a number, true or false is given as that; put
it in double quotes to give text: version='\"1.10\"'.
Ctrl-C stops the job: nodes that have started finish, the others are skipped.
Twice leaves at once.";

const SHOW_EXAMPLES: &str = "\
Examples:
  puppet-task show                    the tasks you may run
  puppet-task show sample::ports      what one does and takes";

const WHY_EXAMPLES: &str = "\
Examples:
  puppet-task why web1.test    each link of the chain to it, and what to do
                               about a broken one

The exit code is 0 when nothing is found that keeps tasks from running there.";

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
    #[command(flatten)]
    pub(crate) start: StartArguments,
    #[command(flatten)]
    pub(crate) follow: FollowArguments,
    #[command(flatten)]
    pub(crate) common: CommonArguments,
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

/// `why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArguments {
    /// The node's certname
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) common: CommonArguments,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::super::Format;
    use super::*;

    fn parse(arguments: &str) -> Result<TaskArguments, clap::Error> {
        TaskArguments::try_parse_from(std::iter::once("puppet-task").chain(arguments.split(' ')))
    }

    fn refused(arguments: &str) -> ErrorKind {
        parse(arguments).unwrap_err().kind()
    }

    #[test]
    fn the_definition_is_sound() {
        TaskArguments::command().debug_assert();
    }

    #[test]
    fn parameters_and_options_mix() {
        let parsed = parse("run a::b x=1 --nodes n1,n2 y=-2 --noop -e dev --format json").unwrap();
        let TaskCommand::Run(run) = parsed.command else {
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
        let TaskCommand::Show(show) = parse("show --color --no-color").unwrap().command else {
            panic!()
        };
        assert!(show.common.no_color && !show.common.color);
    }
}
