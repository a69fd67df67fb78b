//! Drives the [`Controller`]: the task that owns it takes requests of the API and messages of the
//! mesh, writes down what the controller decides, and sends only what is on the disk. While the
//! database refuses, it takes nothing from the mesh and tries again: agents keep what they have to
//! tell.

mod asks;

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pcp::message::Message;
use pcp::uri::Certname;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::clock::wall;
use crate::controller::{Composer, Controller, Counts, Now, Presence, Submission};
use crate::counts::counts;
use crate::job::{JobId, Stop};
use crate::library::Library;
use crate::reports::ReportPort;
use crate::store::{Change, Known, Lookup, Store, StoreError};
use asks::Asks;

pub(crate) use asks::AskError;

/// How many requests of the API may wait. Each caller waits for its answer.
const COMMANDS: usize = 64;

/// How many messages may wait for the broker before nothing more is read from it.
const OUTBOX: usize = 4096;

/// How often the controller is told the time while it waits for anything. The shortest thing it
/// waits for is five seconds.
const TICK: Duration = Duration::from_millis(250);

/// How long after a refusal the database is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long a caller waits for an answer: far longer than any write takes on a disk that works.
const ANSWER: Duration = Duration::from_secs(10);

/// How long the last write may take when the process ends. What is not written by then is sent
/// again by the agents.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// What the mesh tells.
#[derive(Debug)]
pub(crate) enum MeshEvent {
    /// The orchestrator has a broker.
    Connected {
        broker: Certname,
        /// The largest body that it takes, in bytes.
        max_message: usize,
    },
    /// A message has come.
    Message(Message),
    /// The orchestrator has lost its broker.
    Disconnected,
}

/// The two ends of the mesh that the dispatcher holds.
#[derive(Debug)]
pub(crate) struct MeshPort {
    /// Messages to be sent. What cannot be sent is dropped: the controller sends again.
    pub(crate) outgoing: mpsc::Sender<Message>,
    /// What comes in.
    pub(crate) incoming: mpsc::Receiver<MeshEvent>,
}

/// Asks the dispatcher.
#[derive(Debug, Clone)]
pub(crate) struct DispatchHandle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
}

/// How the dispatcher is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) counts: Counts,
    /// The broker that the orchestrator is connected to.
    pub(crate) broker: Option<Certname>,
    /// Why the database does not take what is decided, when it does not.
    pub(crate) store_error: Option<String>,
}

/// Why the dispatcher gives no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// The process is being stopped.
    #[error("the dispatcher has ended")]
    Ended,
    /// What was asked for waits for the database.
    #[error("the database did not take it in time")]
    Late,
}

/// A node and how it is; none for a node that nobody has ever seen.
pub(crate) type NodePresence = (Certname, Option<Presence>);

/// Who is connected, as far as is known.
#[derive(Debug)]
pub(crate) struct InventoryAnswer {
    /// The broker that told it; none when there is none just now.
    pub(crate) broker: Option<Certname>,
    /// The nodes asked about, or all, sorted.
    pub(crate) nodes: Vec<NodePresence>,
}

#[derive(Debug)]
enum Command {
    Submit(Submission),
    Stop {
        job: JobId,
        mode: Stop,
        reply: oneshot::Sender<()>,
    },
    Inventory {
        nodes: Option<Vec<Certname>>,
        reply: oneshot::Sender<InventoryAnswer>,
    },
    Output {
        certname: Certname,
        request: pxp::OutputRequest,
        reply: asks::Reply,
    },
}

impl DispatchHandle {
    /// Runs a job that has been stored.
    ///
    /// # Errors
    /// [`NoAnswer`]; the job is run after the next start.
    pub(crate) async fn submit(&self, submission: Submission) -> Result<(), NoAnswer> {
        let command = Command::Submit(submission);
        self.commands
            .send(command)
            .await
            .map_err(|_| NoAnswer::Ended)
    }

