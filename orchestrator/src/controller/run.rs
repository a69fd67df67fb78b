//! One node of an active job: what has been sent, and what is waited for.

use pcp::message::MessageId;
use pcp::uri::Certname;
use pxp::{StopState, TransactionId};

use super::{ActiveJob, Controller, Key, Mesh, Now};
use crate::job::Job;
use crate::outcome::{Outcome, Reason};
use crate::store::{Change, Unfinished};
use orchestrator_api::NodeState;

/// How long an agent has to kill what runs and to say so.
pub(super) const STOP_ANSWER: u64 = 60_000;

/// How long a node has for its provisional response before the request is sent again. The agent
/// answers as soon as its spool is written, which takes milliseconds.
pub(super) const RESEND: u64 = 5_000;

/// How long a node that has accepted may be silent before it is asked how it is.
pub(super) const FIRST_QUERY: u64 = 60_000;

/// How long after that it is asked again; the original orchestrator's interval.
pub(super) const NEXT_QUERY: u64 = 12_000;

/// How long an agent that has a task may be silent before its node counts as unknown: three questions have got no answer by then.
const UNKNOWN: u64 = FIRST_QUERY + 3 * NEXT_QUERY;

/// How much longer than the task's time limit the outcome is waited for: the agent gives a task a
/// while to end, and then tries to deliver what it has for up to five minutes between attempts.
pub(super) const MARGIN: u64 = 6 * 60_000;

/// How long an agent that has a task may be silent, when it may leave so many questions unanswered.
/// Milliseconds.
pub(crate) fn lease(questions: u32) -> u64 {
    NEXT_QUERY
        .saturating_mul(questions.into())
        .saturating_add(FIRST_QUERY)
}

/// A node of an active job.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) certname: Certname,
    pub(super) transaction: TransactionId,
    pub(super) phase: Phase,
    /// When it counts as lost. Set when the request is sent.
    pub(super) deadline: u64,
    /// Whether it takes a place among those that run.
    pub(super) has_place: bool,
    /// When its agent was last heard to have it.
    pub(super) asserted: u64,
    /// Whether its agent has been silent for too long.
    pub(super) is_unknown: bool,
    /// Whether it ended without its agent, who has not reported since.
    pub(super) given_up: bool,
}

/// What is waited for. All times are on the monotonic clock.
#[derive(Debug)]
pub(super) enum Phase {
    /// Nothing: not sent yet, or over.
    Idle,
    /// The request has been sent, and the agent has not said that it has it.
    Sending {
        message: MessageId,
        /// When it is sent again.
        next: u64,
        /// When it is given up.
        until: u64,
    },
    /// The agent has it.
    Accepted {
        /// When it is asked.
        ask: u64,
    },
    /// The orchestrator was restarted and does not know how far the node is.
    Uncertain {
        /// When it is asked.
        ask: u64,
        /// Whether the agent has said that it has it.
        accepted: bool,
    },
    /// The agent has been asked to kill what runs.
    Stopping {
        /// When it is asked again.
        ask: u64,
        /// When it is given up.
        until: u64,
        /// Whether the agent has said that it has it.
        was_accepted: bool,
        /// How often the agent has refused: it may not know yet what it has taken up again.
        refusals: u32,
        /// What the agent has said; its outcome follows.
        confirmed: Option<StopState>,
    },
    /// Puppet has run, and its report is looked for. The agent keeps the outcome until then.
    Reporting {
        /// When it is recorded without.
        until: u64,
        outcome: Box<Outcome>,
    },
}

impl Run {
    pub(super) fn new(certname: Certname, transaction: TransactionId) -> Self {
        Self {
            certname,
            transaction,
            phase: Phase::Idle,
            deadline: u64::MAX,
            has_place: false,
            asserted: 0,
            is_unknown: false,
            given_up: false,
        }
    }
}

