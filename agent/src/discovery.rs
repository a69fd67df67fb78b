//! Which external modules there are: each program of `modules-dir` is asked what it can do, when the agent
//! starts and on SIGHUP, with the profile and the supervision that its actions have. One that gives no good
//! answer is named in the log and left out, also where there was a good one before: what it said then is
//! not what it does now. A call that has been accepted goes on as it was.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::IgnoredAny;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::gate::Gate;
use crate::modules::external::{External, MetadataError, module_name};
use crate::modules::{Modules, Process, is_built_in};
use crate::results::{Form, NoResult};
use crate::runner::{Runner, never};

/// How long it may take. Ruby on a small machine needs a second or two.
const TIME: Duration = Duration::from_secs(30);

/// The most modules: they are asked one after the other before the agent is ready.
const MAX_MODULES: usize = 64;

/// The largest configuration of a module.
const MAX_CONFIGURATION: u64 = 1024 * 1024;

/// A program that may be a module.
#[derive(Debug)]
struct Candidate {
    name: String,
    program: PathBuf,
    configuration: Option<String>,
}

/// Why a program is not loaded as a module.
#[derive(Debug, thiserror::Error)]
enum NotLoaded {
    #[error("it cannot be looked at: {0}")]
    Unreadable(io::Error),
    #[error(
        "{} could be changed by somebody other than root and the agent's user; see to its owner and mode",
        .0.display()
    )]
    Untrusted(PathBuf),
    #[error("{} is not executable; chmod +x, or take it out of modules-dir", .0.display())]
    NotExecutable(PathBuf),
    #[error("its configuration is larger than {MAX_CONFIGURATION} bytes")]
    LargeConfiguration,
    #[error("failed to load external module metadata: {0}")]
    Metadata(String),
    #[error(transparent)]
    Said(#[from] MetadataError),
}

/// Asks the modules.
#[derive(Debug)]
pub struct Loader {
    dir: PathBuf,
    config_dir: PathBuf,
    runner: Runner,
    gate: Gate,
}

impl Loader {
    /// A loader for the directories of the configuration.
    #[must_use]
    pub fn new(config: &Config, runner: Runner, gate: Gate) -> Self {
        Self {
            dir: config.modules_dir.clone(),
            config_dir: config.modules_config_dir.clone(),
            runner,
            gate,
        }
    }

    /// Asks every program of the directory.
    pub async fn load(&self) -> BTreeMap<String, Arc<External>> {
        let (dir, config_dir) = (self.dir.clone(), self.config_dir.clone());
        let disk = self.runner.disk();
        let listed = disk.run(move || candidates(&dir, &config_dir)).await;
        let mut modules = BTreeMap::new();
        for (name, candidate) in listed.unwrap_or_default() {
            let loaded = match candidate {
                Ok(candidate) => ask(candidate, &self.runner, &self.gate).await,
                Err(error) => Err(error),
            };
            match loaded {
                Ok(external) => {
                    let actions = external.actions().collect::<Vec<_>>().join(", ");
                    tracing::info!(module = name, actions, "external module loaded");
                    modules.insert(name, Arc::new(external));
                }
                Err(error) => {
                    let error = daemon::error_chain(&error);
                    tracing::error!(module = name, error, "external module not loaded");
                }
            }
        }
        modules
    }

    /// Asks them again with each notice, until shutdown. Notices that come while modules are being asked
    /// are one.
    pub async fn follow(self, modules: Modules, again: Arc<Notify>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = again.notified() => {}
            }
            let loaded = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                loaded = self.load() => loaded,
            };
            let count = loaded.len();
            for module in modules.replace(loaded) {
                tracing::warn!(module, "the external module is not there any more");
            }
            tracing::info!(count, "external modules read again");
        }
    }
}