    /// Stops a job; answers when that is stored. A job that has ended is left as it is.
    ///
    /// # Errors
    /// [`NoAnswer`]; whether the job stops is not known.
    pub(crate) async fn stop(&self, job: JobId, mode: Stop) -> Result<(), NoAnswer> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Stop { job, mode, reply };
        self.ask(command, answer).await
    }

    /// Who is connected: of these nodes, or of all that have ever been.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub(crate) async fn inventory(
        &self,
        nodes: Option<Vec<Certname>>,
    ) -> Result<InventoryAnswer, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Inventory { nodes, reply };
        self.ask(command, answer).await
    }

    /// What a task has written, from its agent. `wait` is how long the agent may take when there is
    /// nothing to say yet.
    ///
    /// # Errors
    /// [`NoAnswer`], or in the answer why the agent gives none.
    pub(crate) async fn output(
        &self,
        certname: Certname,
        request: pxp::OutputRequest,
        wait: Duration,
    ) -> Result<Result<pxp::JsonObject, AskError>, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Output {
            certname,
            request,
            reply,
        };
        let sent = self.commands.send(command).await;
        sent.map_err(|_| NoAnswer::Ended)?;
        match tokio::time::timeout(wait + ANSWER, answer).await {
            Ok(answer) => answer.map_err(|_| NoAnswer::Ended),
            Err(_) => Ok(Err(AskError::Silent)),
        }
    }

    async fn ask<T>(&self, command: Command, answer: oneshot::Receiver<T>) -> Result<T, NoAnswer> {
        let asked = async {
            let sent = self.commands.send(command).await;
            sent.map_err(|_| NoAnswer::Ended)?;
            answer.await.map_err(|_| NoAnswer::Ended)
        };
        let answered = tokio::time::timeout(ANSWER, asked).await;
        answered.unwrap_or(Err(NoAnswer::Late))
    }

    /// How the dispatcher is just now.
    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }
}

type Pending<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

type Answers = Vec<(Lookup, Known)>;

/// The task that owns the controller.
pub(crate) struct Dispatcher {
    controller: Controller,
    store: Store,
    library: Library,
    clock: Clock,
    mesh: MeshPort,
    commands: mpsc::Receiver<Command>,
    status: watch::Sender<Status>,
    broker: Option<Certname>,
    store_error: Option<String>,
    /// Gathers while a batch is being written.
    next: Batch,
    /// Being written.
    current: Batch,
    writing: Pending<Result<(), StoreError>>,
    retry_at: Instant,
    lookups: Vec<Lookup>,
    /// Questions of the API to agents.
    asks: Asks,
    /// Where reports of Puppet runs are looked for, when there is such a place.
    reports: Option<ReportPort>,
    looking: Pending<Result<Answers, StoreError>>,
    /// On the disk as far as needed, and waiting for the broker.
    outbox: VecDeque<Message>,
}

/// What is written together, and what follows once it is.
#[derive(Default)]
struct Batch {
    changes: Arc<Vec<Change>>,
    messages: Vec<Message>,
    replies: Vec<oneshot::Sender<()>>,
    ended: Vec<JobId>,
}

