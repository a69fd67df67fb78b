//! The task that owns the table of transactions: what is in progress, and what has an outcome that
//! its requester does not know yet. Everything else is on disk only.
//!
//! A request becomes a job ([`job`]), which owns its transaction until it has ended and then gives
//! it back. The engine itself never waits for a disk, a process or the network: it takes commands
//! and the ends of jobs, and hands what is to be sent to the [`outbox`].
//!
//! [`outbox`]: crate::outbox

mod delivery;
pub mod handle;
mod job;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pcp::Uri;
use pxp::{StopState, TransactionId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::bounds::{Bounds, before};
use crate::gate::Judged;
use crate::metrics::counts;
use crate::modules::status;
use crate::outbox::{Outbox, Outgoing};
use crate::runner::Runner;
use crate::spool::SpoolError;
use crate::transaction::{
    Finished, Notify, Outcome, Repeat, Reported, Request, Stored, Transaction,
};
use delivery::{Deliveries, Sent};
pub use handle::{Command, EngineHandle, Progress, Stopping, channel};
use job::{EndGuard, Event};

/// How many accepted transactions may wait for a free place to run. With the default concurrency
/// this is a minute of short tasks; beyond it the requester had better know.
pub const WAITING: usize = 1024;

/// How many notices of jobs wait for the engine, beside the ends of jobs, which have their places.
const NOTICES: usize = 64;

/// How often the spool and the cache are looked through for what is too old.
const PURGE_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// After how many ends they are looked through before that, at the least: the look costs as much as
/// a few dozen transactions.
const PURGE_EVERY: usize = 256;

/// What is kept of what can be done without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Transactions whose requesters know their outcomes, by their ends.
    pub spool: Bounds,
    /// Task files, by their last use.
    pub cache: Bounds,
}

impl Retention {
    /// Whether so many ends, with so many bytes of output, are reason enough for a look.
    fn is_due(&self, ended: usize, bytes: u64) -> bool {
        let count = self.spool.count.map_or(usize::MAX, |most| most / 4);
        let size = self.spool.bytes.unwrap_or(u64::MAX) / 4;
        ended >= count.max(PURGE_EVERY) || bytes >= size
    }
}

/// The table's owner.
#[derive(Debug)]
pub struct Engine {
    runner: Runner,
    outbox: Outbox,
    tasks: daemon::Tasks,
    retention: Retention,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Receiver<Event>,
    event_sender: mpsc::Sender<Event>,
    /// The most transactions in progress at once.
    limit: usize,
    active: HashMap<TransactionId, Active>,
    finished: HashMap<TransactionId, Transaction<Finished>>,
    deliveries: Deliveries,
    /// What has been reported since the last purge: how many, and bytes of output.
    ended: (usize, u64),
    /// Taken while one is going on.
    purging: Arc<Semaphore>,
}

/// A transaction that a job owns.
#[derive(Debug)]
struct Active {
    request: Arc<Request>,
    /// Whether it is on disk, so that the requester may be told.
    durable: bool,
    /// Cancelled when somebody wants it to end.
    stop: CancellationToken,
    /// Who wants that, and waits for the end.
    stopping: Vec<oneshot::Sender<Stopping>>,
}

impl Engine {
    /// Reads the spool and takes up again what an earlier agent left: watches what still runs,
    /// ends what cannot go on, and keeps ready what is to be sent.
    ///
    /// # Errors
    /// [`SpoolError`] when the spool cannot be read.
    pub async fn recover(
        commands: mpsc::Receiver<Command>,
        runner: Runner,
        outbox: Outbox,
        tasks: daemon::Tasks,
        retention: Retention,
        concurrency: usize,
    ) -> Result<Self, SpoolError> {
        let spool = runner.spool().clone();
        let contents = match runner.disk().run(move || spool.contents()).await {
            Ok(contents) => contents?,
            Err(_stopping) => crate::spool::Contents::default(),
        };
        for unreadable in &contents.unreadable {
            let error = daemon::error_chain(&unreadable.error);
            tracing::warn!(
                error,
                "an entry of the spool cannot be read and is left alone until it is too old"
            );
        }
        let limit = concurrency.saturating_add(WAITING);
        let left = contents.transactions.len();
        let (event_sender, events) = mpsc::channel(limit.saturating_add(left) + NOTICES);
        let mut engine = Self {
            runner,
            outbox,
            tasks,
            retention,
            commands,
            events,
            event_sender,
            limit,
            active: HashMap::new(),
            finished: HashMap::new(),
            deliveries: Deliveries::default(),
            ended: (0, 0),
            purging: Arc::new(Semaphore::new(1)),
        };
        let mut reported = 0_usize;
        for stored in contents.transactions {
            match stored {
                Stored::Reported(_) => reported += 1,
                Stored::Finished(transaction) => engine.finish(transaction),
                Stored::Accepted(_) | Stored::Running(_) => engine.take_up(stored),
            }
        }
        for directory in contents.blocking_runs {
            let runner = engine.runner.clone();
            engine.start("discard", async move { runner.discard(directory).await });
        }
        tracing::info!(
            in_progress = engine.active.len(),
            to_be_told = engine.finished.len(),
            done = reported,
            "spool read"
        );
        Ok(engine)
    }

