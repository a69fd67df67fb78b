//! From a process that was asked for to its outcome: files are staged, the wrapper is started, its
//! end is awaited. Tasks outlive the agent: what is dropped here on shutdown is only the watching.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pxp::{ActionResult, StopState, TransactionId};
use sandbox::{Alive, Job, Launcher, Prepared, Profile, RunDir, Support};
use tokio::net::unix::pipe;
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, CacheError};
use crate::confinement::{Confinement, RunAsError};
use crate::disk::{Disk, DiskError};
use crate::gate::Granted;
use crate::modules::LaunchError;
use crate::modules::launch::{Kind, Launch, Node, PATH, Place};
use crate::modules::{Process, Purpose};
use crate::results::{self, About, Form, NoResult};
use crate::spool::{Durability, Spool, SpoolError};
use crate::transaction::{Accepted, Finished, Outcome, Running, StartPermit, Stored, Transaction};

/// After this time without anything to start, the launcher of wrappers is ended: an agent at rest is one
/// process. Starting it again costs less than a task.
const REST: Duration = Duration::from_secs(60);

/// How long after the start the agent is at rest, unless it has been given something to do. By then it has
/// its session, or waits to dial again.
const SETTLED: Duration = Duration::from_secs(10);

/// Where the files of a task lie below its transaction's directory.
const STAGING: &str = "task";

/// Where tasks start, as those of the original do when it runs as a service.
const WORKING_DIRECTORY: &str = "/";

/// What tasks are run with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What starts execution wrappers.
    pub launcher: Arc<Launcher>,
    /// What this host offers to hold a task's processes together.
    pub support: Support,
    /// What every process is kept from and held to.
    pub confinement: Confinement,
    /// The most bytes of output that a message can carry.
    pub max_result: u64,
    /// How many processes run at once; more wait.
    pub concurrency: usize,
    /// The environment of every task, without its parameters.
    pub environment: Vec<(String, String)>,
    /// The login shell of the agent's user.
    pub shell: PathBuf,
    /// This program, which carries out some actions itself.
    pub agent: PathBuf,
    /// What is told of this node to processes that are more than somebody's script.
    pub node: Node,
}

/// Files that could not be had, by their places below the staging directory, and why.
type Missing = BTreeMap<PathBuf, String>;

/// Runs processes.
#[derive(Debug, Clone)]
pub struct Runner(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    disk: Disk,
    spool: Spool,
    cache: Cache,
    slots: Semaphore,
}

