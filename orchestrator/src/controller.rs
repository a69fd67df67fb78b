//! The controller: which node runs when, what is sent to it, and what becomes of it. It decides and
//! does not act: time comes in as an argument, and what is to be written and sent is taken out with
//! [`Controller::take`]. What is sent may only be sent once what was written is on the disk.

mod compose;
mod fleet;
mod inbox;
mod report;
mod run;
mod schedule;
mod stop;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use orchestrator_api::JobState;
use pcp::body::InventoryChange;
use pcp::message::{Message, MessageId};
use pcp::uri::Certname;
use pxp::{JsonObject, TransactionId};

pub(crate) use compose::Composer;
pub(crate) use fleet::{Fleet, Presence};
pub(crate) use report::REPORT;
pub(crate) use run::lease;

use crate::job::{Action, Job, JobId};
use crate::outcome::Outcome;
use crate::store::{Change, Known, Late, Lookup, NewNode, NodeEnd, Secret, SeenNode, Unfinished};
use run::{Phase, Run};

/// What every orchestrator needs to be told.
#[derive(Debug)]
pub(crate) struct Settings {
    /// How many nodes may run tasks at once, over all jobs.
    pub(crate) task_concurrency: usize,
    /// How many nodes may run Puppet at once, over all jobs.
    pub(crate) compile_concurrency: usize,
    /// Milliseconds that an agent which has a task may be silent before the task counts as lost.
    pub(crate) lease: u64,
    /// Whether there is somebody to ask for the reports of Puppet runs.
    pub(crate) reports: bool,
    /// Milliseconds that a node has to be reachable and to answer.
    pub(crate) pcp_timeout: u64,
    /// The largest message in bytes that will be sent.
    pub(crate) max_message: usize,
}

/// The present on both clocks: what is stored, and what is waited by. Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// Since 1970.
    pub(crate) wall: i64,
    /// Since the start, never going back.
    pub(crate) mono: u64,
}

/// A stored job that is to be run.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) id: JobId,
    pub(crate) action: Action,
    pub(crate) nodes: Vec<NewNode>,
    /// How many of them may run at once.
    pub(crate) concurrency: Option<u64>,
    pub(crate) request: JsonObject,
    /// Milliseconds on each node.
    pub(crate) time_limit: u64,
}

/// What is to be done next: first the changes, and when they are on the disk, the rest.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// To be written, all or none.
    pub(crate) changes: Vec<Change>,
    /// To be sent.
    pub(crate) messages: Vec<Message>,
    /// To be looked up in the database; the answers go to [`Controller::looked_up`].
    pub(crate) lookups: Vec<Lookup>,
    /// Reports to be looked for, by what the agent called the run; the answers go to
    /// [`Controller::reported`].
    pub(crate) reports: Vec<(TransactionId, String)>,
    /// Jobs that have ended.
    pub(crate) ended: Vec<JobId>,
}

/// Counts for an operator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Jobs that have not ended.
    pub(crate) jobs: usize,
    /// Nodes that have been sent a request.
    pub(crate) running: usize,
    /// Nodes that wait for their turn.
    pub(crate) ready: usize,
    /// Nodes that wait to come back.
    pub(crate) waiting: usize,
    /// Nodes that are connected.
    pub(crate) connected: usize,
    /// Whether a broker has told who is connected.
    pub(crate) mesh: bool,
}

/// A node of a job.
type Key = (JobId, u32);

