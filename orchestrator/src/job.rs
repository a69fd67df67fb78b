//! A job and its nodes as state machines: no IO, no clock. They guarantee that every node's end is
//! recorded once, that nothing starts after a stop, and that a job ends when its last node has.

use std::fmt;
use std::str::FromStr;

use orchestrator_api::{JobState, JobType, NodeState};

/// A job's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct JobId(pub(crate) i64);

/// A plan job's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PlanId(pub(crate) i64);

/// The text is not a job's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job id is a whole number")]
pub(crate) struct InvalidJobId;

/// A job: where it stands, and where each of its nodes stands.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    state: JobState,
    nodes: Vec<NodeState>,
    /// How many nodes have not ended.
    open: usize,
    /// How many nodes have ended otherwise than well.
    unsuccessful: usize,
}

/// What a job has its nodes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// `task run`.
    TaskRun,
    /// `pxp-module-puppet run`.
    PuppetRun,
}

impl From<JobType> for Action {
    fn from(job_type: JobType) -> Self {
        match job_type {
            JobType::Deploy => Self::PuppetRun,
            JobType::Task
            | JobType::PlanTask
            | JobType::PlanScript
            | JobType::PlanUpload
            | JobType::PlanCommand
            | JobType::PlanWait
            | JobType::PlanApply
            | JobType::PlanApplyPrep => Self::TaskRun,
        }
    }
}

/// How a node ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The task succeeded.
    Finished,
    /// The task failed, or nobody knows how it ended.
    Failed,
    /// The task could not be run.
    Errored,
    /// It was killed, or given up, because the job is stopped by force.
    Stopped,
}

impl From<End> for NodeState {
    fn from(end: End) -> Self {
        match end {
            End::Finished => Self::Finished,
            End::Failed => Self::Failed,
            End::Errored => Self::Errored,
            End::Stopped => Self::Stopped,
        }
    }
}

/// How a job is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Nodes that run are waited for.
    Gentle,
    /// What runs on nodes is killed.
    Force,
}

/// What a stop has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// The nodes that it ended: they are skipped.
    pub(crate) skipped: Vec<usize>,
    /// The nodes whose agents are to kill what runs.
    pub(crate) stopping: Vec<usize>,
    /// The states that the job went through, in order.
    pub(crate) states: Vec<JobState>,
}

impl Job {
    /// A job whose nodes all wait for their turn. A job has at least one node; one without would
    /// never end, and is therefore made as finished.
    pub(crate) fn new(nodes: usize) -> Self {
        let state = if nodes == 0 {
            JobState::Finished
        } else {
            JobState::Ready
        };
        Self::restore(state, vec![NodeState::Ready; nodes])
    }

    /// A job as it was stored.
    pub(crate) fn restore(state: JobState, nodes: Vec<NodeState>) -> Self {
        let open = nodes.iter().filter(|node| !node.is_final()).count();
        let well = nodes
            .iter()
            .filter(|node| **node == NodeState::Finished)
            .count();
        let unsuccessful = nodes.len() - open - well;
        Self {
            state,
            nodes,
            open,
            unsuccessful,
        }
    }

    /// Where a node stands.
    pub(crate) fn node(&self, index: usize) -> Option<NodeState> {
        self.nodes.get(index).copied()
    }

    /// A node is about to be sent its request. Gives the job's new state when the node is the first
    /// one, in a second option; nothing when the node may not be started.
    pub(crate) fn start(&mut self, index: usize) -> Option<Option<JobState>> {
        if !matches!(self.state, JobState::Ready | JobState::Running) {
            return None;
        }
        let node = self.nodes.get_mut(index)?;
        if *node != NodeState::Ready {
            return None;
        }
        *node = NodeState::Running;
        if self.state == JobState::Running {
            return Some(None);
        }
        self.state = JobState::Running;
        Some(Some(JobState::Running))
    }