    /// Works until shutdown.
    pub async fn run(mut self) {
        let shutdown = self.tasks.shutdown_token();
        let mut purge = interval(PURGE_INTERVAL);
        purge.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let due = self.deliveries.next();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(event) = self.events.recv() => self.on_event(event),
                Some(command) = self.commands.recv() => self.on_command(command),
                () = at(due) => self.deliver(Instant::now()),
                _ = purge.tick() => self.purge(),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Submit {
                request,
                judged,
                memory,
            } => self.submit(request, judged, memory),
            Command::Acknowledge { id, from } => self.acknowledge(&id, &from),
            Command::Query { id, answer } => {
                let progress = match (self.active.get(&id), self.finished.get(&id)) {
                    (Some(_), _) => Progress::InProgress,
                    (None, Some(transaction)) => Progress::Ended(
                        Arc::clone(transaction.request()),
                        transaction.outcome().clone(),
                    ),
                    (None, None) => Progress::OnDisk,
                };
                // The one who asked may have gone.
                answer.send(progress).ok();
            }
            Command::Stop { id, answer } => self.stop(&id, answer),
            Command::Connected => {
                let waiting = self.finished.values();
                let waiting = waiting.filter(|transaction| wants_outcome(transaction));
                let waiting = waiting.map(|transaction| transaction.id().clone());
                self.deliveries.connected(Instant::now(), waiting);
            }
            Command::Disconnected => self.deliveries.disconnected(),
            Command::Sent { id, delivered } => self.sent(&id, delivered),
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Durable(request) => {
                if let Some(active) = self.active.get_mut(&request.id) {
                    active.durable = true;
                }
                tracing::info!(
                    transaction_id = %request.id,
                    requester = %request.requester,
                    task = request.subject.as_deref(),
                    "transaction accepted"
                );
                self.outbox.offer(Outgoing::provisional(&request));
            }
            Event::NotDurable(request, error) => {
                self.leave(&request.id, StopState::NotStarted);
                let advice = error.advice();
                let error = daemon::error_chain(&error);
                tracing::error!(transaction_id = %request.id, error, "transaction refused");
                let mut text = format!("the agent cannot write its spool: {error}");
                if let Some(advice) = advice {
                    text = format!("{text}; {advice}");
                    // There may be something that can be done without.
                    self.purge();
                }
                self.outbox.offer(Outgoing::error(&request, &text));
            }
            Event::Refused(request, refusal) => {
                self.leave(&request.id, StopState::NotStarted);
                let text = refusal.to_string();
                self.outbox.offer(Outgoing::error(&request, &text));
            }
            Event::Known(request, found) => {
                self.leave(&request.id, StopState::Finished);
                self.repeated(&request, *found);
            }
            Event::Ended {
                transaction,
                started,
            } => {
                self.leave(transaction.id(), transaction.outcome().stopped(started));
                log_end(&transaction);
                self.finish(transaction);
            }
            Event::Reported(id) => self.leave(&id, StopState::Finished),
            Event::Interrupted(id) => {
                // Whoever waits for its end asks again, and finds what is taken up here.
                self.active.remove(&id);
                tracing::error!(transaction_id = %id, "a transaction's job ended early");
                self.resume(id);
            }
        }
    }

    /// A new request, or one that repeats an earlier one.
    fn submit(&mut self, request: Arc<Request>, judged: Judged, memory: OwnedSemaphorePermit) {
        if let Some(active) = self.active.get(&request.id) {
            let answer = match (active.request.repeated_by(&request), active.durable) {
                (Repeat::Other, _) => Outgoing::id_in_use(&request),
                (Repeat::Same, true) => Outgoing::provisional(&request),
                // The answer to the first request is the answer to this one.
                (Repeat::Same, false) => return,
            };
            self.outbox.offer(answer);
            return;
        }
        if let Some(known) = self.finished.get(&request.id) {
            let known = Stored::Finished(known.clone());
            self.repeated(&request, Ok(known));
            return;
        }
        if self.active.len() >= self.limit {
            tracing::warn!(transaction_id = %request.id, "transaction refused: too many in progress");
            let text = format!(
                "the agent is busy: {} transactions are running or waiting, and it takes no more \
                 than that; try again later",
                self.active.len()
            );
            self.outbox.offer(Outgoing::error(&request, &text));
            return;
        }
        let Some((guard, stop)) = self.begin(&request, false) else {
            let text = "the agent is busy; try again later";
            self.outbox.offer(Outgoing::error(&request, text));
            return;
        };
        let runner = self.runner.clone();
        let events = self.event_sender.clone();
        match judged {
            Judged::Granted(granted) => self.start("transaction", async move {
                job::run(runner, request, granted, guard, events, stop).await;
                drop(memory);
            }),
            Judged::Refused(refusal) => {
                self.start("refusal", job::refuse(runner, request, refusal, guard));
            }
        }
    }

    /// Answers a request whose id is known, without running anything.
    fn repeated(&mut self, request: &Arc<Request>, known: Result<Stored, SpoolError>) {
        let known = match known {
            Ok(known) => known,
            Err(error) => {
                let text = status::unreadable(&error);
                self.outbox.offer(Outgoing::error(request, &text));
                return;
            }
        };
        if known.request().repeated_by(request) == Repeat::Other {
            self.outbox.offer(Outgoing::id_in_use(request));
            return;
        }
        self.outbox.offer(Outgoing::provisional(request));
        match known.outcome() {
            Some((outcome, _)) => {
                self.outbox
                    .offer(Outgoing::outcome(known.request(), outcome));
            }
            // Nobody is at it: it was put into the spool behind our back.
            None => self.take_up(known),
        }
    }

    /// Keeps an ended transaction until its requester knows.
    fn finish(&mut self, transaction: Transaction<Finished>) {
        if wants_outcome(&transaction) {
            let id = transaction.id().clone();
            self.deliveries.add(Instant::now(), &id);
            self.finished.insert(id, transaction);
        } else {
            self.report(transaction);
        }
    }

    /// The requester knows: only the spool keeps the transaction.
    fn report(&mut self, transaction: Transaction<Finished>) {
        let bytes = match transaction.outcome() {
            Outcome::Ran(ran) => ran.stdout.bytes.saturating_add(ran.stderr.bytes),
            Outcome::Failed(_) => 0,
        };
        self.ended = (self.ended.0 + 1, self.ended.1.saturating_add(bytes));
        if self.retention.is_due(self.ended.0, self.ended.1) {
            self.purge();
        }
        let transaction: Transaction<Reported> = transaction.report();
        let Some((guard, _)) = self.begin(transaction.request(), true) else {
            return;
        };
        let runner = self.runner.clone();
        self.start("report", job::report(runner, transaction, guard));
    }

    fn acknowledge(&mut self, id: &TransactionId, from: &Uri) {
        let Some(transaction) = self.finished.get(id) else {
            tracing::debug!(transaction_id = %id, "acknowledgement of what is not waiting for one");
            return;
        };
        if transaction.request().requester != *from {
            tracing::warn!(transaction_id = %id, %from, "acknowledgement from somebody else ignored");
            return;
        }
        self.deliveries.remove(id);
        if let Some(transaction) = self.finished.remove(id) {
            self.report(transaction);
        }
    }

    /// Wants a transaction to end. The answer comes with its end.
    fn stop(&mut self, id: &TransactionId, answer: oneshot::Sender<Stopping>) {
        let Some(active) = self.active.get_mut(id) else {
            let known = self.finished.contains_key(id);
            let state = if known {
                Stopping::Done(StopState::Finished)
            } else {
                Stopping::OnDisk
            };
            // The one who asked may have gone.
            answer.send(state).ok();
            return;
        };
        tracing::info!(transaction_id = %id, "asked to stop");
        active.stopping.retain(|waiting| !waiting.is_closed());
        active.stopping.push(answer);
        active.stop.cancel();
    }

    /// Takes a transaction that no job owns any more out of the table.
    fn leave(&mut self, id: &TransactionId, state: StopState) {
        let Some(active) = self.active.remove(id) else {
            return;
        };
        for waiting in active.stopping {
            waiting.send(Stopping::Done(state)).ok();
        }
    }

    /// Sends what is due.
    fn deliver(&mut self, now: Instant) {
        while let Some(id) = self.deliveries.take_due(now) {
            let Some(transaction) = self.finished.get(&id) else {
                continue;
            };
            let outcome = Outgoing::tracked_outcome(transaction.request(), transaction.outcome());
            if !self.outbox.offer(outcome) {
                self.deliveries.sent(now, &id, Sent::QueueFull);
            }
        }
    }

    fn sent(&mut self, id: &TransactionId, delivered: bool) {
        let Some(transaction) = self.finished.get(id) else {
            return;
        };
        if delivered && transaction.request().notify == Notify::Once {
            self.deliveries.remove(id);
            if let Some(transaction) = self.finished.remove(id) {
                self.report(transaction);
            }
            return;
        }
        let sent = if delivered {
            Sent::Delivered
        } else {
            Sent::NotDelivered
        };
        self.deliveries.sent(Instant::now(), id, sent);
    }

    /// Goes on with a transaction that an earlier agent, or an earlier job, left unfinished.
    fn take_up(&mut self, stored: Stored) {
        let Some((guard, stop)) = self.begin(&Arc::clone(stored.request()), true) else {
            return;
        };
        let runner = self.runner.clone();
        self.start("transaction", job::take_up(runner, stored, guard, stop));
    }

    /// Reads an interrupted transaction back and goes on with it.
    fn resume(&mut self, id: TransactionId) {
        let runner = self.runner.clone();
        let events = self.event_sender.clone();
        let stop = CancellationToken::new();
        self.start("resume", async move {
            let spool = runner.spool().clone();
            if let Ok(Ok(Some(stored))) = runner.disk().run(move || spool.read(&id)).await
                && let Ok(permit) = events.reserve_owned().await
            {
                let guard = EndGuard::new(stored.request().id.clone(), permit);
                job::take_up(runner, stored, guard, stop).await;
            }
        });
    }

    /// Enters a transaction into the table. Every entry has a place kept for the notice of its end.
    fn begin(
        &mut self,
        request: &Arc<Request>,
        durable: bool,
    ) -> Option<(EndGuard, CancellationToken)> {
        let Ok(permit) = self.event_sender.clone().try_reserve_owned() else {
            // There are more places than entries; notices of jobs may take some of them for a moment.
            tracing::warn!(transaction_id = %request.id, "the engine's queue is full");
            return None;
        };
        let stop = CancellationToken::new();
        let active = Active {
            request: Arc::clone(request),
            durable,
            stop: stop.clone(),
            stopping: Vec::new(),
        };
        self.active.insert(request.id.clone(), active);
        Some((EndGuard::new(request.id.clone(), permit), stop))
    }

    /// Starts a job that is dropped at shutdown. What it has written and started stays.
    fn start(&self, name: &'static str, job: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.tasks.shutdown_token();
        self.tasks.spawn(name, async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = job => {}
            }
        });
    }

    /// Gives up outcomes that nobody has acknowledged in time, and removes what the bounds do not
    /// allow. One look at a time.
    fn purge(&mut self) {
        let Ok(turn) = Arc::clone(&self.purging).try_acquire_owned() else {
            return;
        };
        self.ended = (0, 0);
        let now = Timestamp::now();
        let mut given_up = Vec::new();
        if let Some(age) = self.retention.spool.age {
            let cutoff = before(now, age);
            let old = self
                .finished
                .extract_if(|_, transaction| transaction.ended() < cutoff);
            given_up.extend(old.map(|(_, transaction)| transaction.report()));
        }
        for transaction in &given_up {
            let id = transaction.id();
            tracing::warn!(transaction_id = %id, "outcome given up: nobody acknowledged it");
            self.deliveries.remove(id);
        }
        let runner = self.runner.clone();
        let retention = self.retention;
        self.start("purge", async move {
            let purge = runner.clone();
            let work = move || job::purge(&purge, given_up, retention, now);
            runner.disk().run(work).await.ok();
            drop(turn);
        });
    }
}

fn wants_outcome(transaction: &Transaction<Finished>) -> bool {
    transaction.request().notify != Notify::Never
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn log_end(transaction: &Transaction<Finished>) {
    let id = transaction.id();
    let took = transaction.ended().duration_since(transaction.accepted());
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or_default();
    counts().ended(transaction.outcome(), Duration::from_millis(duration_ms));
    match transaction.outcome() {
        Outcome::Ran(ran) => {
            let exitcode = ran.exitcode;
            tracing::info!(transaction_id = %id, exitcode, duration_ms, "transaction ended");
        }
        Outcome::Failed(error) => {
            tracing::warn!(transaction_id = %id, error, duration_ms, "transaction failed");
        }
    }
}