impl Controller {
    /// A job from before the start.
    pub(super) fn restore_job(&mut self, now: Now, stored: Unfinished) {
        let id = stored.id;
        let states: Vec<_> = stored.nodes.iter().map(|node| node.state).collect();
        let time_limit = stored.time_limit.saturating_mul(1000);
        let mut runs = Vec::with_capacity(stored.nodes.len());
        for (index, node) in (0..).zip(stored.nodes) {
            let mut run = Run::new(node.certname, node.transaction);
            run.given_up = node.given_up;
            run.is_unknown = node.unknown.is_some();
            run.asserted = now.mono;
            let phase = match node.state {
                NodeState::Running => Some(Phase::Uncertain {
                    ask: now.mono,
                    accepted: node.accepted,
                }),
                NodeState::Stopping => Some(Phase::Stopping {
                    ask: now.mono,
                    until: now.mono.saturating_add(STOP_ANSWER),
                    was_accepted: node.accepted,
                    refusals: 0,
                    confirmed: None,
                }),
                NodeState::New
                | NodeState::Ready
                | NodeState::Stopped
                | NodeState::Finished
                | NodeState::Failed
                | NodeState::Errored
                | NodeState::Skipped => None,
            };
            if let Some(phase) = phase {
                run.phase = phase;
                run.deadline = restored_deadline(now, node.started, time_limit);
                self.running.insert((id, index));
                self.interest
                    .entry(run.certname.clone())
                    .or_default()
                    .push((id, index));
            }
            self.transactions
                .insert(run.transaction.clone(), (id, index));
            runs.push(run);
        }
        let unsent: Vec<u32> = (0..)
            .zip(&states)
            .filter(|(_, state)| matches!(state, NodeState::New | NodeState::Ready))
            .map(|(index, _)| index)
            .collect();
        let sendable = stored.request.is_some();
        let running: Vec<_> = (0..)
            .zip(&runs)
            .filter(|(_, run)| !matches!(run.phase, Phase::Idle))
            .map(|(index, _)| (id, index))
            .collect();
        let ready = if sendable { unsent.clone() } else { vec![] };
        let active = ActiveJob::new(
            id,
            stored.job_type.into(),
            Job::restore(stored.state, states),
            runs,
            stored.concurrency,
            stored.request,
            time_limit,
        );
        self.jobs.insert(id, active.with_ready(ready.into()));
        for key in running {
            self.take_place(key);
        }
        if sendable {
            self.rotation.push_back(id);
            return;
        }
        for index in unsent {
            self.refuse(now, (id, index), Reason::Restarted, SECRETS_GONE);
        }
    }

    /// Sends the request for the first time.
    pub(super) fn start(&mut self, now: Now, key: Key) {
        let (id, node) = key;
        let Some((active, index)) = self.jobs.get_mut(&id).zip(usize::try_from(node).ok()) else {
            return;
        };
        let Some(job_state) = active.job.start(index) else {
            return;
        };
        let deadline = now
            .mono
            .saturating_add(active.time_limit)
            .saturating_add(MARGIN);
        if let Some(state) = job_state {
            self.enter(now, id, state);
        }
        let Some(run) = self.run_mut(key) else { return };
        run.deadline = deadline;
        run.asserted = now.mono;
        let certname = run.certname.clone();
        self.running.insert(key);
        self.take_place(key);
        self.interest.entry(certname.clone()).or_default().push(key);
        self.output.changes.push(Change::NodeStarted {
            job: id,
            node,
            certname,
            at: now.wall,
        });
        self.send(now, key, now.mono.saturating_add(self.settings.pcp_timeout));
    }

    /// Sends the request. The agent runs it once, however often it comes.
    fn send(&mut self, now: Now, key: Key, until: u64) {
        let Some(run) = self.run(key) else { return };
        let sendable = self
            .jobs
            .get(&key.0)
            .and_then(|job| Some((job.action, job.request.as_ref()?)));
        let Some((action, request)) = sendable else {
            self.refuse(now, key, Reason::Restarted, SECRETS_GONE);
            return;
        };
        let message = self
            .composer
            .run(&run.certname, &run.transaction, action, request);
        let (size, limit) = (message.body.len(), self.max_message);
        if size > limit {
            let problem = format!("the request has {size} bytes, and at most {limit} are sent");
            self.refuse(now, key, Reason::TooLarge, &problem);
            return;
        }
        tracing::debug!(job_id = %key.0, transaction_id = %run.transaction, certname = %run.certname,
            "request sent");
        let phase = Phase::Sending {
            message: message.envelope.id,
            next: now.mono.saturating_add(RESEND),
            until,
        };
        self.requests.insert(message.envelope.id, key);
        self.output.messages.push(message);
        if let Some(run) = self.run_mut(key)
            && let Phase::Sending { message, .. } = std::mem::replace(&mut run.phase, phase)
        {
            self.requests.remove(&message);
        }
    }