    /// A node has ended. Gives the job's final state when the node was the last one, in a second
    /// option; nothing when the end must not be recorded: the node has ended before, or it never
    /// ran and so can neither succeed nor fail.
    pub(crate) fn end(&mut self, index: usize, end: End) -> Option<Option<JobState>> {
        let node = self.nodes.get_mut(index)?;
        let legal = match *node {
            NodeState::Running => end != End::Stopped,
            NodeState::Stopping => true,
            NodeState::New | NodeState::Ready => end == End::Errored,
            NodeState::Stopped
            | NodeState::Finished
            | NodeState::Failed
            | NodeState::Errored
            | NodeState::Skipped => false,
        };
        if !legal {
            return None;
        }
        *node = end.into();
        self.open -= 1;
        if end != End::Finished {
            self.unsuccessful += 1;
        }
        Some(self.close())
    }

    /// The job is to stop. Nodes that wait are skipped; nodes that run are waited for, or killed by
    /// [`Stop::Force`]. Stopping twice, or after the end, changes nothing.
    pub(crate) fn stop(&mut self, mode: Stop) -> Stopped {
        let mut stopped = Stopped::default();
        if self.state.is_final() {
            return stopped;
        }
        if self.state != JobState::Stopping {
            self.state = JobState::Stopping;
            stopped.states.push(JobState::Stopping);
        }
        for (index, node) in self.nodes.iter_mut().enumerate() {
            match (*node, mode) {
                (NodeState::New | NodeState::Ready, _) => {
                    *node = NodeState::Skipped;
                    self.open -= 1;
                    self.unsuccessful += 1;
                    stopped.skipped.push(index);
                }
                (NodeState::Running, Stop::Force) => {
                    *node = NodeState::Stopping;
                    stopped.stopping.push(index);
                }
                _ => {}
            }
        }
        stopped.states.extend(self.close());
        stopped
    }