/// See the module.
#[derive(Debug)]
pub(crate) struct Controller {
    settings: Settings,
    /// The largest message in bytes that we send and the broker takes.
    max_message: usize,
    composer: Composer,
    mesh: Mesh,
    /// What has changed of an inventory that is still on its way: the last word about each node.
    early_news: BTreeMap<Certname, InventoryChange>,
    fleet: Fleet,
    jobs: BTreeMap<JobId, ActiveJob>,
    /// Jobs with nodes that may be started, in turn.
    rotation: VecDeque<JobId>,
    /// Every node of every active job.
    transactions: HashMap<TransactionId, Key>,
    /// Requests on their way, by the id that a broker's error would name.
    requests: HashMap<MessageId, Key>,
    /// Nodes that have been sent a request and have not ended.
    running: BTreeSet<Key>,
    /// How many of them take a place, by what they run.
    places: Places,
    /// Nodes that went away a moment ago and may come back.
    waiting: BTreeSet<Key>,
    /// Running and waiting nodes by certname.
    interest: HashMap<Certname, Vec<Key>>,
    output: Output,
}

/// How many nodes run what.
#[derive(Debug, Default)]
struct Places {
    tasks: usize,
    compiles: usize,
}

impl Places {
    fn of(&mut self, action: Action) -> &mut usize {
        match action {
            Action::TaskRun => &mut self.tasks,
            Action::PuppetRun => &mut self.compiles,
        }
    }
}

#[derive(Debug)]
struct ActiveJob {
    job: Job,
    action: Action,
    /// Whether a Puppet run was asked to only look, and not to only look.
    asked_noop: Option<(bool, bool)>,
    runs: Vec<Run>,
    /// How many nodes may run at once, and how many do.
    concurrency: usize,
    places: usize,
    /// Nodes that wait for their turn.
    ready: VecDeque<u32>,
    /// What agents are sent; nothing after a restart when it held sensitive parameters.
    request: Option<JsonObject>,
    time_limit: u64,
}

/// The orchestrator's own connection.
#[derive(Debug)]
enum Mesh {
    Down {
        since: u64,
    },
    /// Connected, and the inventory has been asked for.
    Asked {
        at: u64,
        since: u64,
        /// The requests of this session: an answer may be to any of them, and to none of an earlier one.
        requests: Vec<MessageId>,
    },
    /// Connected, and told who else is.
    Known {
        since: u64,
    },
}

impl ActiveJob {
    fn new(
        id: JobId,
        action: Action,
        job: Job,
        runs: Vec<Run>,
        concurrency: Option<u64>,
        request: Option<JsonObject>,
        time_limit: u64,
    ) -> Self {
        let most = concurrency.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
        let is_puppet = action == Action::PuppetRun;
        Self {
            job,
            action,
            asked_noop: request
                .as_ref()
                .filter(|_| is_puppet)
                .map(compose::asked_noop),
            runs,
            concurrency: most.unwrap_or(usize::MAX),
            places: 0,
            ready: VecDeque::new(),
            request: request.map(|request| match action {
                Action::TaskRun => request,
                Action::PuppetRun => compose::with_job(request, id),
            }),
            time_limit,
        }
    }

    fn with_ready(mut self, ready: VecDeque<u32>) -> Self {
        self.ready = ready;
        self
    }
}

impl Controller {
    pub(crate) fn new(now: Now, settings: Settings, composer: Composer) -> Self {
        Self {
            max_message: settings.max_message,
            settings,
            composer,
            mesh: Mesh::Down { since: now.mono },
            early_news: BTreeMap::new(),
            fleet: Fleet::default(),
            jobs: BTreeMap::new(),
            rotation: VecDeque::new(),
            transactions: HashMap::new(),
            requests: HashMap::new(),
            running: BTreeSet::new(),
            places: Places::default(),
            waiting: BTreeSet::new(),
            interest: HashMap::new(),
            output: Output::default(),
        }
    }

    /// Takes what is to be done next.
    pub(crate) fn take(&mut self) -> Output {
        std::mem::take(&mut self.output)
    }