    /// The node is there (again): what could have been lost is sent again.
    pub(super) fn nudge(&mut self, now: Now, key: Key) {
        match self.run(key).map(|run| &run.phase) {
            Some(Phase::Sending { until, .. }) => self.send(now, key, *until),
            Some(Phase::Accepted { .. } | Phase::Uncertain { .. }) => self.ask(now, key),
            Some(Phase::Stopping { .. }) => self.ask_to_stop(now, key),
            Some(Phase::Idle | Phase::Reporting { .. }) | None => {}
        }
    }

    /// Asks the agent how far it is.
    fn ask(&mut self, now: Now, key: Key) {
        let next = now.mono.saturating_add(NEXT_QUERY);
        let Some(run) = self.run_mut(key) else { return };
        match &mut run.phase {
            Phase::Accepted { ask } | Phase::Uncertain { ask, .. } => *ask = next,
            Phase::Idle
            | Phase::Sending { .. }
            | Phase::Stopping { .. }
            | Phase::Reporting { .. } => return,
        }
        let (certname, transaction) = (run.certname.clone(), run.transaction.clone());
        let message = self.composer.status_query(&certname, &transaction);
        self.output.messages.extend(message);
    }

    /// The agent has the request.
    pub(super) fn accepted(&mut self, now: Now, key: Key, ask: u64) {
        self.heard(now, key);
        let Some(run) = self.run_mut(key) else { return };
        let news = match &run.phase {
            Phase::Idle | Phase::Stopping { .. } | Phase::Reporting { .. } => return,
            Phase::Accepted { .. } | Phase::Uncertain { accepted: true, .. } => false,
            Phase::Sending { .. }
            | Phase::Uncertain {
                accepted: false, ..
            } => true,
        };
        let before = std::mem::replace(&mut run.phase, Phase::Accepted { ask });
        if let Phase::Sending { message, .. } = before {
            self.requests.remove(&message);
        }
        if news {
            let (job, node) = key;
            self.output.changes.push(Change::NodeAccepted { job, node });
        }
    }

    /// The agent has said that it has it.
    fn heard(&mut self, now: Now, key: Key) {
        let Some(run) = self.run_mut(key) else { return };
        run.asserted = now.mono;
        if std::mem::take(&mut run.is_unknown) {
            let (job, node) = key;
            self.output.changes.push(Change::NodeUnknown {
                job,
                node,
                since: None,
            });
        }
    }

    /// The agent has answered that it does not know the transaction.
    pub(super) fn unknown_to_agent(&mut self, now: Now, key: Key) {
        let Some(run) = self.run(key) else { return };
        match &run.phase {
            // The answer crossed the request.
            Phase::Idle
            | Phase::Sending { .. }
            | Phase::Stopping { .. }
            | Phase::Reporting { .. } => {}
            Phase::Accepted { .. } | Phase::Uncertain { accepted: true, .. } => {
                let outcome = Outcome::lost(
                    run.certname.as_str(),
                    Reason::Forgotten,
                    "the agent no longer knows this task: how it ended is lost",
                );
                self.finish(now, key, outcome);
            }
            Phase::Uncertain {
                accepted: false, ..
            } => {
                let until = now.mono.saturating_add(self.settings.pcp_timeout);
                self.send(now, key, until);
            }
        }
    }

    /// The task cannot be run on a node, and never was.
    pub(super) fn refuse(&mut self, now: Now, key: Key, reason: Reason, problem: &str) {
        let Some(run) = self.run(key) else { return };
        let mut outcome = Outcome::errored(run.certname.as_str(), reason, problem);
        // It was sent, so that the agent may have it all the same, and report later.
        outcome.given_up = matches!(reason, Reason::NoAnswer | Reason::Restarted);
        self.finish(now, key, outcome);
    }