    /// Ends the job when no node is open any more.
    fn close(&mut self) -> Option<JobState> {
        if self.open > 0 {
            return None;
        }
        self.state = if self.state == JobState::Stopping {
            JobState::Stopped
        } else if self.unsuccessful == 0 {
            JobState::Finished
        } else {
            JobState::Failed
        };
        Some(self.state)
    }
}

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for PlanId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<Self, InvalidJobId> {
        text.parse().map(|JobId(number)| Self(number))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<Self, InvalidJobId> {
        if text.bytes().all(|b| b.is_ascii_digit()) {
            text.parse().map(Self).map_err(|_| InvalidJobId)
        } else {
            Err(InvalidJobId)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Job {
        fn state(&self) -> JobState {
            self.state
        }

        fn nodes(&self) -> &[NodeState] {
            &self.nodes
        }
    }

    #[derive(Debug, Clone)]
    enum Operation {
        Start(usize),
        End(usize, End),
        Stop(Stop),
    }

    const NODES: usize = 5;

    fn operation() -> impl Strategy<Value = Operation> {
        let end = prop_oneof![
            Just(End::Finished),
            Just(End::Failed),
            Just(End::Errored),
            Just(End::Stopped),
        ];
        prop_oneof![
            8 => (0..NODES + 1).prop_map(Operation::Start),
            8 => (0..NODES + 1, end).prop_map(|(node, end)| Operation::End(node, end)),
            1 => prop_oneof![Just(Stop::Gentle), Just(Stop::Force)].prop_map(Operation::Stop),
        ]
    }

    /// Applies an operation and gives the states that the job announced.
    fn apply(job: &mut Job, ends: &mut [usize; NODES], operation: &Operation) -> Vec<JobState> {
        match operation {
            Operation::Start(node) => job.start(*node).into_iter().flatten().collect(),
            Operation::End(node, end) => {
                let result = job.end(*node, *end);
                if result.is_some() {
                    ends[*node] += 1;
                }
                result.into_iter().flatten().collect()
            }
            Operation::Stop(mode) => {
                let stopped = job.stop(*mode);
                for node in stopped.skipped {
                    ends[node] += 1;
                }
                stopped.states
            }
        }
    }

    proptest! {
        #[test]
        fn every_end_is_recorded_once_and_every_job_ends(
            operations in proptest::collection::vec(operation(), 0..60),
            crash in 0..60_usize,
        ) {
            let mut job = Job::new(NODES);
            let mut ends = [0; NODES];
            let mut announced = vec![];
            let mut stopped = false;
            for (step, operation) in operations.iter().enumerate() {
                let before = job.clone();
                announced.extend(apply(&mut job, &mut ends, operation));
                stopped |= matches!(operation, Operation::Stop(_)) && !before.state().is_final();
                if before.state().is_final() {
                    prop_assert_eq!(before.nodes(), job.nodes());
                    prop_assert_eq!(before.state(), job.state());
                }
                for (old, new) in before.nodes().iter().zip(job.nodes()) {
                    prop_assert!(!old.is_final() || old == new, "a final state changed");
                    let started = *old == NodeState::Ready && *new == NodeState::Running;
                    prop_assert!(!(stopped && started), "started after a stop");
                }
                if step == crash {
                    job = Job::restore(job.state(), job.nodes().to_vec());
                }
            }
            // Whatever has happened: once every node is tried and ended, the job has ended.
            for node in 0..NODES {
                announced.extend(apply(&mut job, &mut ends, &Operation::Start(node)));
                announced.extend(apply(&mut job, &mut ends, &Operation::End(node, End::Errored)));
            }
            prop_assert!(job.state().is_final());
            prop_assert_eq!(ends, [1; NODES]);
            let finals: Vec<_> = announced.iter().filter(|state| state.is_final()).collect();
            prop_assert_eq!(finals, [&job.state]);
            let all_well = job.nodes().iter().all(|node| *node == NodeState::Finished);
            let expected = match (stopped, all_well) {
                (true, _) => JobState::Stopped,
                (false, true) => JobState::Finished,
                (false, false) => JobState::Failed,
            };
            prop_assert_eq!(job.state(), expected);
        }
    }

    #[test]
    fn a_node_that_never_ran_can_only_be_errored() {
        let mut job = Job::new(1);
        assert_eq!(job.end(0, End::Finished), None);
        assert_eq!(job.end(0, End::Errored), Some(Some(JobState::Failed)));
        assert_eq!(job.end(0, End::Errored), None);
    }

    #[test]
    fn a_stopping_job_waits_for_what_runs() {
        let mut job = Job::new(2);
        assert_eq!(job.start(0), Some(Some(JobState::Running)));
        let stopped = job.stop(Stop::Gentle);
        assert_eq!(stopped.skipped, [1]);
        assert_eq!(stopped.states, [JobState::Stopping]);
        assert_eq!(job.stop(Stop::Gentle), Stopped::default());
        assert_eq!(job.end(0, End::Finished), Some(Some(JobState::Stopped)));
    }

    #[test]
    fn a_forced_stop_has_what_runs_killed() {
        let mut job = Job::new(2);
        job.start(0);
        assert_eq!(job.end(0, End::Stopped), None, "nobody has stopped it");
        let stopped = job.stop(Stop::Force);
        assert_eq!((stopped.skipped, stopped.stopping), (vec![1], vec![0]));
        assert_eq!(stopped.states, [JobState::Stopping]);
        assert_eq!(job.node(0), Some(NodeState::Stopping));
        assert_eq!(job.stop(Stop::Force), Stopped::default());
        assert_eq!(job.end(0, End::Stopped), Some(Some(JobState::Stopped)));
        assert_eq!(job.end(0, End::Finished), None);
    }

    #[test]
    fn numbers_of_jobs_are_plain_digits() {
        assert_eq!("81".parse(), Ok(JobId(81)));
        for text in ["", "x", "-1", "1.0", " 1"] {
            assert!(text.parse::<JobId>().is_err(), "{text:?}");
        }
    }
}