/// Why a process was not started. It did not run.
#[derive(Debug, thiserror::Error)]
enum NotStarted {
    #[error("the agent is stopping")]
    Stopping,
    #[error("it was stopped before it was started")]
    Stopped,
    #[error("its files could not be had")]
    Files(#[source] CacheError),
    #[error("its files did not arrive within its time limit of {} s", .0.as_secs())]
    Late(Duration),
    #[error("it cannot be done as it was asked for")]
    Launch(#[source] LaunchError),
    #[error("it cannot be run as its user")]
    User(#[source] RunAsError),
    #[error(
        "in the profile confined nothing that it writes reaches the host; have the node's policy allow \
         this module in another one"
    )]
    InVain,
    #[error("this host cannot run it as it must be run")]
    Plan(#[source] sandbox::PlanError),
    #[error("the execution wrapper could not be started")]
    Start(#[source] sandbox::StartError),
    #[error("the spool could not be written")]
    Spool(#[source] SpoolError),
    #[error("it could not be started")]
    Disk(#[source] DiskError),
}

impl Runner {
    /// A runner that puts transactions into `spool` and takes files out of `cache`.
    #[must_use]
    pub fn new(settings: Settings, disk: Disk, spool: Spool, cache: Cache) -> Self {
        Self(Arc::new(Inner {
            slots: Semaphore::new(settings.concurrency),
            settings,
            disk,
            spool,
            cache,
        }))
    }

    /// Where blocking work is done.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.0.disk
    }

    /// Where transactions lie.
    #[must_use]
    pub fn spool(&self) -> &Spool {
        &self.0.spool
    }

    /// Where task files lie.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// The most bytes of output that a message can carry.
    #[must_use]
    pub fn max_result(&self) -> u64 {
        self.0.settings.max_result
    }

    /// Brings an accepted transaction, whose record is on disk, to its end, which `stop` hastens.
    pub async fn run(
        &self,
        transaction: Transaction<Accepted>,
        granted: Granted,
        stop: &CancellationToken,
    ) -> Ended {
        let id = transaction.id().clone();
        let directory = self.0.spool.directory(&id);
        let slot = tokio::select! {
            biased;
            () = stop.cancelled() => Err(NotStarted::Stopped),
            slot = self.0.slots.acquire() => slot.map_err(|_| NotStarted::Stopping),
        };
        let _slot = match slot {
            Ok(slot) => slot,
            Err(error) => {
                return not_started(transaction.fail(Timestamp::now(), did_not_run(&error)));
            }
        };
        let transaction = transaction.stage();
        let staged = tokio::select! {
            biased;
            () = stop.cancelled() => Err(NotStarted::Stopped),
            staged = self.stage(&granted, &directory) => staged,
        };
        let missing = match staged {
            Ok(missing) => missing,
            Err(error) => {
                return not_started(transaction.fail(Timestamp::now(), did_not_run(&error)));
            }
        };
        let limit = granted.grant().limits.time;
        let (transaction, permit) = transaction.start();
        let started = Stored::Running(transaction.clone());
        let runner = self.clone();
        let start = move || {
            // Before the process is there: should the agent end right here, the transaction counts
            // as started. Not flushed: a loss of power ends the process, and the record before this
            // one, being of an earlier start of the machine, then says the same.
            let spool = &runner.0.spool;
            spool
                .write(&started, Durability::Lazy)
                .map_err(NotStarted::Spool)?;
            let name = id.as_str();
            runner.start(
                permit,
                &granted,
                name,
                &directory,
                &missing,
                Kind::NonBlocking,
            )
        };
        match self.0.disk.run(start).await.map_err(NotStarted::Disk) {
            Ok(Ok(alive)) => {
                let transaction = self.watch(transaction, alive, Some(limit), stop).await;
                Ended {
                    transaction,
                    started: true,
                }
            }
            Ok(Err(error)) | Err(error) => {
                let outcome = Outcome::Failed(did_not_run(&error));
                not_started(transaction.finish(Timestamp::now(), outcome))
            }
        }
    }

    /// Waits for the end of a transaction's process, which `stop` hastens, and writes the outcome down.
    /// Its wrapper may still be making the report durable.
    pub async fn watch(
        &self,
        transaction: Transaction<Running>,
        alive: Alive,
        limit: Option<Duration>,
        stop: &CancellationToken,
    ) -> Transaction<Finished> {
        self.wait_for_end(&alive, stop).await;
        let ended = transaction.clone();
        let spool = self.0.spool.clone();
        let end = move || {
            let ended = ended.finish(Timestamp::now(), outcome_of(alive, limit));
            write_down(&spool, &ended);
            ended
        };
        self.0.disk.run(end).await.unwrap_or_else(|error| {
            let outcome = Outcome::Failed(daemon::error_chain(&error));
            transaction.finish(Timestamp::now(), outcome)
        })
    }

    /// Clears away what only the process needed, once nobody waits for the outcome any more.
    pub async fn clear(&self, id: &TransactionId) {
        let staging = self.0.spool.directory(id).join(STAGING);
        self.0.disk.run(move || remove_tree(&staging)).await.ok();
    }

    /// Makes the agent small whenever there was nothing to start for a while and nothing runs, until it
    /// stops: ends the launcher of wrappers, and lets go of the program's pages that only work has needed.
    pub async fn rest(self, shutdown: CancellationToken) {
        let mut look = interval_at(Instant::now() + SETTLED, REST);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = look.tick() => {}
            }
            if self.0.slots.available_permits() < self.0.settings.concurrency {
                continue;
            }
            let runner = self.clone();
            let rest = move || {
                if runner.0.settings.launcher.rest(REST)
                    && let Err(error) = sandbox::let_go_of_program()
                {
                    tracing::debug!(%error, "the program's pages stay in memory");
                }
            };
            if self.0.disk.run(rest).await.is_err() {
                return;
            }
        }
    }

    /// Writes the outcome down of what [`Runner::watch`] has not seen end.
    pub async fn settle(&self, transaction: &Transaction<Finished>) {
        let spool = self.0.spool.clone();
        let ended = transaction.clone();
        if let Err(error) = self.0.disk.run(move || write_down(&spool, &ended)).await {
            not_written(transaction, &error);
        }
    }

    /// Runs a process for a blocking request, in a directory that is removed afterwards. `stop` hastens
    /// its end; the second value says whether it did.
    ///
    /// # Errors
    /// [`NoResult`] when it could not be run to a result.
    pub async fn run_blocking(
        &self,
        granted: Granted,
        form: Form,
        stop: &CancellationToken,
    ) -> (Result<ActionResult, NoResult>, StopState) {
        let not_started = |error| (Err(NoResult(did_not_run(&error))), StopState::NotStarted);
        let token = uuid::Uuid::new_v4().as_u64_pair().0;
        let spool = self.0.spool.clone();
        let made = self.0.disk.run(move || spool.begin_blocking(token)).await;
        let directory = match made.map_err(NotStarted::Disk) {
            Ok(Ok(directory)) => directory,
            Ok(Err(error)) => return not_started(NotStarted::Spool(error)),
            Err(error) => return not_started(error),
        };
        let about = About {
            form,
            rule: Some(granted.grant().rule.clone()),
        };
        let (outcome, started) = match self.run_in(granted, token, directory.clone(), stop).await {
            Ok(outcome) => (outcome, true),
            Err(error) => (Outcome::Failed(did_not_run(&error)), false),
        };
        let state = outcome.stopped(started);
        let max_result = self.0.settings.max_result;
        let collect = move || {
            let result = results::of(&directory, &outcome, &about, max_result);
            remove_tree(&directory);
            result
        };
        let collected = self.0.disk.run(collect).await;
        let result = collected.map_err(|error| NoResult(daemon::error_chain(&error)));
        (result.flatten(), state)
    }

    /// Ends the run of a blocking request whose requester has gone, and removes its directory.
    pub async fn discard(&self, directory: PathBuf) {
        let path = directory.clone();
        let stop = move || {
            let run = RunDir::new(path);
            sandbox::stop(&run).map_err(|error| daemon::error_chain(&error))?;
            sandbox::adopt(&run).map_err(|error| daemon::error_chain(&error))
        };
        match self.0.disk.run(stop).await {
            Ok(Ok(sandbox::Adoption::Running(alive))) => {
                self.end_of(alive, None, &never()).await;
            }
            Ok(Ok(sandbox::Adoption::Ended(_) | sandbox::Adoption::Lost)) => {}
            Ok(Err(error)) => {
                tracing::warn!(directory = %directory.display(), error, "left as it is");
                return;
            }
            Err(_stopping) => return,
        }
        self.0.disk.run(move || remove_tree(&directory)).await.ok();
    }

    async fn run_in(
        &self,
        granted: Granted,
        token: u64,
        directory: PathBuf,
        stop: &CancellationToken,
    ) -> Result<Outcome, NotStarted> {
        let ready = async {
            let slot = self.0.slots.acquire().await;
            let slot = slot.map_err(|_| NotStarted::Stopping)?;
            Ok::<_, NotStarted>((slot, self.stage(&granted, &directory).await?))
        };
        let (_slot, missing) = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(NotStarted::Stopped),
            ready = ready => ready?,
        };
        let limit = granted.grant().limits.time;
        let runner = self.clone();
        let name = format!("blocking-{token:016x}");
        let permit = StartPermit::for_blocking_request();
        let kind = Kind::Blocking;
        let start = move || runner.start(permit, &granted, &name, &directory, &missing, kind);
        let alive = self.0.disk.run(start).await.map_err(NotStarted::Disk)??;
        Ok(self.end_of(alive, Some(limit), stop).await)
    }

    /// Tells a wrapper to end its task: it does so with SIGTERM, a grace, and SIGKILL.
    async fn ask_to_stop(&self, run: &RunDir) {
        let run = run.clone();
        match self.0.disk.run(move || sandbox::stop(&run)).await {
            // Without a wrapper it has just ended.
            Ok(Ok(_asked)) => {}
            Ok(Err(error)) => {
                let error = daemon::error_chain(&error);
                tracing::error!(
                    error,
                    "a task cannot be stopped; its time limit will end it"
                );
            }
            Err(_stopping) => {}
        }
    }

    /// Fetches the task's files. They may take as long as the task itself may: a source that gives a
    /// byte now and then must not hold a place for ever.
    async fn stage(&self, granted: &Granted, directory: &Path) -> Result<Missing, NotStarted> {
        let limit = granted.grant().limits.time;
        let staged = timeout(limit, self.place_files(granted.process(), directory)).await;
        staged.map_err(|_| NotStarted::Late(limit))?
    }

    async fn place_files(
        &self,
        process: &Process,
        directory: &Path,
    ) -> Result<Missing, NotStarted> {
        let staging = directory.join(STAGING);
        let mut missing = Missing::new();
        for (path, file) in process.files() {
            match self.0.cache.place(file, &staging.join(&path)).await {
                Ok(()) => {}
                Err(error) if process.purpose() == Purpose::ToPutFiles => {
                    missing.insert(path, daemon::error_chain(&error));
                }
                Err(error) => return Err(NotStarted::Files(error)),
            }
        }
        Ok(missing)
    }

    /// Starts the wrapper. Blocks for about a millisecond.
    fn start(
        &self,
        permit: StartPermit,
        granted: &Granted,
        name: &str,
        directory: &Path,
        missing: &Missing,
        kind: Kind,
    ) -> Result<Alive, NotStarted> {
        let settings = &self.0.settings;
        let staging = directory.join(STAGING);
        let place = Place {
            staging: &staging,
            missing,
            kind,
            shell: &settings.shell,
            agent: &settings.agent,
            node: &settings.node,
        };
        let launch = granted.process().launch(&place);
        let Launch {
            program,
            arguments,
            delivery,
        } = launch.map_err(NotStarted::Launch)?;
        let policy = settings.confinement.policy(granted.grant());
        let mut policy = policy.map_err(NotStarted::User)?;
        match (granted.process().purpose(), policy.profile) {
            (Purpose::ToPutFiles, Profile::Confined) => return Err(NotStarted::InVain),
            (Purpose::ToPutFiles, _) => policy.paths.shared.push(PathBuf::from("/tmp")),
            (Purpose::ToRun, _) => {}
        }
        if policy.profile == Profile::Host && policy.run_as.is_some() {
            let through = self.0.spool.let_through(directory);
            through.map_err(NotStarted::Spool)?;
        }
        let job = Job {
            program: &program,
            arguments,
            environment: settings.environment.clone(),
            working_directory: PathBuf::from(WORKING_DIRECTORY),
            name,
            visible: vec![staging],
        };
        let plan = sandbox::plan(&policy, &job, &settings.support).map_err(NotStarted::Plan)?;
        let run = RunDir::new(directory.to_path_buf());
        let prepared = Prepared::new(&plan, &run, &delivery).map_err(NotStarted::Start)?;
        drop(permit);
        prepared
            .start(&settings.launcher)
            .map_err(NotStarted::Start)
    }

    async fn end_of(
        &self,
        alive: Alive,
        limit: Option<Duration>,
        stop: &CancellationToken,
    ) -> Outcome {
        self.wait_for_end(&alive, stop).await;
        let outcome = self.0.disk.run(move || outcome_of(alive, limit)).await;
        outcome.unwrap_or_else(|error| Outcome::Failed(daemon::error_chain(&error)))
    }

    async fn wait_for_end(&self, alive: &Alive, stop: &CancellationToken) {
        tokio::select! {
            biased;
            () = wait(alive) => {}
            () = stop.cancelled() => {
                self.ask_to_stop(alive.dir()).await;
                wait(alive).await;
            }
        }
    }
}

/// What came of a transaction.
#[derive(Debug)]
#[must_use]
pub struct Ended {
    /// With its outcome.
    pub transaction: Transaction<Finished>,
    /// Whether its process was ever started.
    pub started: bool,
}

fn not_started(transaction: Transaction<Finished>) -> Ended {
    Ended {
        transaction,
        started: false,
    }
}

/// For what nobody can stop.
pub(crate) fn never() -> CancellationToken {
    CancellationToken::new()
}

/// What came of a run that has ended. Blocks.
fn outcome_of(alive: Alive, limit: Option<Duration>) -> Outcome {
    match alive.finish() {
        Ok(report) => results::outcome(&report, limit),
        Err(error) => results::outcome_without_report(&error),
    }
}

/// Adds an outcome to the records of its transaction. A failure is logged and changes nothing: the
/// wrapper's report says the same after a restart. Blocks.
fn write_down(spool: &Spool, transaction: &Transaction<Finished>) {
    // The wrapper flushes its report, which says the same; everything else is known here only.
    let durability = match transaction.outcome() {
        Outcome::Ran(_) => Durability::Lazy,
        Outcome::Failed(_) => Durability::Flushed,
    };
    let stored = Stored::Finished(transaction.clone());
    if let Err(error) = spool.write(&stored, durability) {
        not_written(transaction, &error);
    }
}

fn not_written(transaction: &Transaction<Finished>, error: &dyn std::error::Error) {
    let id = transaction.id();
    let error = daemon::error_chain(error);
    tracing::error!(transaction_id = %id, error, "outcome not written to the spool");
}

/// Waits until the run has ended, as far as the system lets us; `report` waits for the rest.
async fn wait(alive: &Alive) {
    let end = alive
        .as_fd()
        .try_clone_to_owned()
        .and_then(pipe::Receiver::from_owned_fd);
    let end = match end {
        Ok(end) => end,
        Err(error) => {
            tracing::warn!(%error, "cannot watch an execution wrapper; a thread waits for it");
            return;
        }
    };
    // Nobody writes to this pipe; should somebody, it must not read as the end.
    let mut nothing = [0; 64];
    while end.readable().await.is_ok() {
        match end.try_read(&mut nothing) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// The environment of tasks: what a service has, and nothing of the agent's own.
///
/// # Errors
/// When the user database cannot be read, or does not have the agent's user.
pub fn environment() -> io::Result<Vec<(String, String)>> {
    let user = own_user()?;
    let home = user.dir.to_string_lossy().into_owned();
    Ok([
        ("PATH", PATH.to_owned()),
        ("HOME", home),
        ("USER", user.name.clone()),
        ("LOGNAME", user.name),
        ("SHELL", "/bin/sh".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into())
}

/// The login shell of the agent's own user.
///
/// # Errors
/// When the user database does not know it.
pub fn shell() -> io::Result<PathBuf> {
    let shell = own_user()?.shell;
    // What login(1) takes where there is none.
    let default = PathBuf::from("/bin/sh");
    Ok(Some(shell)
        .filter(|shell| shell.is_absolute())
        .unwrap_or(default))
}

/// The agent's own user.
///
/// # Errors
/// When the user database does not know it.
pub fn user() -> io::Result<String> {
    own_user().map(|user| user.name)
}

fn own_user() -> io::Result<nix::unistd::User> {
    nix::unistd::User::from_uid(nix::unistd::geteuid())?
        .ok_or_else(|| io::Error::other("the agent's user has no entry in the user database"))
}

fn did_not_run(error: &NotStarted) -> String {
    format!("the task did not run: {}", daemon::error_chain(error))
}

fn remove_tree(path: &Path) {
    match std::fs::remove_dir_all(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(directory = %path.display(), %error, "not removed");
        }
    }
}
