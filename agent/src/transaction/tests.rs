//! Any order of requests, steps and crashes: no transaction runs twice, and every one ends.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn request(id: u8, params: u8, requester: u8) -> Arc<Request> {
    let params = serde_json::from_str(&format!("{{\"n\":{params}}}")).expect("an object");
    Arc::new(Request {
        id: TransactionId::parse(&format!("t{id}")).expect("a good id"),
        requester: format!("pcp://controller-{requester}/orchestrator")
            .parse()
            .expect("a good address"),
        request_id: MessageId(uuid::Uuid::nil()),
        module: "task".to_owned(),
        action: "run".to_owned(),
        subject: None,
        rule: None,
        digest: RequestDigest::of("task", "run", Some(&params)).expect("shallow"),
        notify: Notify::UntilAcknowledged,
    })
}

/// What can happen to an agent, in any order.
#[derive(Debug, Clone)]
enum Operation {
    Request {
        id: u8,
        params: u8,
        requester: u8,
    },
    Stage {
        id: u8,
    },
    Start {
        id: u8,
    },
    Exit {
        id: u8,
    },
    Acknowledge {
        id: u8,
    },
    /// The agent is killed and started again; the node as well, when `node`.
    Crash {
        node: bool,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    let id = 0..3_u8;
    prop_oneof![
        4 => (id.clone(), 0..2_u8, 0..2_u8)
            .prop_map(|(id, params, requester)| Operation::Request { id, params, requester }),
        3 => id.clone().prop_map(|id| Operation::Stage { id }),
        3 => id.clone().prop_map(|id| Operation::Start { id }),
        2 => id.clone().prop_map(|id| Operation::Exit { id }),
        2 => id.prop_map(|id| Operation::Acknowledge { id }),
        1 => any::<bool>().prop_map(|node| Operation::Crash { node }),
    ]
}

/// A transaction in the memory of the modelled agent.
#[derive(Debug, Clone)]
enum Live {
    Accepted(Transaction<Accepted>),
    Staging(Transaction<Staging>),
    Running(Transaction<Running>),
    Finished(Transaction<Finished>),
    Reported,
}

/// A process of the modelled node.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Process {
    Running,
    Ended,
    Gone,
}

#[derive(Debug, Default)]
struct Model {
    live: HashMap<u8, Live>,
    disk: HashMap<u8, Stored>,
    processes: HashMap<u8, Process>,
    starts: HashMap<u8, u32>,
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn ran() -> Outcome {
    let written = Written::default();
    Outcome::Ran(Ran {
        exitcode: 0,
        stdout: written,
        stderr: written,
        took: Took::default(),
    })
}

impl Model {
    fn apply(&mut self, operation: &Operation) {
        match *operation {
            Operation::Request {
                id,
                params,
                requester,
            } => {
                let new = request(id, params, requester);
                match self.disk.get(&id) {
                    Some(known) => {
                        let same = known.request().digest == new.digest
                            && known.request().requester == new.requester;
                        let repeat = known.request().repeated_by(&new);
                        assert_eq!(repeat == Repeat::Same, same);
                    }
                    None => {
                        let accepted = Transaction::accept(new, now());
                        self.disk.insert(id, Stored::Accepted(accepted.clone()));
                        self.live.insert(id, Live::Accepted(accepted));
                    }
                }
            }
            Operation::Stage { id } => {
                if let Some(Live::Accepted(transaction)) = self.live.get(&id).cloned() {
                    self.live.insert(id, Live::Staging(transaction.stage()));
                }
            }
            Operation::Start { id } => {
                if let Some(Live::Staging(transaction)) = self.live.get(&id).cloned() {
                    let (running, _permit) = transaction.start();
                    self.disk.insert(id, Stored::Running(running.clone()));
                    self.live.insert(id, Live::Running(running));
                    *self.starts.entry(id).or_default() += 1;
                    self.processes.insert(id, Process::Running);
                }
            }
            Operation::Exit { id } => {
                if self.processes.get(&id) == Some(&Process::Running) {
                    self.processes.insert(id, Process::Ended);
                }
                self.watch(id);
            }
            Operation::Acknowledge { id } => {
                if let Some(Live::Finished(transaction)) = self.live.get(&id).cloned() {
                    let reported = transaction.report();
                    self.disk.insert(id, Stored::Reported(reported.clone()));
                    self.live.insert(id, Live::Reported);
                }
            }
            Operation::Crash { node } => self.crash(node),
        }
    }

