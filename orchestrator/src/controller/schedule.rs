//! Whose turn it is. Jobs take turns node by node, so that a small job does not wait for a large one.

use super::{Controller, Key, Mesh, Now};
use crate::job::{Action, JobId};
use crate::outcome::Reason;

const NOT_CONNECTED: &str = "the node is not connected to any broker";

const NEVER_CONNECTED: &str = "the node is not connected to any broker, and never has been";

const NO_BROKER: &str = "the orchestrator is not connected to any broker";

/// How long the broker has to tell who is connected before it is asked again.
const INVENTORY_ANSWER: u64 = 5_000;

/// What is to be done with a node whose turn it is.
enum Turn {
    Start,
    /// It went away a moment ago.
    Wait,
    Refuse(Reason, &'static str),
}

impl Controller {
    /// Starts nodes while there is room.
    pub(super) fn schedule(&mut self, now: Now) {
        if !self.knows_inventory() {
            return;
        }
        // How many jobs in a row could not start a node: when none can, it is over.
        let mut passed = 0;
        while passed < self.rotation.len()
            && let Some(job) = self.rotation.pop_front()
        {
            if !self.has_room(job) {
                self.rotation.push_back(job);
                passed += 1;
            } else if self.take_turn(now, job)
                && self.jobs.get(&job).is_some_and(|job| !job.ready.is_empty())
            {
                self.rotation.push_back(job);
                passed = 0;
            }
        }
    }

    /// Whether one more node of a job may run.
    fn has_room(&mut self, job: JobId) -> bool {
        let Some(active) = self.jobs.get(&job) else {
            return true;
        };
        let most = match active.action {
            Action::TaskRun => self.settings.task_concurrency,
            Action::PuppetRun => self.settings.compile_concurrency,
        };
        active.places < active.concurrency && *self.places.of(active.action) < most
    }

    /// Starts the next node of a job that can be started. Gives whether one was.
    fn take_turn(&mut self, now: Now, job: JobId) -> bool {
        while let Some(node) = self
            .jobs
            .get_mut(&job)
            .and_then(|job| job.ready.pop_front())
        {
            let key = (job, node);
            match self.turn(now, key) {
                Turn::Start => {
                    self.start(now, key);
                    return true;
                }
                Turn::Wait => self.wait(key),
                Turn::Refuse(reason, problem) => self.refuse(now, key, reason, problem),
            }
        }
        false
    }

    fn turn(&self, now: Now, key: Key) -> Turn {
        let Some(run) = self.run(key) else {
            return Turn::Refuse(Reason::NeverConnected, NEVER_CONNECTED);
        };
        match self.fleet.presence(&run.certname) {
            Some(presence) if presence.connected => Turn::Start,
            Some(_) if self.absent_for(now, key) < self.settings.pcp_timeout => Turn::Wait,
            Some(_) => Turn::Refuse(Reason::NotConnected, NOT_CONNECTED),
            None => Turn::Refuse(Reason::NeverConnected, NEVER_CONNECTED),
        }
    }

    fn wait(&mut self, key: Key) {
        let Some(run) = self.run(key) else { return };
        let certname = run.certname.clone();
        self.waiting.insert(key);
        self.interest.entry(certname).or_default().push(key);
    }

    /// A node has come: what waited for it goes on.
    pub(super) fn came(&mut self, now: Now, certname: &pcp::uri::Certname) {
        let Some(keys) = self.interest.get(certname) else {
            return;
        };
        for key in keys.clone() {
            if !self.waiting.remove(&key) {
                self.nudge(now, key);
                continue;
            }
            if let Some(keys) = self.interest.get_mut(certname) {
                keys.retain(|other| *other != key);
            }
            if let Some(active) = self.jobs.get_mut(&key.0) {
                active.ready.push_front(key.1);
                if !self.rotation.contains(&key.0) {
                    self.rotation.push_back(key.0);
                }
            }
        }
    }

    /// Whether the clock can ask for anything.
    pub(crate) fn needs_tick(&self) -> bool {
        !self.running.is_empty()
            || !self.waiting.is_empty()
            || !self.rotation.is_empty()
            || matches!(self.mesh, Mesh::Asked { .. })
    }

    /// Some time has passed.
    pub(crate) fn tick(&mut self, now: Now) {
        if let Mesh::Asked { at, .. } = &mut self.mesh
            && now.mono.saturating_sub(*at) >= INVENTORY_ANSWER
        {
            *at = now.mono;
            self.ask_for_inventory();
        }
        if let Mesh::Down { since } | Mesh::Asked { since, .. } = self.mesh
            && now.mono.saturating_sub(since) >= self.settings.pcp_timeout
        {
            self.give_up_unsent(now);
        }
        for key in self.running.clone() {
            self.run_tick(now, key);
        }
        for key in self.waiting.clone() {
            if self.absent_for(now, key) >= self.settings.pcp_timeout {
                self.refuse(now, key, Reason::NotConnected, NOT_CONNECTED);
            }
        }
        self.schedule(now);
    }

    /// Without a broker, nothing can be sent.
    fn give_up_unsent(&mut self, now: Now) {
        for job in std::mem::take(&mut self.rotation) {
            while let Some(node) = self
                .jobs
                .get_mut(&job)
                .and_then(|job| job.ready.pop_front())
            {
                self.refuse(now, (job, node), Reason::NoBroker, NO_BROKER);
            }
        }
        for key in self.waiting.clone() {
            self.refuse(now, key, Reason::NoBroker, NO_BROKER);
        }
    }
}