/// The time on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Now {
        Now {
            wall: wall(),
            mono: u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Dispatcher {
    /// A dispatcher for a controller that has been told what the database knew.
    pub(crate) fn new(
        controller: Controller,
        store: Store,
        library: Library,
        clock: Clock,
        mesh: MeshPort,
        composer: Composer,
        reports: Option<ReportPort>,
    ) -> (Self, DispatchHandle) {
        let (command_sender, commands) = mpsc::channel(COMMANDS);
        let (status, status_seen) = watch::channel(Status::default());
        let handle = DispatchHandle {
            commands: command_sender,
            status: status_seen,
        };
        let dispatcher = Self {
            controller,
            store,
            library,
            clock,
            mesh,
            commands,
            status,
            broker: None,
            store_error: None,
            next: Batch::default(),
            current: Batch::default(),
            writing: None,
            retry_at: clock.0,
            lookups: vec![],
            asks: Asks::new(composer),
            reports,
            looking: None,
            outbox: VecDeque::new(),
        };
        (dispatcher, handle)
    }

    /// Runs until it is told to end, or the mesh or the database is gone for good.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let outgoing = self.mesh.outgoing.clone();
        let mut ticker = tokio::time::interval(TICK);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.collect();
            self.flush();
            let refused = self.store_error.is_some();
            let retry = refused && self.writing.is_none();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                result = land(&mut self.writing) => if self.written(result).is_err() { break },
                result = land(&mut self.looking) => self.looked_up(result),
                () = tokio::time::sleep_until(self.retry_at), if retry => self.write(),
                permit = outgoing.reserve(), if !self.outbox.is_empty() => {
                    let Ok(permit) = permit else { break };
                    if let Some(message) = self.outbox.pop_front() {
                        permit.send(message);
                    }
                }
                _ = ticker.tick(), if !refused && self.controller.needs_tick() => {
                    self.controller.tick(self.clock.now());
                }
                Some(command) = self.commands.recv() => self.command(command),
                Some((transaction, found)) = found(&mut self.reports), if !refused => {
                    self.controller.reported(self.clock.now(), &transaction, found);
                }
                event = self.mesh.incoming.recv(), if !refused && self.outbox.len() < OUTBOX => {
                    let Some(event) = event else { break };
                    self.event(event);
                }
            }
        }
        self.finish().await;
    }

    fn command(&mut self, command: Command) {
        let now = self.clock.now();
        match command {
            Command::Submit(submission) => self.controller.submit(now, submission),
            Command::Stop { job, mode, reply } => {
                self.controller.stop(now, job, mode);
                self.next.replies.push(reply);
            }
            Command::Inventory { nodes, reply } => {
                let answer = self.inventory(nodes);
                // A caller that has gone away needs no answer.
                drop(reply.send(answer));
            }
            Command::Output {
                certname,
                request,
                reply,
            } => {
                let action = ("output", "read");
                let message = self.asks.ask(&certname, action, &request, reply);
                self.outbox.extend(message);
            }
        }
    }

    fn inventory(&self, nodes: Option<Vec<Certname>>) -> InventoryAnswer {
        let fleet = self.controller.fleet();
        let mut nodes: Vec<NodePresence> = match nodes {
            Some(nodes) => nodes
                .into_iter()
                .map(|certname| {
                    let presence = fleet.presence(&certname);
                    (certname, presence)
                })
                .collect(),
            None => fleet
                .iter()
                .map(|(certname, presence)| (certname.clone(), Some(presence.clone())))
                .collect(),
        };
        nodes.sort_by(|(a, _), (b, _)| a.cmp(b));
        let known = self.controller.knows_inventory();
        let broker = self.broker.clone().filter(|_| known);
        InventoryAnswer { broker, nodes }
    }

    fn event(&mut self, event: MeshEvent) {
        let now = self.clock.now();
        match event {
            MeshEvent::Connected {
                broker,
                max_message,
            } => {
                self.broker = Some(broker);
                self.controller.mesh_connected(now, max_message);
            }
            MeshEvent::Message(message) => {
                if !self.asks.take(&message) {
                    self.controller.message(now, &message);
                }
            }
            MeshEvent::Disconnected => {
                self.broker = None;
                self.controller.mesh_disconnected(now);
            }
        }
    }

    /// Takes over what the controller has decided.
    fn collect(&mut self) {
        let output = self.controller.take();
        Arc::make_mut(&mut self.next.changes).extend(output.changes);
        self.next.messages.extend(output.messages);
        self.next.ended.extend(output.ended);
        self.lookups.extend(output.lookups);
        for (transaction, uuid) in output.reports {
            let sent = self
                .reports
                .as_ref()
                .is_some_and(|port| port.wanted.try_send((transaction, uuid)).is_ok());
            if !sent {
                // The controller's own clock ends the wait.
                tracing::debug!("a report is not looked for");
            }
        }
    }

    /// Writes and sends what can be.
    fn flush(&mut self) {
        if self.writing.is_none() && self.store_error.is_none() {
            self.current = std::mem::take(&mut self.next);
            if self.current.changes.is_empty() {
                self.follow();
            } else {
                self.write();
            }
        }
        if self.looking.is_none() && !self.lookups.is_empty() {
            let store = self.store.clone();
            let lookups = std::mem::take(&mut self.lookups);
            self.looking = Some(Box::pin(async move { store.known(lookups).await }));
        }
        while let Some(message) = self.outbox.pop_front() {
            if let Err(error) = self.mesh.outgoing.try_send(message) {
                self.outbox.push_front(error.into_inner());
                break;
            }
        }
        let status = Status {
            counts: self.controller.counts(),
            broker: self.broker.clone(),
            store_error: self.store_error.clone(),
        };
        self.status.send_if_modified(|old| {
            let news = *old != status;
            *old = status;
            news
        });
    }

    fn write(&mut self) {
        let store = self.store.clone();
        let changes = Arc::clone(&self.current.changes);
        self.writing = Some(Box::pin(async move {
            let begun = Instant::now();
            let result = store.apply(changes).await;
            counts().wrote(begun.elapsed(), &result);
            result
        }));
    }

    /// A batch has been written, or has not. Only a database that is gone for good is an error.
    fn written(&mut self, result: Result<(), StoreError>) -> Result<(), NoAnswer> {
        self.writing = None;
        match result {
            Ok(()) => {
                if self.store_error.take().is_some() {
                    tracing::info!("the database takes changes again");
                }
                self.follow();
                Ok(())
            }
            Err(StoreError::Ended) => Err(NoAnswer::Ended),
            Err(error) => {
                let text = error.with_hint();
                if self.store_error.as_ref() != Some(&text) {
                    tracing::error!(error = text, "changes could not be stored; trying again");
                }
                self.store_error = Some(text);
                self.retry_at = Instant::now() + RETRY;
                Ok(())
            }
        }
    }

    /// What was to be written is: the rest follows.
    fn follow(&mut self) {
        let batch = std::mem::take(&mut self.current);
        counts().written(&batch.changes);
        self.outbox.extend(batch.messages);
        for reply in batch.replies {
            // A caller that has gone away needs no answer.
            reply.send(()).unwrap_or_default();
        }
        for job in batch.ended {
            self.library.remove(job);
        }
    }

    fn looked_up(&mut self, result: Result<Answers, StoreError>) {
        self.looking = None;
        match result {
            Ok(answers) => {
                let now = self.clock.now();
                for (lookup, known) in answers {
                    self.controller.looked_up(now, lookup, known);
                }
            }
            // The agents send these outcomes again.
            Err(error) => tracing::warn!(error = error.with_hint(), "outcomes not looked up"),
        }
    }

    /// Writes what has been decided before the end: first what the database has refused, since what
    /// was decided later builds on it.
    async fn finish(mut self) {
        let last = async {
            match self.writing.take() {
                Some(writing) => writing.await?,
                None => self.store.apply(Arc::clone(&self.current.changes)).await?,
            }
            self.store.apply(Arc::clone(&self.next.changes)).await
        };
        match tokio::time::timeout(LAST_WRITE, last).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = error.with_hint(), "last changes not stored"),
            Err(_) => tracing::warn!("last changes not stored in time"),
        }
    }
}

/// The next report; for ever when none are looked for.
async fn found(
    port: &mut Option<ReportPort>,
) -> Option<(pxp::TransactionId, Option<crate::outcome::FoundReport>)> {
    match port {
        Some(port) => port.found.recv().await,
        None => pending().await,
    }
}

/// Waits for something that is under way; for ever when nothing is.
async fn land<T>(under_way: &mut Pending<T>) -> T {
    match under_way {
        Some(future) => future.await,
        None => pending().await,
    }
}
