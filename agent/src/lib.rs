//! The PXP agent: takes requests over PCP, runs them as contained processes, and sees to it that the
//! requester learns the outcome, whatever is restarted in between.
//!
//! Read in this order: [`session`] (messages in), [`modules`] (what may be asked), [`engine`] (the
//! table of transactions), [`transaction`] (the states, pure), [`spool`] (the same on disk),
//! [`runner`] (files staged, the wrapper started, its end awaited), [`cache`], [`results`] and
//! [`outbox`] (what the requester is told).

pub mod access_log;
pub mod blocking;
pub mod bounds;
pub mod cache;
pub mod config;
pub mod confinement;
pub mod digest;
pub mod discovery;
pub mod disk;
pub mod engine;
pub mod exit;
pub mod gate;
pub mod metrics;
pub mod modules;
pub mod outbox;
pub mod policy;
pub mod primaries;
pub mod results;
pub mod runner;
pub mod session;
pub mod spool;
pub mod transaction;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use daemon::logs::Logs;
use daemon::{Signal, Signals};
use identity::{Current, Identity, IdentityError};
use pcp::ClientType;
use pcp_client::{ClientConfig, ClientHandle};
use sandbox::{Facility, Launcher, Support};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use access_log::{AccessLog, AccessLogError};
use blocking::BlockingRuns;
use cache::{Cache, CacheError};
use config::Config;
use confinement::Confinement;
use discovery::Loader;
use disk::Disk;
use engine::{Engine, Retention};
use exit::ExitCode;
use gate::Gate;
use modules::Modules;
use modules::launch::Node;
use policy::{Policy, PolicyError};
use primaries::Primaries;
use runner::{Runner, Settings};
use session::{Limits, Session};
use spool::{Spool, SpoolError};

