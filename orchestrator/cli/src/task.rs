//! `puppet-task run`: from the arguments to a job.

use std::io;

use orchestrator_api::{Scope, TaskRequest};
use serde_json::{Map, Value};

use crate::access;
use crate::arguments::task::RunArguments;
use crate::config::{Config, Surroundings};
use crate::error::{Failure, UsageError};
use crate::exit::Exit;
use crate::run::{self, Options, Start};
use crate::{params, targets};

/// Carries the command out.
///
/// # Errors
/// When the job cannot be started or not be followed.
pub(crate) async fn run(arguments: RunArguments) -> Result<Exit, Failure> {
    let config = Config::resolve(&arguments.common, &Surroundings::of_process())?;
    let request = request(&arguments, &config)?;
    let client = access::client(&config).await?;
    let options = Options::of(&arguments.follow, arguments.common.format, config.color);
    run::run(&client, Start::Task(Box::new(request)), options).await
}

/// The request that the arguments ask for.
fn request(arguments: &RunArguments, config: &Config) -> Result<TaskRequest, Failure> {
    let stdin = |value: &Option<String>| value.as_deref() == Some("-");
    if stdin(&arguments.params) && stdin(&arguments.targets.nodes) {
        return Err(UsageError::StdinTwice.into());
    }
    let params: Map<String, Value> = match &arguments.params {
        Some(value) => params::json(value, io::stdin())?,
        None => params::inline(&arguments.inline)?,
    };
    let scope: Scope = targets::scope(&arguments.targets, io::stdin())?;
    Ok(TaskRequest {
        task: arguments.task.clone(),
        params,
        scope,
        environment: config.environment.clone(),
        description: arguments.start.description.clone(),
        noop: (arguments.noop || config.noop).then_some(true),
        concurrency: arguments.start.concurrency,
        timeout: arguments.start.timeout,
        userdata: None,
        targets: None,
        plan_job: None,
    })
}
