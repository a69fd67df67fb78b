//! Stopping by force: what runs on nodes is killed by their agents, and each node ends with what its
//! agent said about that, or with the admission that nobody knows.

use orchestrator_api::NodeState;
use pcp::uri::Certname;
use pxp::{StopResult, StopState, TransactionId};

use super::run::Phase;
use super::{Controller, Key, Now};
use crate::job::{End, JobId, Stop};
use crate::outcome::Outcome;
use crate::store::{Change, NodeEnd, Secret};

/// How long after a request to kill it is sent again. The agent answers when the last process is
/// gone, which takes as long as it gives tasks to end by themselves.
const NEXT_STOP: u64 = 5_000;

/// How long the outcome of what was killed is waited for after its agent has said that it is gone:
/// the two are sent at the same time.
const LAST_OUTCOME: u64 = 5_000;

/// How often an agent may refuse to kill before that counts: one that has just been started again may
/// say so until it knows what it has taken up.
const REFUSALS: u32 = 3;

const SKIPPED: &str = "the job was stopped before the task was started";
const KILLED: &str = "the job was stopped by force: the task was killed on the node";
const NOT_STARTED: &str =
    "the job was stopped by force: the agent had not started the task, and will not";
const NEVER_ARRIVED: &str = "the job was stopped by force: the request had not reached the agent";
const FORGOTTEN: &str = "the job was stopped by force: the agent does not know the task any more";
const NO_RESULT: &str = "the job was stopped by force: the task had ended, and how is not known";
const UNCONFIRMED: &str =
    "the job was stopped by force: the agent did not answer in time; the task may still run";
const OUT_OF_REACH: &str =
    "the job was stopped by force: the node is not connected; the task may still run there";

impl Controller {
    /// A job is to stop. A job that has ended stays as it is.
    pub(crate) fn stop(&mut self, now: Now, id: JobId, mode: Stop) {
        let Some(active) = self.jobs.get_mut(&id) else {
            return;
        };
        let stopped = active.job.stop(mode);
        active.ready.clear();
        let keys = |nodes: Vec<usize>| -> Vec<Key> {
            let nodes = nodes
                .into_iter()
                .filter_map(|node| u32::try_from(node).ok());
            nodes.map(|node| (id, node)).collect()
        };
        let (skipped, stopping) = (keys(stopped.skipped), keys(stopped.stopping));
        let (last, first): (Vec<_>, Vec<_>) = stopped
            .states
            .into_iter()
            .partition(|state| state.is_final());
        for state in first {
            self.enter(now, id, state);
        }
        for key in skipped {
            self.forget(key);
            self.ended(now, key, skipped_end());
        }
        for key in stopping {
            self.begin_stop(now, key);
        }
        for state in last {
            self.enter(now, id, state);
        }
        self.schedule(now);
    }

    /// The agent of a running node is to kill what runs.
    fn begin_stop(&mut self, now: Now, key: Key) {
        let (job, node) = key;
        let at = now.wall;
        self.output
            .changes
            .push(Change::NodeStopping { job, node, at });
        let Some(run) = self.run_mut(key) else { return };
        let was_accepted = match &run.phase {
            Phase::Sending { .. } => false,
            Phase::Uncertain { accepted, .. } => *accepted,
            Phase::Accepted { .. } | Phase::Stopping { .. } => true,
            // It is over, and only its report is waited for.
            Phase::Reporting { .. } | Phase::Idle => return,
        };
        let phase = Phase::Stopping {
            ask: now.mono,
            until: now.mono.saturating_add(super::run::STOP_ANSWER),
            was_accepted,
            refusals: 0,
            confirmed: None,
        };
        if let Phase::Sending { message, .. } = std::mem::replace(&mut run.phase, phase) {
            self.requests.remove(&message);
        }
        self.ask_to_stop(now, key);
    }