/// How long the parts of the agent may take to end. Tasks go on without it.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// An agent that is connected, or dials.
#[derive(Debug)]
pub struct Agent {
    tasks: daemon::Tasks,
    client: ClientHandle,
    access_log: AccessLog,
    gate: Gate,
    identity: Arc<Current>,
    /// Has the external modules read again.
    ask_modules: Arc<Notify>,
}

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificates cannot be used.
    #[error("the agent's certificates cannot be used")]
    Identity(#[source] IdentityError),
    /// The spool cannot be used.
    #[error("the spool cannot be used")]
    Spool(#[source] SpoolError),
    /// The task cache cannot be used.
    #[error("the task cache cannot be used")]
    Cache(#[source] CacheError),
    /// The policy is broken: nothing is allowed by one that cannot be read as a whole.
    #[error("the policy cannot be used: {0}")]
    Policy(PolicyError),
    /// The access log cannot be written.
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    /// The agent's user is unknown.
    #[error("the environment of tasks cannot be determined")]
    Environment(#[source] std::io::Error),
    /// There is no way to end all of a task's processes on this host.
    #[error("tasks cannot be contained on this host: {0}")]
    NoContainment(String),
}

impl StartError {
    /// What the process ends with: certificates are configuration, the rest may pass.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Identity(_) | Self::Policy(_) | Self::AccessLog(_) => ExitCode::Config,
            Self::Spool(_) | Self::Cache(_) | Self::Environment(_) | Self::NoContainment(_) => {
                ExitCode::Failure
            }
        }
    }
}

impl Agent {
    /// Loads certificates, takes the spool up where an earlier agent left it, and begins to dial.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let identity = Current::load(config.tls.clone()).map_err(StartError::Identity)?;
        let identity = Arc::new(identity);
        log_start(config, &identity.get());
        let access_log = AccessLog::open(config.access_log.as_deref())?;
        let support = Support::probe(&config.wrapper);
        log_support(&support)?;
        let environment = runner::environment().map_err(StartError::Environment)?;
        let policy = Policy::load(&config.policy_dir).map_err(StartError::Policy)?;
        let user = runner::user().map_err(StartError::Environment)?;
        let confinement = Confinement::new(config, &user);
        let gate = Gate::new(config.controllers.clone(), policy, confinement.clone());
        log_gate(config, &gate);
        let spool = Spool::open(&config.spool_dir).map_err(StartError::Spool)?;
        let spool = spool.reserving(config.spool_reserve);
        let tasks = daemon::Tasks::new();
        let disk = Disk::default();
        let mut client = ClientConfig::new(
            config.brokers.clone(),
            Arc::clone(&identity),
            ClientType::agent(),
            daemon::software("pxp-agent"),
        );
        client.max_message = config.max_message;
        client.ways = config.ways;
        client.home_after = config.home_after;
        client.proxy = config.proxy.clone();
        let (engine, commands) = engine::channel();
        let (outbox, queue) = outbox::channel();
        let (client, events) = pcp_client::start(client, &tasks);
        let primaries = Primaries::new(config.downloads.clone(), Arc::clone(&identity));
        let launcher = Launcher::new(config.wrapper.clone(), config.spool_dir.clone());
        let launcher = Arc::new(launcher);
        let cache = Cache::open(
            &config.cache_dir,
            disk.clone(),
            client.clone(),
            primaries,
            launcher.starting(),
        );
        let settings = Settings {
            launcher,
            support,
            confinement: confinement.clone(),
            max_result: u64::try_from(config.max_message).unwrap_or(u64::MAX),
            concurrency: config.task_concurrency,
            environment,
            shell: runner::shell().map_err(StartError::Environment)?,
            agent: std::env::current_exe().map_err(StartError::Environment)?,
            node: node(config, &identity.get()),
        };
        if let Some(file) = &config.metrics_file {
            let writer = metrics::Writer {
                file: file.clone(),
                client: client.clone(),
                identity: Arc::clone(&identity),
                spool: config.spool_dir.clone(),
                cache: config.cache_dir.clone(),
                disk: disk.clone(),
            };
            tasks.spawn("metrics", writer.run(tasks.shutdown_token()));
        }
        let runner = Runner::new(settings, disk, spool, cache.map_err(StartError::Cache)?);
        tasks.spawn("launcher", runner.clone().rest(tasks.shutdown_token()));
        let retention = Retention {
            spool: config.spool_bounds,
            cache: config.cache_bounds,
        };
        let recovered = Engine::recover(
            commands,
            runner.clone(),
            outbox.clone(),
            tasks.clone(),
            retention,
            config.task_concurrency,
        );
        let recovered = recovered.await.map_err(StartError::Spool)?;
        tasks.spawn_core("engine", recovered.run());
        let sender = outbox::Sender::new(
            queue,
            client.clone(),
            runner.clone(),
            engine.clone(),
            config.max_message,
        );
        tasks.spawn_core("outbox", sender.run(tasks.shutdown_token()));
        let loader = Loader::new(config, runner.clone(), gate.clone());
        let modules = Modules::new(loader.load().await);
        let session = Session {
            events,
            engine,
            outbox,
            runner,
            modules: modules.clone(),
            runs: BlockingRuns::default(),
            gate: gate.clone(),
            access_log: access_log.clone(),
            broker: None,
            tasks: tasks.clone(),
            limits: Limits::default(),
        };
        tasks.spawn_core("session", session.run());
        let ask_modules = Arc::new(Notify::new());
        let following = loader.follow(modules, Arc::clone(&ask_modules), tasks.shutdown_token());
        tasks.spawn("external-modules", following);
        daemon::watchdog(&tasks);
        let followed = Arc::clone(&identity);
        let shutdown = tasks.shutdown_token();
        tasks.spawn("certificates", async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = followed.follow() => {}
            }
        });
        Ok(Self {
            tasks,
            client,
            access_log,
            gate,
            identity,
            ask_modules,
        })
    }

    /// The connection to the broker.
    #[must_use]
    pub fn client(&self) -> &ClientHandle {
        &self.client
    }

    /// Ends when a part of the agent has ended, which none should.
    pub async fn failed(&self) {
        self.tasks.shutdown_token().cancelled().await;
    }

    /// Says goodbye to the broker and ends; running tasks go on. `false` when a part did not end in
    /// time.
    pub async fn stop(self) -> bool {
        self.tasks.shutdown(SHUTDOWN).await
    }
}

fn node(config: &Config, identity: &Identity) -> Node {
    Node {
        puppet: config.puppet.clone(),
        certname: identity.certname().clone(),
        tls: config.tls.clone(),
        primaries: config.downloads.primaries.clone(),
        proxy: config.downloads.proxy.clone(),
        plugins: config.cache_dir.join(cache::PLUGINS),
    }
}

