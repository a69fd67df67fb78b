//! The reports of Puppet runs: looked up where they are kept, after the run and before its end is
//! recorded. Until then the agent keeps the outcome, so that a crash loses nothing.

use pxp::TransactionId;

use super::run::Phase;
use super::{Controller, Key, Now};
use crate::outcome::{FoundReport, Outcome};

/// How long a report is waited for. It is sent by Puppet and stored by others, mostly within seconds;
/// a run without one is recorded all the same.
pub(crate) const REPORT: u64 = 30_000;

impl Controller {
    /// Takes an outcome. Gives whether it is recorded now, and may be acknowledged.
    pub(super) fn conclude(&mut self, now: Now, key: Key, mut outcome: Outcome) -> bool {
        let waits_for_report = self.settings.reports && outcome.report.is_some();
        let Some(active) = self.jobs.get(&key.0) else {
            return true;
        };
        if let Some((noop, no_noop)) = active.asked_noop {
            outcome.add_noop(noop, no_noop);
        }
        let outcome = self.stopped_outcome(key, outcome);
        let Some(run) = self.run(key) else {
            return true;
        };
        if matches!(run.phase, Phase::Reporting { .. }) {
            return false;
        }
        if waits_for_report && !matches!(run.phase, Phase::Idle) {
            self.wait_for_report(now, key, outcome);
            return false;
        }
        self.finish(now, key, outcome);
        true
    }

    fn wait_for_report(&mut self, now: Now, key: Key, outcome: Outcome) {
        self.leave_place(key);
        let Some(run) = self.run_mut(key) else { return };
        let uuid = outcome
            .report
            .as_ref()
            .map(|report| report.transaction_uuid.clone());
        let phase = Phase::Reporting {
            until: now.mono.saturating_add(REPORT),
            outcome: Box::new(outcome),
        };
        let transaction = run.transaction.clone();
        if let Phase::Sending { message, .. } = std::mem::replace(&mut run.phase, phase) {
            self.requests.remove(&message);
        }
        self.output
            .reports
            .extend(uuid.map(|uuid| (transaction, uuid)));
    }

    /// A report has been found, or will not be.
    pub(crate) fn reported(
        &mut self,
        now: Now,
        transaction: &TransactionId,
        found: Option<FoundReport>,
    ) {
        if let Some(key) = self.transactions.get(transaction).copied() {
            self.end_reporting(now, key, found);
            self.schedule(now);
        }
    }

    pub(super) fn end_reporting(&mut self, now: Now, key: Key, found: Option<FoundReport>) {
        let Some(run) = self.run_mut(key) else { return };
        if !matches!(run.phase, Phase::Reporting { .. }) {
            return;
        }
        let Phase::Reporting { mut outcome, .. } = std::mem::replace(&mut run.phase, Phase::Idle)
        else {
            return;
        };
        let (certname, transaction) = (run.certname.clone(), run.transaction.clone());
        if let Some(found) = found {
            outcome.add_report(found);
        }
        self.finish(now, key, *outcome);
        self.acknowledge(&certname, &transaction);
    }
}
