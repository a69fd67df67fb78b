//! `policy test`: what the policy of this node would do with a request, and why.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use pcp::{Certname, Digest};
use pxp::{UserName, Wishes};
use pxp_agent::config::Config;
use pxp_agent::confinement::Confinement;
use pxp_agent::exit::ExitCode;
use pxp_agent::modules::{Action, Process, Refused};
use pxp_agent::policy::{Policy, PolicyError, Question, Verdict};
use pxp_agent::runner;
use serde::Deserialize;

use super::Format;

/// About the policy of this node.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Tell what would become of requests, and why; ends with 1 if any would be refused.
    ///
    /// Requests are JSON files with module, action and params, or are described by the options.
    Test(Box<Test>),
}

/// A request.
#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Requests as JSON: {"module": …, "action": …, "params": {…}}.
    files: Vec<PathBuf>,
    /// Who asks; the first of the controllers, if not said.
    #[arg(long, value_name = "CERTNAME")]
    requester: Option<String>,
    /// The name of a task.
    #[arg(long)]
    task: Option<String>,
    /// The module: task, if not said.
    #[arg(long)]
    module: Option<String>,
    /// The action of the module: run, if not said.
    #[arg(long)]
    action: Option<String>,
    /// The SHA-256 of a file of the request; as often as there are files.
    #[arg(long, value_name = "SHA256")]
    digest: Vec<String>,
    /// The environment that the files are of.
    #[arg(long)]
    environment: Vec<String>,
    /// The user that is asked for.
    #[arg(long, value_name = "USER")]
    as_user: Option<String>,
    /// When: 2026-11-29T10:00:00Z; now, if not said.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// human or json
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A request in a file.
#[derive(Debug, Deserialize)]
struct Written {
    module: String,
    action: String,
    #[serde(default)]
    params: Option<pxp::JsonObject>,
}

/// Runs the command.
pub(crate) fn run(config: &Config, command: &PolicyCommand) -> Result<ExitCode> {
    let PolicyCommand::Test(test) = command;
    let policy = match Policy::load(&config.policy_dir) {
        Ok(policy) => policy,
        #[expect(clippy::print_stderr, reason = "what the command is for")]
        Err(PolicyError(faults)) => {
            for fault in faults {
                eprintln!("{fault}");
            }
            return Ok(ExitCode::Config);
        }
    };
    let user = runner::user().context("the agent's user is unknown")?;
    let confinement = Confinement::new(config, &user);
    let mut asked = Vec::new();
    if test.files.is_empty() {
        asked.push((
            None,
            test.described(config, &policy, &user)?,
            test.wishes()?,
        ));
    }
    for file in &test.files {
        let (question, wishes) = test
            .read(file, config, &policy, &user)
            .with_context(|| format!("{} is no request", file.display()))?;
        asked.push((Some(file), question, wishes));
    }
    let mut code = ExitCode::Ok;
    for (file, question, wishes) in asked {
        let standing = confinement.standing(&question.module);
        let explanation = policy.explain(&question, &wishes, &standing);
        if matches!(explanation.verdict, Verdict::Refused(_)) {
            code = ExitCode::Failure;
        }
        super::print(&match (test.format, file) {
            (Format::Json, file) => {
                let mut json = explanation.to_json();
                if let (Some(file), Some(json)) = (file, json.as_object_mut()) {
                    json.insert("file".to_owned(), file.display().to_string().into());
                }
                format!("{json}\n")
            }
            (Format::Human, None) => explanation.to_string(),
            (Format::Human, Some(file)) => format!("{}: {explanation}", file.display()),
        });
    }
    Ok(code)
}

impl Test {
    fn requester(&self, config: &Config, policy: &Policy) -> Result<Certname> {
        if let Some(name) = &self.requester {
            return Certname::parse(name).context("--requester");
        }
        let mut known = config.controllers.iter().chain(policy.controllers());
        match known.next().cloned() {
            Some(name) => Ok(name),
            None => bail!("no controllers are configured: say --requester CERTNAME"),
        }
    }

    fn at(&self) -> Result<Timestamp> {
        let at = self.at.as_deref().map(str::parse);
        at.transpose()
            .context("--at is not a time such as 2026-11-29T10:00:00Z")
            .map(|at| at.unwrap_or_else(Timestamp::now))
    }

    fn wishes(&self) -> Result<Wishes> {
        let run_as = self.as_user.as_deref().map(UserName::parse);
        Ok(Wishes {
            run_as: run_as.transpose().context("--as-user")?,
            ..Wishes::default()
        })
    }

    /// The request that the options describe.
    fn described(&self, config: &Config, policy: &Policy, user: &str) -> Result<Question> {
        let digests = self.digest.iter().map(|text| text.to_lowercase().parse());
        let digests: Result<Vec<Digest>, _> = digests.collect();
        let module = self.module.as_deref().unwrap_or("task");
        if self.task.is_some() && module != "task" {
            bail!("--task is for the module task");
        }
        if self.task.is_none() && module == "task" {
            bail!("describe a request: --task NAME, or --module NAME, or name a file");
        }
        Ok(Question {
            requester: self.requester(config, policy)?,
            module: module.to_owned(),
            action: self.action.clone().unwrap_or_else(|| "run".to_owned()),
            task: self.task.clone(),
            digests: digests.context("--digest is not 64 hexadecimal digits")?,
            environments: self.environment.clone(),
            run_as: self.as_user.clone().unwrap_or_else(|| user.to_owned()),
            at: self.at()?,
        })
    }

    /// The request of a file, read as the agent reads it.
    fn read(
        &self,
        file: &Path,
        config: &Config,
        policy: &Policy,
        user: &str,
    ) -> Result<(Question, Wishes)> {
        let text = fs::read(file).context("it cannot be read")?;
        let written: Written = serde_json::from_slice(&text).context("it has not its form")?;
        let action = Action::built_in(&written.module, &written.action, written.params.as_ref());
        let process = match action {
            Ok(Action::Process(process)) => process,
            Ok(Action::Immediate(_)) => {
                bail!("it is a question, which every controller may ask: no policy is about it")
            }
            // An external module has nothing that rules are about but its name, action and wishes.
            Err(Refused::UnknownModule(name)) if config.modules_dir.join(&name).is_file() => {
                Process::Metadata(config.modules_dir.join(name))
            }
            Err(refused) => return Err(refused.into()),
        };
        let wishes = process.wishes();
        let question = Question {
            requester: self.requester(config, policy)?,
            task: process.task().map(str::to_owned),
            digests: process.digests(),
            environments: Process::environments(&process),
            run_as: match &wishes.run_as {
                Some(wished) => wished.as_str().to_owned(),
                None => user.to_owned(),
            },
            at: self.at()?,
            module: written.module,
            action: written.action,
        };
        Ok((question, wishes))
    }
}