/// Runs an agent until a signal ends it, or one of its parts.
pub async fn serve(config: &Config, logs: &Logs) -> ExitCode {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "cannot listen for signals");
            return ExitCode::Failure;
        }
    };
    let mut rotated = match signal(SignalKind::user_defined2()) {
        Ok(rotated) => rotated,
        Err(error) => {
            tracing::error!(%error, "cannot listen for signals");
            return ExitCode::Failure;
        }
    };
    let agent = {
        let mut starting = pin!(Agent::start(config));
        loop {
            tokio::select! {
                biased;
                signal = signals.next() => match signal {
                    // Everything is being read just now.
                    Signal::Hangup => {}
                    Signal::Terminate | Signal::Interrupt => return ExitCode::Ok,
                },
                started = &mut starting => break started,
            }
        }
    };
    let agent = match agent {
        Ok(agent) => agent,
        Err(error) => {
            if let StartError::Policy(PolicyError(faults)) = &error {
                for fault in faults {
                    tracing::error!(%fault, "the policy is broken");
                }
            } else {
                let error = daemon::error_chain(&error);
                tracing::error!(error, "pxp-agent cannot start");
            }
            return error.exit_code();
        }
    };
    daemon::ready();
    let code = loop {
        tokio::select! {
            biased;
            () = agent.failed() => break ExitCode::Failure,
            _ = rotated.recv() => reopen(logs, &agent.access_log),
            signal = signals.next() => match signal {
                Signal::Hangup => reload(config, &agent, logs),
                signal => {
                    tracing::info!(?signal, "stopping; running tasks go on");
                    break ExitCode::Ok;
                }
            },
        }
    };
    daemon::stopping();
    if !agent.stop().await {
        tracing::warn!("a part of the agent did not end in time");
    }
    code
}

/// SIGHUP: certificates, external modules, controllers, policy and log level are read again. What is wrong
/// is told, and what was before stays, as a whole; but an external module that is no good goes.
fn reload(config: &Config, agent: &Agent, logs: &Logs) {
    agent.identity.check_soon();
    agent.ask_modules.notify_one();
    let new = match config.again() {
        Ok(new) => new,
        Err(refused) => {
            for fault in refused.faults {
                tracing::error!(%fault, "SIGHUP: the configuration is broken; nothing changes");
            }
            return;
        }
    };
    match Policy::load(&config.policy_dir) {
        Ok(policy) => {
            agent.gate.replace(new.controllers, policy);
            tracing::info!("SIGHUP: controllers and policy read again");
            log_gate(config, &agent.gate);
        }
        Err(PolicyError(faults)) => {
            for fault in faults {
                tracing::error!(%fault, "SIGHUP: the policy is broken; the one before it stays");
            }
        }
    }
    logs.set_level(new.log.level);
}

/// SIGUSR2: whoever rotates logs has moved the file away.
fn reopen(logs: &Logs, access_log: &AccessLog) {
    match logs.reopen().and_then(|()| access_log.reopen()) {
        Ok(()) => tracing::info!("SIGUSR2: log files opened anew"),
        Err(error) => tracing::error!(%error, "SIGUSR2: a log file cannot be opened anew"),
    }
}

fn log_start(config: &Config, identity: &Identity) {
    tracing::info!(
        version = daemon::VERSION,
        certname = %identity.certname(),
        configuration = %config.path.display(),
        "pxp-agent started"
    );
    for key in &config.without_effect {
        tracing::info!(key, "option has no effect in this agent");
    }
}

fn log_gate(config: &Config, gate: &Gate) {
    let rules = gate.rules();
    tracing::info!(rules, directory = %config.policy_dir.display(), "policy read");
    if !gate.has_controllers() {
        tracing::warn!(
            "no controllers are named, in the configuration or in the policy: every request will be \
             refused"
        );
    }
}

fn log_support(support: &Support) -> Result<(), StartError> {
    let lines = support.describe();
    for line in &lines {
        tracing::info!(support = line, "containment of tasks");
    }
    if !nix::unistd::geteuid().is_root() {
        tracing::warn!(
            "running as an ordinary user: tasks run as that user and cannot manage the node"
        );
    }
    match (&support.cgroup, &support.pid_namespace) {
        (Facility::Missing(_), Facility::Missing(_)) => {
            Err(StartError::NoContainment(lines.join("; ")))
        }
        _ => Ok(()),
    }
}