    /// Who is connected.
    pub(crate) fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Whether a broker has told who is connected.
    pub(crate) fn knows_inventory(&self) -> bool {
        matches!(self.mesh, Mesh::Known { .. })
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            jobs: self.jobs.len(),
            running: self.running.len(),
            ready: self.jobs.values().map(|job| job.ready.len()).sum(),
            waiting: self.waiting.len(),
            connected: self.fleet.connected(),
            mesh: self.knows_inventory(),
        }
    }

    /// What the database knew at the start.
    pub(crate) fn restore(&mut self, now: Now, nodes: Vec<SeenNode>, jobs: Vec<Unfinished>) {
        self.fleet.restore(now, nodes);
        for job in jobs {
            self.restore_job(now, job);
        }
    }

    /// A job is stored and is to be run.
    pub(crate) fn submit(&mut self, now: Now, submission: Submission) {
        let Submission {
            id,
            action,
            nodes,
            concurrency,
            request,
            time_limit,
        } = submission;
        let runs: Vec<_> = nodes
            .into_iter()
            .map(|node| Run::new(node.certname, node.transaction))
            .collect();
        for (index, run) in (0..).zip(&runs) {
            self.transactions
                .insert(run.transaction.clone(), (id, index));
        }
        let ready = (0..).take(runs.len()).collect();
        let job = Job::new(runs.len());
        let job = ActiveJob::new(
            id,
            action,
            job,
            runs,
            concurrency,
            Some(request),
            time_limit,
        )
        .with_ready(ready);
        self.jobs.insert(id, job);
        self.rotation.push_back(id);
        self.schedule(now);
    }

    /// The orchestrator has a broker.
    pub(crate) fn mesh_connected(&mut self, now: Now, max_message: usize) {
        self.max_message = self.settings.max_message.min(max_message);
        self.mesh = Mesh::Asked {
            at: now.mono,
            since: now.mono,
            requests: Vec::new(),
        };
        self.early_news.clear();
        self.ask_for_inventory();
    }

    fn ask_for_inventory(&mut self) {
        if let Mesh::Asked { requests, .. } = &mut self.mesh
            && let Some(request) = self.composer.inventory_request()
        {
            requests.push(request.envelope.id);
            self.output.messages.push(request);
        }
    }

    /// The orchestrator has lost its broker.
    pub(crate) fn mesh_disconnected(&mut self, now: Now) {
        if !matches!(self.mesh, Mesh::Down { .. }) {
            self.mesh = Mesh::Down { since: now.mono };
        }
    }

    /// What the database knows about a transaction that has an outcome but no active job.
    pub(crate) fn looked_up(&mut self, now: Now, lookup: Lookup, known: Known) {
        let Lookup {
            transaction,
            certname,
            outcome,
        } = lookup;
        match known {
            Known::Ended => self.acknowledge(&certname, &transaction),
            Known::GivenUp => {
                self.late(now, &transaction, outcome);
                self.acknowledge(&certname, &transaction);
            }
            Known::Unknown => {
                // The agent would send it for ever. Its spool keeps it for an operator to find.
                tracing::warn!(transaction_id = %transaction, %certname, "outcome of an unknown transaction");
                self.acknowledge(&certname, &transaction);
            }
            Known::Open => {}
            Known::OfAnother => {
                tracing::warn!(transaction_id = %transaction, %certname, "outcome of another node's transaction");
            }
        }
    }

    /// Keeps what the agent of a node that had been given up has reported after all.
    fn late(&mut self, now: Now, transaction: &TransactionId, outcome: Outcome) {
        tracing::info!(transaction_id = %transaction, "late outcome of a node that had been given up");
        let late = Late {
            state: outcome.end.into(),
            at: now.wall,
            result: Secret(outcome.result),
        };
        self.output.changes.push(Change::NodeLate {
            transaction: transaction.clone(),
            late: Box::new(late),
        });
    }

    /// Records how a node ended, unless that has been recorded before.
    fn finish(&mut self, now: Now, key: Key, outcome: Outcome) {
        let (id, node) = key;
        let Some(active) = self.jobs.get_mut(&id) else {
            return;
        };
        let Ok(index) = usize::try_from(node) else {
            return;
        };
        let Some(job_state) = active.job.end(index, outcome.end) else {
            let given_up = active.runs.get_mut(index).filter(|run| run.given_up);
            if let Some(run) = given_up {
                run.given_up = false;
                let transaction = run.transaction.clone();
                self.late(now, &transaction, outcome);
            }
            return;
        };
        let Some(state) = active.job.node(index) else {
            return;
        };
        if let Some(run) = active.runs.get_mut(index) {
            run.given_up = outcome.given_up;
        }
        self.forget(key);
        self.ended(now, key, NodeEnd::of(state, outcome));
        if let Some(state) = job_state {
            self.enter(now, id, state);
        }
    }

    /// Writes the end of a node down.
    fn ended(&mut self, now: Now, key: Key, end: NodeEnd) {
        let (job, node) = key;
        let Some(run) = self.run(key) else { return };
        let certname = run.certname.clone();
        let transaction = &run.transaction;
        tracing::debug!(job_id = %job, transaction_id = %transaction, %certname,
            state = end.state.text(), "node ended");
        self.output.changes.push(Change::NodeEnded {
            job,
            node,
            certname,
            at: now.wall,
            end: Box::new(end),
        });
    }

    /// Writes a job's new state down; forgets the job when that is its last.
    fn enter(&mut self, now: Now, id: JobId, state: JobState) {
        let at = now.wall;
        self.output
            .changes
            .push(Change::JobEntered { job: id, state, at });
        if !state.is_final() {
            return;
        }
        tracing::info!(job_id = %id, state = state.text(), "job ended");
        self.rotation.retain(|job| *job != id);
        if let Some(active) = self.jobs.remove(&id) {
            for run in active.runs {
                self.transactions.remove(&run.transaction);
            }
        }
        self.output.ended.push(id);
    }

    /// Nothing is waited for from this node any more.
    fn forget(&mut self, key: Key) {
        self.leave_place(key);
        self.running.remove(&key);
        self.waiting.remove(&key);
        let Some(run) = self.run_mut(key) else { return };
        let certname = run.certname.clone();
        if let Phase::Sending { message, .. } = std::mem::replace(&mut run.phase, Phase::Idle) {
            self.requests.remove(&message);
        }
        if let Some(keys) = self.interest.get_mut(&certname) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.interest.remove(&certname);
            }
        }
    }

    /// The node runs: it takes a place of its kind and of its job.
    fn take_place(&mut self, (id, node): Key) {
        let Some(active) = self.jobs.get_mut(&id) else {
            return;
        };
        let index = usize::try_from(node).unwrap_or(usize::MAX);
        if let Some(run) = active.runs.get_mut(index)
            && !run.has_place
        {
            run.has_place = true;
            active.places += 1;
            *self.places.of(active.action) += 1;
        }
    }

    /// The node does not run any more.
    fn leave_place(&mut self, (id, node): Key) {
        let Some(active) = self.jobs.get_mut(&id) else {
            return;
        };
        let index = usize::try_from(node).unwrap_or(usize::MAX);
        if let Some(run) = active.runs.get_mut(index)
            && run.has_place
        {
            run.has_place = false;
            active.places -= 1;
            *self.places.of(active.action) -= 1;
        }
    }

    fn acknowledge(&mut self, certname: &Certname, transaction: &TransactionId) {
        let message = self.composer.acknowledgement(certname, transaction);
        self.output.messages.push(message);
    }

    fn run(&self, (job, node): Key) -> Option<&Run> {
        let index = usize::try_from(node).ok()?;
        self.jobs.get(&job)?.runs.get(index)
    }

    fn run_mut(&mut self, (job, node): Key) -> Option<&mut Run> {
        let index = usize::try_from(node).ok()?;
        self.jobs.get_mut(&job)?.runs.get_mut(index)
    }
}

#[cfg(test)]
mod tests;
