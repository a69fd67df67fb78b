//! Starts a job or takes one up, follows it to its end, and says how it went.

use std::future::Future;
use std::time::{Duration, Instant};

use orchestrator_api::{DeployRequest, Job, JobState, RerunRequest, TaskRequest};

use crate::arguments::{FollowArguments, Format};
use crate::client::Client;
use crate::error::{Failure, Left, chain};
use crate::exit::Exit;
use crate::follow::{Follower, all_nodes};
use crate::interrupt::{Interrupts, Second};
use crate::output::Outputs;
use crate::screen::{self, Screen};
use crate::tell::Teller;
use crate::{document, render};

/// The first pause between two attempts to reach an orchestrator that went away.
const SHORTEST_RETRY: Duration = Duration::from_millis(50);

/// How long an orchestrator that went away is waited for: a restart takes seconds, an upgrade a
/// minute. The job goes on without us.
const AWAY_LIMIT: Duration = Duration::from_secs(120);

/// The longest pause between two attempts to reach an orchestrator that went away.
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// What makes a job, or which job it is.
#[derive(Debug)]
pub(crate) enum Start {
    Task(Box<TaskRequest>),
    Deploy(Box<DeployRequest>),
    Rerun(Box<RerunRequest>),
    /// A job that others have started, which Ctrl-C leaves alone.
    Existing(String),
}

/// How it is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) format: Format,
    pub(crate) color: bool,
    /// Whether the job is followed to its end.
    pub(crate) wait: bool,
    /// Whether output is shown while it is written.
    pub(crate) follow: bool,
}

impl Options {
    pub(crate) fn of(arguments: &FollowArguments, format: Format, color: bool) -> Self {
        Self {
            format,
            color,
            wait: !arguments.no_wait,
            follow: arguments.follow,
        }
    }
}

/// Starts a job and follows it.
///
/// # Errors
/// When the job cannot be started or not be followed.
pub(crate) async fn run(client: &Client, start: Start, options: Options) -> Result<Exit, Failure> {
    let is_json = options.format == Format::Json;
    let mut run = Run {
        client,
        interrupts: Interrupts::listen()?,
        screen: Screen::new(options.color, is_json),
        job: None,
        is_ours: true,
        is_stopped: false,
        follows: options.follow,
    };
    let name = run.start(start).await?;
    run.job = Some(name.clone());
    let job = run.insist(&name, || client.job(&name)).await?;
    if run.is_ours {
        run.screen.lines(&render::beginning(&job));
    }
    if !options.wait {
        if is_json {
            screen::put(&document::job(&job, &[]));
        }
        return Ok(Exit::Success);
    }
    let outcome = run.follow(&name, &job).await;
    run.screen.end_bar();
    let (job, groups) = outcome?;
    if is_json {
        let nodes = run.insist(&name, || all_nodes(client, &name)).await?;
        screen::put(&document::job(&job, &nodes));
    }
    let groups = groups.render();
    if !groups.is_empty() {
        run.screen.lines("\n");
    }
    for (mood, headline, body) in groups {
        run.screen.headline(mood, &headline, &body);
    }
    run.screen.lines(&format!("\n{}", render::summary(&job)));
    Ok(match job.state {
        _ if run.interrupts.asked() => Exit::Interrupted,
        JobState::Finished => Exit::Success,
        _ => Exit::Failure,
    })
}

/// A run of the command.
struct Run<'a> {
    client: &'a Client,
    interrupts: Interrupts,
    screen: Screen,
    job: Option<String>,
    /// Whether an interrupt stops the job, because it was started here.
    is_ours: bool,
    /// Whether the orchestrator has been told to stop the job.
    is_stopped: bool,
    /// Whether output is shown while it is written.
    follows: bool,
}