    /// Sends the request to kill. The agent answers as often as it is asked.
    pub(super) fn ask_to_stop(&mut self, now: Now, key: Key) {
        let next = now.mono.saturating_add(NEXT_STOP);
        let Some(run) = self.run_mut(key) else { return };
        let Phase::Stopping { ask, confirmed, .. } = &mut run.phase else {
            return;
        };
        *ask = next;
        let is_over = confirmed.is_some();
        let (certname, transaction) = (run.certname.clone(), run.transaction.clone());
        let message = if is_over {
            self.composer.status_query(&certname, &transaction)
        } else {
            self.composer.task_stop(&certname, &transaction)
        };
        self.output.messages.extend(message);
    }

    /// An agent has said what it has killed.
    pub(super) fn stop_answer(&mut self, now: Now, certname: &Certname, result: &StopResult) {
        let Some(key) = self.own(&result.transaction_id, certname) else {
            return;
        };
        let Some(run) = self.run_mut(key) else { return };
        let Phase::Stopping {
            until,
            was_accepted,
            confirmed,
            ..
        } = &mut run.phase
        else {
            return;
        };
        match result.state {
            StopState::Unknown => {
                let message = if *was_accepted {
                    FORGOTTEN
                } else {
                    NEVER_ARRIVED
                };
                self.finish(now, key, Outcome::stopped(message, true));
            }
            // The outcome is on its way; in case it gets lost, it is asked for.
            StopState::Stopped | StopState::NotStarted | StopState::Finished => {
                if confirmed.is_none() {
                    *until = now.mono.saturating_add(LAST_OUTCOME);
                }
                *confirmed = Some(result.state);
                self.ask_to_stop(now, key);
            }
        }
    }

    /// An agent, or its node's policy, has refused to kill.
    pub(super) fn stop_refused(
        &mut self,
        now: Now,
        transaction: &TransactionId,
        certname: &Certname,
        reason: &str,
    ) {
        let Some(key) = self.own(transaction, certname) else {
            return;
        };
        let Some(Phase::Stopping { refusals, .. }) = self.run_mut(key).map(|run| &mut run.phase)
        else {
            return;
        };
        *refusals += 1;
        if *refusals >= REFUSALS {
            let message = format!(
                "the job was stopped by force: the agent did not kill the task, which may still run: {reason}"
            );
            self.finish(now, key, Outcome::stopped(&message, true));
        }
    }

    /// The end of a node that is being stopped, when its agent reports one: killed, when the agent
    /// says that it did that, and otherwise as it was.
    pub(super) fn stopped_outcome(&self, key: Key, mut outcome: Outcome) -> Outcome {
        let Some(Phase::Stopping { confirmed, .. }) = self.run(key).map(|run| &run.phase) else {
            return outcome;
        };
        let message = match confirmed {
            Some(StopState::Stopped) => KILLED,
            Some(StopState::NotStarted) => NOT_STARTED,
            _ if outcome.is_killed_by_stop() => KILLED,
            _ => return outcome,
        };
        outcome.end = End::Stopped;
        outcome.message = Some(message.to_owned());
        outcome
    }

    /// What the clock asks for on a node that is being stopped.
    pub(super) fn stop_tick(&mut self, now: Now, key: Key, is_connected: bool) {
        let Some(run) = self.run(key) else { return };
        let Phase::Stopping {
            ask,
            until,
            confirmed,
            ..
        } = &run.phase
        else {
            return;
        };
        if *until <= now.mono {
            let (message, given_up) = match confirmed {
                Some(StopState::Stopped) => (KILLED, true),
                Some(StopState::NotStarted) => (NOT_STARTED, true),
                Some(StopState::Finished) => (NO_RESULT, true),
                Some(StopState::Unknown) => (FORGOTTEN, true),
                None if is_connected => (UNCONFIRMED, true),
                None => (OUT_OF_REACH, true),
            };
            self.finish(now, key, Outcome::stopped(message, given_up));
        } else if *ask <= now.mono && is_connected {
            self.ask_to_stop(now, key);
        }
    }
}

fn skipped_end() -> NodeEnd {
    NodeEnd {
        state: NodeState::Skipped,
        result: Secret(None),
        message: Some(SKIPPED.to_owned()),
        stdout: Secret(None),
        stderr: Secret(None),
        usage: None,
        report: None,
        given_up: false,
    }
}