/// The programs of the configuration's directory by their names, without asking them: what keeps each
/// from being a module, as far as it can be seen from outside. Blocks.
#[must_use]
pub fn look(config: &Config) -> Vec<(String, Result<(), String>)> {
    let found = candidates(&config.modules_dir, &config.modules_config_dir);
    let looked = found.into_iter().map(|(name, candidate)| {
        let candidate = candidate.and_then(|candidate| {
            let text = candidate.configuration.unwrap_or_else(|| "{}".to_owned());
            let form = serde_json::from_str::<IgnoredAny>(&text).map(drop);
            Ok(form.map_err(MetadataError::ConfigurationForm)?)
        });
        (name, candidate.map_err(|error| daemon::error_chain(&error)))
    });
    looked.collect()
}

async fn ask(candidate: Candidate, runner: &Runner, gate: &Gate) -> Result<External, NotLoaded> {
    let Candidate {
        name,
        program,
        configuration,
    } = candidate;
    let process = Process::Metadata(program.clone());
    let granted = gate.own(&name, process, TIME);
    let (said, _) = runner.run_blocking(granted, Form::Output, &never()).await;
    let said = said.map_err(|NoResult(text)| NotLoaded::Metadata(text))?;
    // The original takes every word on standard error as a failure, whatever the exit code.
    if let Some(stderr) = said.stderr {
        return Err(NotLoaded::Metadata(stderr.trim().to_owned()));
    }
    let metadata = said.stdout.unwrap_or_default();
    Ok(External::new(program, &metadata, configuration.as_deref())?)
}

/// The programs of the directory by their names, or why they cannot be modules.
fn candidates(dir: &Path, config_dir: &Path) -> Vec<(String, Result<Candidate, NotLoaded>)> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::error!(directory = %dir.display(), %error, "modules-dir cannot be read");
            return Vec::new();
        }
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let Some(name) = module_name(&path).map(str::to_owned) else {
            continue;
        };
        if path.is_dir() {
            continue;
        }
        if is_built_in(&name) {
            tracing::info!(
                module = name,
                "external module left out: the agent has it built in"
            );
            continue;
        }
        if found.len() == MAX_MODULES {
            tracing::error!(
                module = name,
                "more than {MAX_MODULES} modules; the rest is left out"
            );
            break;
        }
        let candidate = candidate(&name, &path, dir, config_dir);
        found.push((name, candidate));
    }
    found
}

fn candidate(
    name: &str,
    path: &Path,
    dir: &Path,
    config_dir: &Path,
) -> Result<Candidate, NotLoaded> {
    let program = path.canonicalize().map_err(NotLoaded::Unreadable)?;
    let beside = program.parent().unwrap_or(dir).to_owned();
    for path in [dir, &beside, &program] {
        trusted(path)?;
    }
    let mode = fs::metadata(&program)
        .map_err(NotLoaded::Unreadable)?
        .permissions()
        .mode();
    if mode & 0o111 == 0 {
        return Err(NotLoaded::NotExecutable(program));
    }
    let file = config_dir.join(format!("{name}.conf"));
    let configuration = match fs::metadata(&file) {
        Ok(metadata) if metadata.len() > MAX_CONFIGURATION => {
            return Err(NotLoaded::LargeConfiguration);
        }
        Ok(_) => {
            trusted(&file)?;
            Some(fs::read_to_string(&file).map_err(NotLoaded::Unreadable)?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(NotLoaded::Unreadable(error)),
    };
    Ok(Candidate {
        name: name.to_owned(),
        program,
        configuration,
    })
}

/// What runs with the agent's rights is changed by nobody who has fewer.
fn trusted(path: &Path) -> Result<(), NotLoaded> {
    let metadata = fs::metadata(path).map_err(NotLoaded::Unreadable)?;
    let own = nix::unistd::geteuid().as_raw();
    let owned = metadata.uid() == 0 || metadata.uid() == own;
    if owned && metadata.permissions().mode() & 0o022 == 0 {
        Ok(())
    } else {
        Err(NotLoaded::Untrusted(path.to_owned()))
    }
}