    /// What the clock asks for on one running node.
    pub(super) fn run_tick(&mut self, now: Now, key: Key) {
        let Some(run) = self.run(key) else { return };
        if let Phase::Reporting { until, .. } = run.phase {
            if until <= now.mono {
                self.end_reporting(now, key, None);
            }
            return;
        }
        if run.deadline <= now.mono {
            let outcome = Outcome::lost(
                run.certname.as_str(),
                Reason::TimeLimit,
                "the agent did not report an end within the task's time limit",
            );
            self.finish(now, key, outcome);
            return;
        }
        let connected = self.knows_inventory() && self.fleet.is_connected(&run.certname);
        match run.phase {
            Phase::Idle | Phase::Reporting { .. } => {}
            Phase::Stopping { .. } => self.stop_tick(now, key, connected),
            Phase::Sending { until, .. } if until <= now.mono => {
                let problem = if connected {
                    "the agent did not answer in time; it may have started the task all the same"
                } else {
                    "the node is not connected: it went while the request was being sent, and has not \
                     come back"
                };
                self.refuse(now, key, Reason::NoAnswer, problem);
            }
            Phase::Sending { next, until, .. } if next <= now.mono && connected => {
                self.send(now, key, until);
            }
            Phase::Sending { .. } => {}
            Phase::Uncertain {
                accepted: false, ..
            } if !connected => {
                if self.absent_for(now, key) >= self.settings.pcp_timeout {
                    self.refuse(now, key, Reason::Restarted, MAYBE_SENT);
                }
            }
            Phase::Accepted { ask } | Phase::Uncertain { ask, .. } => {
                if ask <= now.mono && connected {
                    self.ask(now, key);
                }
                self.check_lease(now, key);
            }
        }
    }

    /// A task runs as long as its agent says so. While the orchestrator itself has no broker, silence
    /// says nothing about agents.
    fn check_lease(&mut self, now: Now, key: Key) {
        let Mesh::Known { since } = self.mesh else {
            return;
        };
        let lease = self.settings.lease;
        let Some(run) = self.run_mut(key) else { return };
        let silent = now.mono.saturating_sub(run.asserted.max(since));
        if silent >= lease {
            let seconds = lease / 1000;
            let message = format!(
                "the agent has not been heard of for {seconds} s: whether the task still runs, and how it ends, is not known"
            );
            let outcome = Outcome::lost(run.certname.as_str(), Reason::Lost, message);
            self.finish(now, key, outcome);
        } else if silent >= UNKNOWN.min(lease / 2) && !run.is_unknown {
            run.is_unknown = true;
            let (job, node) = key;
            let silent = i64::try_from(silent).unwrap_or(i64::MAX);
            self.output.changes.push(Change::NodeUnknown {
                job,
                node,
                since: Some(now.wall.saturating_sub(silent)),
            });
        }
    }

    /// For how many milliseconds a broker has told that the node is not there.
    pub(super) fn absent_for(&self, now: Now, key: Key) -> u64 {
        let Mesh::Known { since } = self.mesh else {
            return 0;
        };
        let gone = self
            .run(key)
            .and_then(|run| self.fleet.presence(&run.certname))
            .map_or(0, |presence| presence.since);
        now.mono.saturating_sub(gone.max(since))
    }
}

const SECRETS_GONE: &str = "the orchestrator was restarted before the request was sent, and it does \
                            not store sensitive parameters";

const MAYBE_SENT: &str = "the orchestrator was restarted while the request was being sent, and the \
                          node has not been connected since";

/// The deadline of a node that was started before the start. However long ago that was, the agent
/// gets a while to come back with what it has.
fn restored_deadline(now: Now, started: Option<i64>, time_limit: u64) -> u64 {
    let ran = now.wall.saturating_sub(started.unwrap_or(now.wall));
    let ran = u64::try_from(ran).unwrap_or_default();
    now.mono
        .saturating_add(time_limit.saturating_sub(ran))
        .saturating_add(MARGIN)
}