impl Run<'_> {
    /// Starts the job, if it does not run yet; gives its number.
    async fn start(&mut self, start: Start) -> Result<String, Failure> {
        let client = self.client;
        // A first Ctrl-C does not drop this request: the job it may have started must be stopped.
        if !matches!(start, Start::Existing(_)) {
            self.screen.lines("Starting job ...");
        }
        let accepted = match start {
            Start::Task(request) => self.finish(client.run_task(&request)).await??,
            Start::Deploy(request) => self.finish(client.deploy(&request)).await??,
            Start::Rerun(request) => self.finish(client.rerun(&request)).await??,
            Start::Existing(name) => {
                self.is_ours = false;
                return Ok(name);
            }
        };
        Ok(accepted.job.name)
    }

    /// Follows the job to its end and tells of it. What is left to tell is in the groups.
    async fn follow(&mut self, name: &str, job: &Job) -> Result<(Job, render::Groups), Failure> {
        let client = self.client;
        let mut follower = Follower::new(client, name);
        let outputs = self.follows.then(|| Outputs::new(client, name));
        let mut teller = Teller::new(render::Manner::of(job), outputs);
        self.screen.start_bar(job.node_count);
        let mut away: Option<Away> = None;
        while !follower.is_over() {
            let mut news = Vec::new();
            let looked = tokio::select! {
                piece = teller.next_piece() => {
                    teller.tell_piece(&self.screen, piece);
                    continue;
                }
                looked = self.interrupts.wait(follower.wait(&mut news)) => looked,
            };
            let mut looked = match looked.map_err(|Second| self.interrupted())? {
                Some(looked) => looked,
                None => Ok(()),
            };
            if looked.is_ok() {
                looked = self.finish(follower.fetch(&mut news)).await?;
            }
            teller.tell(&self.screen, news, follower.running());
            match looked {
                Ok(()) => {
                    if away.take().is_some_and(|away| away.told) {
                        self.screen.remark("The orchestrator is back.");
                    }
                }
                Err(failure) => {
                    let pause = self.bear(&mut away, failure, name)?;
                    let pause = self.interrupts.wait(tokio::time::sleep(pause)).await;
                    pause.map_err(|Second| self.interrupted())?;
                }
            }
            if !follower.is_over() {
                self.stop_if_asked(name).await?;
            }
        }
        let job = self.insist(name, || client.job(name)).await?;
        let rest = self.insist(name, || follower.unreported(&job)).await?;
        teller.tell(&self.screen, rest, 0);
        while teller.is_waiting() {
            let piece = self.interrupts.wait(teller.next_piece()).await;
            if let Some(piece) = piece.map_err(|Second| self.interrupted())? {
                teller.tell_piece(&self.screen, piece);
            }
        }
        Ok((job, teller.into_groups()))
    }

    /// Tells the orchestrator to stop the job, once, after a first interrupt.
    async fn stop_if_asked(&mut self, name: &str) -> Result<(), Failure> {
        if !self.interrupts.asked() || self.is_stopped {
            return Ok(());
        }
        if !self.is_ours {
            return Err(self.interrupted());
        }
        let client = self.client;
        match self.finish(client.stop(name, false)).await? {
            Ok(_) => {
                self.is_stopped = true;
                self.screen.remark(&format!(
                    "Stopping job {name}: nodes that have started finish, the others are skipped."
                ));
                self.screen.remark("Ctrl-C again leaves at once.");
                Ok(())
            }
            // It is asked again after the next look.
            Err(failure) if failure.is_passing() => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Asks until there is an answer, as long as the orchestrator may come back.
    async fn insist<T, F>(&mut self, name: &str, ask: impl Fn() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut away = None;
        loop {
            match self.finish(ask()).await? {
                Ok(answer) => return Ok(answer),
                Err(failure) => {
                    let pause = self.bear(&mut away, failure, name)?;
                    self.finish(tokio::time::sleep(pause)).await?;
                }
            }
        }
    }

    /// Bears with an orchestrator that is away: gives the pause until the next attempt, or gives up.
    fn bear(
        &self,
        away: &mut Option<Away>,
        failure: Failure,
        job: &str,
    ) -> Result<Duration, Failure> {
        if !failure.is_passing() {
            return Err(failure);
        }
        let away = away.get_or_insert_with(Away::now);
        if away.since.elapsed() > AWAY_LIMIT {
            let seconds = AWAY_LIMIT.as_secs();
            return Err(Failure::Lost {
                job: job.to_owned(),
                seconds,
                source: Box::new(failure),
            });
        }
        if !away.told {
            away.told = true;
            self.screen.remark(&format!(
                "Lost the orchestrator: {}. The job goes on; trying again for {} seconds.",
                chain(&failure),
                AWAY_LIMIT.as_secs()
            ));
        }
        away.pause = (away.pause * 2).min(LONGEST_RETRY);
        Ok(away.pause)
    }

    async fn finish<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Failure> {
        match self.interrupts.finish(work).await {
            Ok(done) => Ok(done),
            Err(Second) => Err(self.interrupted()),
        }
    }

    fn interrupted(&self) -> Failure {
        let is_stopped = self.is_stopped;
        Failure::Interrupted {
            job: self.job.clone().map(|job| Left {
                job,
                is_stopped,
                is_ours: self.is_ours,
            }),
        }
    }
}

/// Since when the orchestrator is away.
struct Away {
    since: Instant,
    pause: Duration,
    told: bool,
}

impl Away {
    fn now() -> Self {
        Self {
            since: Instant::now(),
            pause: SHORTEST_RETRY,
            told: false,
        }
    }
}
