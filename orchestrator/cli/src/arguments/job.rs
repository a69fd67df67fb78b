//! `puppet-job`.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use orchestrator_api::{JobOrder, JobType, Order};

use super::{
    CONFIGURATION_AND_EXIT_CODES, CommonArguments, FollowArguments, StartArguments,
    TargetArguments, count,
};

/// Runs Puppet on many nodes at once, and looks after the jobs of the orchestrator.
#[derive(Debug, Parser)]
#[command(
    name = "puppet-job",
    version,
    disable_version_flag = true,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_long_help = CONFIGURATION_AND_EXIT_CODES
)]
pub(crate) struct JobArguments {
    #[command(subcommand)]
    pub(crate) command: JobCommand,
    /// Print the version
    #[arg(short = 'V', long, action = clap::ArgAction::Version, global = true, display_order = 1000)]
    version: Option<bool>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Run Puppet on nodes and follow it to its end
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArguments),
    /// Run an ended job once more, as a new job, and follow it to its end
    #[command(after_help = RERUN_EXAMPLES)]
    Rerun(RerunArguments),
    /// Describe a job with its nodes, or list the latest jobs
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArguments),
    /// List jobs
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArguments),
    /// Follow a job that runs to its end
    #[command(after_help = WATCH_EXAMPLES)]
    Watch(WatchArguments),
    /// Stop a job
    #[command(after_help = STOP_EXAMPLES)]
    Stop(StopArguments),
}

impl JobCommand {
    pub(crate) fn common(&self) -> &CommonArguments {
        match self {
            Self::Run(arguments) => &arguments.common,
            Self::Rerun(arguments) => &arguments.common,
            Self::Show(arguments) => &arguments.common,
            Self::List(arguments) => &arguments.common,
            Self::Watch(arguments) => &arguments.common,
            Self::Stop(arguments) => &arguments.common,
        }
    }
}

const RUN_EXAMPLES: &str = "\
Examples:
  Two nodes, each in its own environment:
    puppet-job run --nodes web1.test,web2.test
  What a branch would change on all web servers, five at a time:
    puppet-job run --query 'nodes[certname] { certname ~ \"web\" }' \\
      -e feature --noop --concurrency 5
  Nodes from a file, one a line; only resources with a tag; Puppet's own
  words as they come:
    puppet-job run --nodes @nodes.txt --tags ssh --follow

Without --noop and --no-noop each node does what its puppet.conf says.
Ctrl-C stops the job: nodes that have started finish, the others are skipped.
Twice leaves at once.";

const RERUN_EXAMPLES: &str = "\
Examples:
  puppet-job rerun 81             on all of its nodes
  puppet-job rerun 81 --failed    only where it did not end well
  puppet-job rerun 81 --params @secrets.json
                                  secret parameters are stored nowhere, and
                                  are given again";

const SHOW_EXAMPLES: &str = "\
Examples:
  puppet-job show 81                  the job, and its nodes by how they ended
  puppet-job show 81 --format json    all of it, for a program
  puppet-job show                     the latest jobs";

const LIST_EXAMPLES: &str = "\
Examples:
  puppet-job list                    the latest 50 jobs
  puppet-job list --task service     those of tasks with it in their name
  puppet-job list --limit 10 --order-by owner --order asc";

const WATCH_EXAMPLES: &str = "\
Examples:
  puppet-job watch 81     as if it had been started here

Ctrl-C leaves the job alone: it goes on.";

const STOP_EXAMPLES: &str = "\
Examples:
  puppet-job stop 81            nodes that have started finish, the others are
                                skipped
  puppet-job stop 81 --force    ends what runs on the nodes, too";

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) targets: TargetArguments,
    /// Let each node use its own environment, whatever --environment says
    #[arg(long)]
    pub(crate) no_enforce_environment: bool,
    /// Only say what would be changed
    #[arg(long, conflicts_with = "no_noop")]
    pub(crate) noop: bool,
    /// Change things, also on nodes that are configured to look only
    #[arg(long)]
    pub(crate) no_noop: bool,
    /// Only resources with one of these tags, commas between
    #[arg(long, value_name = "TAGS", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) tags: Option<String>,
    /// No resources with one of these tags
    #[arg(long, value_name = "TAGS", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) skip_tags: Option<String>,
    #[command(flatten)]
    pub(crate) start: StartArguments,
    #[command(flatten)]
    pub(crate) follow: FollowArguments,
    #[command(flatten)]
    pub(crate) common: CommonArguments,
}

