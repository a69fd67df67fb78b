//! `puppet-job`: runs Puppet, and looks after jobs.

use std::io;

use orchestrator_api::{DeployRequest, JobsQuery, RerunOnly, RerunRequest, RunFlags, Words};

use crate::arguments::Format;
use crate::arguments::job::{
    ListArguments, OrderWord, RerunArguments, RunArguments, ShowArguments, StopArguments,
    WatchArguments, WayWord,
};
use crate::config::{Config, Surroundings};
use crate::error::Failure;
use crate::exit::Exit;
use crate::follow::all_nodes;
use crate::run::{self, Options, Start};
use crate::screen::{self, Screen};
use crate::{access, document, params, render, targets};

/// How many jobs are listed, as by the original.
const LATEST: u64 = 50;

/// `run`.
///
/// # Errors
/// When the job cannot be started or not be followed.
pub(crate) async fn run(arguments: RunArguments) -> Result<Exit, Failure> {
    let config = Config::resolve(&arguments.common, &Surroundings::of_process())?;
    let request = request(&arguments, &config)?;
    let client = access::client(&config).await?;
    let options = Options::of(&arguments.follow, arguments.common.format, config.color);
    run::run(&client, Start::Deploy(Box::new(request)), options).await
}

/// The request that the arguments ask for. What the configuration says of noop and environment holds
/// unless the arguments say otherwise.
fn request(arguments: &RunArguments, config: &Config) -> Result<DeployRequest, Failure> {
    let words = |text: &Option<String>| text.clone().map(Words::Text);
    let noop = arguments.noop || config.noop && !arguments.no_noop;
    Ok(DeployRequest {
        environment: config.environment.clone(),
        scope: Some(targets::scope(&arguments.targets, io::stdin())?),
        concurrency: arguments.start.concurrency,
        description: arguments.start.description.clone(),
        enforce_environment: arguments.no_enforce_environment.then_some(false),
        timeout: arguments.start.timeout,
        userdata: None,
        target: None,
        flags: RunFlags {
            noop: noop.then_some(true),
            no_noop: arguments.no_noop.then_some(true),
            tags: words(&arguments.tags),
            skip_tags: words(&arguments.skip_tags),
            ..RunFlags::default()
        },
    })
}

/// `rerun`.
///
/// # Errors
/// As [`run()`].
pub(crate) async fn rerun(arguments: RerunArguments) -> Result<Exit, Failure> {
    let config = Config::resolve(&arguments.common, &Surroundings::of_process())?;
    let params = match &arguments.params {
        Some(value) => params::json(value, io::stdin())?,
        None => serde_json::Map::new(),
    };
    let request = RerunRequest {
        job: arguments.job,
        only: arguments.failed.then_some(RerunOnly::Failed),
        params,
        description: arguments.description,
    };
    let client = access::client(&config).await?;
    let options = Options::of(&arguments.follow, arguments.common.format, config.color);
    run::run(&client, Start::Rerun(Box::new(request)), options).await
}

/// `show`: one job with its nodes, or the latest ones.
///
/// # Errors
/// When the orchestrator cannot be asked, or refuses.
pub(crate) async fn show(arguments: &ShowArguments) -> Result<Exit, Failure> {
    let Some(name) = &arguments.job else {
        let query = JobsQuery {
            limit: Some(arguments.limit.unwrap_or(LATEST)),
            order_by: Some(OrderWord::Timestamp.into()),
            order: Some(WayWord::Desc.into()),
            ..JobsQuery::default()
        };
        return list_of(&arguments.common, &query).await;
    };
    let config = Config::resolve(&arguments.common, &Surroundings::of_process())?;
    let client = access::client(&config).await?;
    let job = client.job(name).await?;
    let nodes = all_nodes(&client, name).await?;
    if arguments.common.format == Format::Json {
        screen::put(&document::job(&job, &nodes));
        return Ok(Exit::Success);
    }
    let screen = Screen::new(config.color, false);
    screen.lines(&render::job(&job));
    for section in render::sections(&nodes, render::Manner::of(&job)) {
        screen.headline(section.mood, &section.headline, "");
        for (mood, headline, body) in section.groups {
            screen.headline(mood, &format!("  {headline}"), &render::indented(&body));
        }
    }
    Ok(Exit::Success)
}

/// `list`.
///
/// # Errors
/// When the orchestrator cannot be asked, or refuses.
pub(crate) async fn list(arguments: &ListArguments) -> Result<Exit, Failure> {
    let query = JobsQuery {
        limit: Some(arguments.limit),
        offset: (arguments.offset > 0).then_some(arguments.offset),
        order_by: Some(arguments.order_by.into()),
        order: Some(arguments.order.into()),
        job_type: arguments.job_type.map(Into::into),
        task: arguments.task.clone(),
        ..JobsQuery::default()
    };
    list_of(&arguments.common, &query).await
}

async fn list_of(
    common: &crate::arguments::CommonArguments,
    query: &JobsQuery,
) -> Result<Exit, Failure> {
    let config = Config::resolve(common, &Surroundings::of_process())?;
    let jobs = access::client(&config).await?.jobs(query).await?;
    if common.format == Format::Json {
        screen::put(&serde_json::to_value(&jobs).unwrap_or_default());
        return Ok(Exit::Success);
    }
    let screen = Screen::new(config.color, false);
    if jobs.items.is_empty() {
        screen.remark("No job found.");
    } else {
        screen.lines(&render::job_list(&jobs.items, screen::width()));
        let shown = u64::try_from(jobs.items.len()).unwrap_or(u64::MAX);
        let shown = shown.saturating_add(jobs.pagination.offset);
        if shown < jobs.pagination.total {
            screen.remark(&format!(
                "{} of {} jobs; --limit and --offset show others.",
                jobs.items.len(),
                jobs.pagination.total
            ));
        }
    }
    Ok(Exit::Success)
}

/// `watch`.
///
/// # Errors
/// When the job cannot be followed.
pub(crate) async fn watch(arguments: WatchArguments) -> Result<Exit, Failure> {
    let config = Config::resolve(&arguments.common, &Surroundings::of_process())?;
    let client = access::client(&config).await?;
    let options = Options {
        format: arguments.common.format,
        color: config.color,
        wait: true,
        follow: arguments.follow,
    };
    run::run(&client, Start::Existing(arguments.job), options).await
}

/// `stop`.
///
/// # Errors
/// When the orchestrator cannot be asked, or refuses.
pub(crate) async fn stop(arguments: &StopArguments) -> Result<Exit, Failure> {
    let config = Config::resolve(&arguments.common, &Surroundings::of_process())?;
    let client = access::client(&config).await?;
    let stopped = client.stop(&arguments.job, arguments.force).await?;
    if arguments.common.format == Format::Json {
        screen::put(&serde_json::to_value(&stopped).unwrap_or_default());
        return Ok(Exit::Success);
    }
    let screen = Screen::new(config.color, false);
    screen.lines(&render::stopped(&stopped.job, arguments.force));
    Ok(Exit::Success)
}