    /// The agent notices that a process has ended.
    fn watch(&mut self, id: u8) {
        let ended = self.processes.get(&id) == Some(&Process::Ended);
        if let (true, Some(Live::Running(transaction))) = (ended, self.live.get(&id).cloned()) {
            let finished = transaction.finish(now(), ran());
            self.disk.insert(id, Stored::Finished(finished.clone()));
            self.live.insert(id, Live::Finished(finished));
        }
    }

    fn crash(&mut self, node: bool) {
        self.live.clear();
        if node {
            for process in self
                .processes
                .values_mut()
                .filter(|p| **p == Process::Running)
            {
                *process = Process::Gone;
            }
        }
        for (id, stored) in self.disk.clone() {
            let found = match self.processes.get(&id) {
                Some(Process::Running) => Found::Alive(()),
                Some(Process::Ended) => Found::Ended(ran()),
                Some(Process::Gone) | None => Found::Nothing,
            };
            let live = match stored.recover(found, now()) {
                Recovered::Running(transaction, ()) => Live::Running(transaction),
                Recovered::Ended(transaction) | Recovered::Finished(transaction) => {
                    self.disk.insert(id, Stored::Finished(transaction.clone()));
                    Live::Finished(transaction)
                }
                Recovered::Reported(_) => Live::Reported,
            };
            self.live.insert(id, live);
        }
    }
}

proptest! {
    #[test]
    fn no_order_of_events_runs_a_transaction_twice_and_every_one_ends(
        operations in proptest::collection::vec(operation(), 0..60),
    ) {
        let mut model = Model::default();
        for operation in &operations {
            model.apply(operation);
            for (id, starts) in &model.starts {
                prop_assert!(*starts <= 1, "t{} was started {} times", id, starts);
            }
        }
        // Left alone, an agent brings everything it has taken on to its end.
        let ids: Vec<u8> = model.disk.keys().copied().collect();
        for id in ids {
            for operation in [
                Operation::Stage { id },
                Operation::Start { id },
                Operation::Exit { id },
                Operation::Acknowledge { id },
            ] {
                model.apply(&operation);
            }
            let reported = matches!(model.disk.get(&id), Some(Stored::Reported(_)));
            prop_assert!(reported, "t{} did not end: {:?}", id, model.disk.get(&id));
            prop_assert!(model.starts.get(&id).copied().unwrap_or(0) <= 1);
        }
    }
}

#[test]
fn a_transaction_that_was_not_started_says_that_it_did_not_run() {
    let accepted = Transaction::accept(request(1, 1, 1), now());
    let recovered = Stored::Accepted(accepted).recover(Found::<()>::Nothing, now());
    let Recovered::Ended(finished) = recovered else {
        panic!("{recovered:?}");
    };
    assert_eq!(finished.outcome(), &Outcome::Failed(NOT_STARTED.to_owned()));
}

#[test]
fn a_process_that_is_gone_is_a_failure_with_its_cause() {
    let (running, _permit) = Transaction::accept(request(1, 1, 1), now()).stage().start();
    let recovered = Stored::Running(running).recover(Found::<()>::Nothing, now());
    let Recovered::Ended(finished) = recovered else {
        panic!("{recovered:?}");
    };
    assert_eq!(finished.outcome(), &Outcome::Failed(LOST.to_owned()));
}