/// `rerun`.
#[derive(Debug, Args)]
pub(crate) struct RerunArguments {
    /// The ended job's number
    pub(crate) job: String,
    /// Only on nodes where it did not end well: failed, errored, skipped and stopped ones
    #[arg(long)]
    pub(crate) failed: bool,
    /// Parameters to give again or to replace, as a JSON object, in a file (@FILE) or on standard input (-)
    #[arg(long, value_name = "JSON|@FILE|-")]
    pub(crate) params: Option<String>,
    /// What the job is for, kept with it [default: what the ended one was for]
    #[arg(long, value_name = "TEXT", alias = "job-description")]
    pub(crate) description: Option<String>,
    #[command(flatten)]
    pub(crate) follow: FollowArguments,
    #[command(flatten)]
    pub(crate) common: CommonArguments,
}

/// `show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// The job's number; without it the latest jobs are listed
    pub(crate) job: Option<String>,
    /// How many jobs to list
    #[arg(long, value_name = "COUNT", conflicts_with = "job", value_parser = count())]
    pub(crate) limit: Option<u64>,
    #[command(flatten)]
    pub(crate) common: CommonArguments,
}

/// `list`.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// How many jobs
    #[arg(long, value_name = "COUNT", default_value = "50", value_parser = count())]
    pub(crate) limit: u64,
    /// How many of the first ones to leave out
    #[arg(long, value_name = "COUNT", default_value = "0")]
    pub(crate) offset: u64,
    /// Only jobs of this type
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    pub(crate) job_type: Option<TypeWord>,
    /// Only jobs of tasks with this in their name
    #[arg(long, value_name = "TEXT")]
    pub(crate) task: Option<String>,
    /// What decides the order
    #[arg(long, value_name = "KEY", value_enum, default_value = "timestamp")]
    pub(crate) order_by: OrderWord,
    /// Which way round
    #[arg(long, value_name = "WAY", value_enum, default_value = "desc")]
    pub(crate) order: WayWord,
    #[command(flatten)]
    pub(crate) common: CommonArguments,
}

/// `watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArguments {
    /// The job's number
    pub(crate) job: String,
    /// Show what nodes write while they write it, each line with the node's name
    #[arg(long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) common: CommonArguments,
}

/// `stop`.
#[derive(Debug, Args)]
pub(crate) struct StopArguments {
    /// The job's number
    pub(crate) job: String,
    /// End what runs on the nodes, too
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) common: CommonArguments,
}

/// The types of jobs that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum TypeWord {
    Task,
    Deploy,
    PlanTask,
}

/// The keys that jobs are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OrderWord {
    Timestamp,
    Name,
    Owner,
    Environment,
    State,
}

/// The two ways round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WayWord {
    Asc,
    Desc,
}

impl From<TypeWord> for JobType {
    fn from(word: TypeWord) -> Self {
        match word {
            TypeWord::Task => Self::Task,
            TypeWord::Deploy => Self::Deploy,
            TypeWord::PlanTask => Self::PlanTask,
        }
    }
}

impl From<OrderWord> for JobOrder {
    fn from(word: OrderWord) -> Self {
        match word {
            OrderWord::Timestamp => Self::Timestamp,
            OrderWord::Name => Self::Name,
            OrderWord::Owner => Self::Owner,
            OrderWord::Environment => Self::Environment,
            OrderWord::State => Self::State,
        }
    }
}

impl From<WayWord> for Order {
    fn from(word: WayWord) -> Self {
        match word {
            WayWord::Asc => Self::Asc,
            WayWord::Desc => Self::Desc,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        JobArguments::command().debug_assert();
    }

    #[test]
    fn the_originals_options_of_a_run_are_taken() {
        let line = "puppet-job run -n a,b -e dev --noop --concurrency 4 --description why \
                    --no-enforce-environment --format json --service-url https://x:8143 --debug";
        let parsed = JobArguments::try_parse_from(line.split_whitespace()).unwrap();
        let JobCommand::Run(run) = parsed.command else {
            panic!()
        };
        assert_eq!(run.targets.nodes.as_deref(), Some("a,b"));
        assert_eq!(
            (run.start.concurrency, run.noop, run.no_noop),
            (Some(4), true, false)
        );
        assert!(run.no_enforce_environment);
        assert_eq!(run.start.description.as_deref(), Some("why"));
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        let parse = |line: &str| JobArguments::try_parse_from(line.split(' ')).map(drop);
        assert!(parse("puppet-job run -n a --no-noop").is_ok());
        assert!(parse("puppet-job run -n a --noop --no-noop").is_err());
        assert!(parse("puppet-job run -n a --follow --no-wait").is_err());
        assert!(parse("puppet-job run -n a --concurrency 0").is_err());
        assert!(parse("puppet-job run").is_err());
        assert!(parse("puppet-job rerun 7 --failed").is_ok());
        assert!(parse("puppet-job rerun").is_err());
        assert!(parse("puppet-job show 7").is_ok());
        assert!(parse("puppet-job show --limit 7").is_ok());
        assert!(parse("puppet-job show 7 --limit 7").is_err());
        assert!(parse("puppet-job list --limit 0").is_err());
        assert!(parse("puppet-job list --type plan_task --order asc").is_ok());
        assert!(parse("puppet-job stop").is_err());
    }
}
