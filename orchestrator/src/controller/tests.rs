//! The controller against agents, a mesh that loses messages, and crashes at every point. What must
//! hold whatever happens: no agent runs a transaction twice, every node's end is recorded once,
//! every job ends, and a result counts as delivered only once it is recorded.

use std::collections::BTreeMap;

use bytes::Bytes;
use orchestrator_api::{JobState, NodeState};
use pcp::body::{self, ErrorKind, InventoryChange, InventoryResponse, InventoryUpdate};
use pcp::message::{Envelope, Flags, Message, MessageId, MessageType};
use pcp::uri::{Certname, ClientType, Target, Uri};
use proptest::prelude::*;
use pxp::{
    ActionResult, BlockingRequest, BlockingResponse, JsonObject, MessageKind, NonBlockingRequest,
    NonBlockingResponse, OutcomeAcknowledgement, ProvisionalResponse, Status, StatusQuery,
    StatusResult, TransactionId,
};
use uuid::Uuid;

use super::{Composer, Controller, Now, Output, Settings, Submission};
use crate::job::{JobId, Stop};
use crate::store::{Change, Known, NewNode, SeenNode, Unfinished, UnfinishedNode};

const TIME_LIMIT: u64 = 60;

fn settings() -> Settings {
    Settings {
        task_concurrency: 3,
        pcp_timeout: 30_000,
        max_message: 1024 * 1024,
    }
}

fn composer() -> Composer {
    Composer {
        sender: uri("orchestrator", ClientType::orchestrator()),
        new_id: Uuid::new_v4,
    }
}

fn uri(name: &str, client_type: ClientType) -> Uri {
    Uri::new(Certname::parse(name).unwrap(), client_type)
}

fn request() -> JsonObject {
    serde_json::from_str(r#"{"task":"a","files":[],"input":{}}"#).unwrap()
}

/// A message to the orchestrator.
fn message(
    sender: Uri,
    message_type: MessageType,
    reply: Option<MessageId>,
    body: Bytes,
) -> Message {
    let target = Target::Client(uri("orchestrator", ClientType::orchestrator()));
    Message {
        envelope: Envelope {
            id: MessageId(Uuid::new_v4()),
            message_type,
            sender,
            target,
            in_reply_to: reply,
            hops: 1,
            flags: Flags::default(),
        },
        body,
    }
}

fn of_agent<T: serde::Serialize>(name: &str, kind: MessageKind, body: &T) -> Message {
    let message_type = MessageType::of(kind.name());
    let body = pxp::write(body).into();
    message(uri(name, ClientType::agent()), message_type, None, body)
}

fn of_broker(message_type: MessageType, reply: Option<MessageId>, body: Bytes) -> Message {
    message(
        uri("primary", ClientType::server()),
        message_type,
        reply,
        body,
    )
}

fn kind_of(message: &Message) -> Option<MessageKind> {
    MessageKind::from_name(message.envelope.message_type.name().unwrap())
}

/// What the database would hold.
#[derive(Default)]
struct Disk {
    jobs: BTreeMap<JobId, DiskJob>,
    seen: BTreeMap<Certname, i64>,
}

struct DiskJob {
    state: JobState,
    request: Option<JsonObject>,
    nodes: Vec<DiskNode>,
}

struct DiskNode {
    certname: Certname,
    transaction: TransactionId,
    state: NodeState,
    accepted: bool,
    started: Option<i64>,
    ends: u32,
    message: Option<String>,
}

impl Disk {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::NodeStarted { job, node, at, .. } => {
                let node = self.node(*job, *node);
                assert_eq!(node.state, NodeState::Ready, "started twice");
                node.state = NodeState::Running;
                node.started = Some(*at);
            }
            Change::NodeAccepted { job, node } => self.node(*job, *node).accepted = true,
            Change::NodeEnded {
                job,
                node,
                state,
                message,
                ..
            } => {
                let node = self.node(*job, *node);
                node.state = *state;
                node.ends += 1;
                node.message = message.clone();
            }
            Change::JobEntered { job, state, .. } => {
                let job = self.jobs.get_mut(job).unwrap();
                assert!(!job.state.is_final(), "a job went on after its end");
                job.state = *state;
            }
            Change::NodesSeen { certnames, at } => {
                self.seen
                    .extend(certnames.iter().map(|name| (name.clone(), *at)));
            }
        }
    }

    fn node(&mut self, job: JobId, node: u32) -> &mut DiskNode {
        &mut self.jobs.get_mut(&job).unwrap().nodes[node as usize]
    }

    fn seen(&self) -> Vec<SeenNode> {
        let nodes = self.seen.iter();
        nodes
            .map(|(certname, changed)| SeenNode {
                certname: certname.clone(),
                changed: *changed,
            })
            .collect()
    }

    fn unfinished(&self) -> Vec<Unfinished> {
        let jobs = self.jobs.iter().filter(|(_, job)| !job.state.is_final());
        jobs.map(|(id, job)| Unfinished {
            id: *id,
            state: job.state,
            request: job.request.clone(),
            files: vec![],
            time_limit: TIME_LIMIT,
            nodes: job
                .nodes
                .iter()
                .map(|node| UnfinishedNode {
                    certname: node.certname.clone(),
                    transaction: node.transaction.clone(),
                    state: node.state,
                    accepted: node.accepted,
                    started: node.started,
                })
                .collect(),
        })
        .collect()
    }

    fn known(&self, transaction: &TransactionId, certname: &Certname) -> Known {
        let mut nodes = self.jobs.values().flat_map(|job| &job.nodes);
        match nodes.find(|node| node.transaction == *transaction) {
            None => Known::Unknown,
            Some(node) if node.certname != *certname => Known::OfAnother,
            Some(node) if node.state.is_final() => Known::Ended,
            Some(_) => Known::Open,
        }
    }
}

/// A request in an agent's spool.
#[derive(Default)]
struct Spooled {
    finished: bool,
    acknowledged: bool,
}

#[derive(Default)]
struct Agent {
    connected: bool,
    spool: BTreeMap<TransactionId, Spooled>,
}

/// Everything around the controller.
struct World {
    controller: Controller,
    disk: Disk,
    agents: BTreeMap<String, Agent>,
    mesh: bool,
    to_mesh: Vec<Message>,
    to_orchestrator: Vec<Message>,
    wall: i64,
    mono: u64,
}

impl World {
    fn new(agents: &[&str]) -> Self {
        let now = Now {
            wall: 1_000_000,
            mono: 0,
        };
        let agents = agents.iter().map(|&name| {
            (
                name.to_owned(),
                Agent {
                    connected: true,
                    ..Agent::default()
                },
            )
        });
        Self {
            controller: Controller::new(now, settings(), composer()),
            disk: Disk::default(),
            agents: agents.collect(),
            mesh: false,
            to_mesh: vec![],
            to_orchestrator: vec![],
            wall: now.wall,
            mono: 0,
        }
    }

    fn now(&self) -> Now {
        Now {
            wall: self.wall,
            mono: self.mono,
        }
    }

    /// Does what the controller has decided.
    fn flush(&mut self) {
        let Output {
            changes,
            messages,
            lookups,
            ..
        } = self.controller.take();
        for change in &changes {
            self.disk.apply(change);
        }
        if self.mesh {
            self.to_mesh.extend(messages);
        }
        for (transaction, certname) in lookups {
            let known = self.disk.known(&transaction, &certname);
            self.controller.looked_up(&transaction, &certname, known);
        }
        if !self.controller.output.messages.is_empty() {
            self.flush();
        }
    }

    fn submit(&mut self, id: i64, names: &[&str], sensitive: bool) {
        let nodes: Vec<_> = names
            .iter()
            .map(|name| NewNode {
                certname: Certname::parse(name).unwrap(),
                transaction: format!("{id}-{name}").parse().unwrap(),
            })
            .collect();
        let stored = nodes.iter().map(|node| DiskNode {
            certname: node.certname.clone(),
            transaction: node.transaction.clone(),
            state: NodeState::Ready,
            accepted: false,
            started: None,
            ends: 0,
            message: None,
        });
        let job = DiskJob {
            state: JobState::Ready,
            request: (!sensitive).then(request),
            nodes: stored.collect(),
        };
        self.disk.jobs.insert(JobId(id), job);
        let submission = Submission {
            id: JobId(id),
            nodes,
            request: request(),
            time_limit: TIME_LIMIT * 1000,
        };
        self.controller.submit(self.now(), submission);
        self.flush();
    }

    /// The process dies and starts again. `decided`: what it had just decided is on the disk, but
    /// not sent.
    fn crash(&mut self, decided: bool) {
        if decided {
            for change in self.controller.take().changes {
                self.disk.apply(&change);
            }
        }
        self.mesh = false;
        self.to_mesh.clear();
        self.to_orchestrator.clear();
        self.mono = 0;
        self.controller = Controller::new(self.now(), settings(), composer());
        let (seen, jobs) = (self.disk.seen(), self.disk.unfinished());
        self.controller.restore(self.now(), seen, jobs);
        self.flush();
        self.connect();
    }

    fn connect(&mut self) {
        if !self.mesh {
            self.mesh = true;
            self.controller
                .mesh_connected(self.now(), settings().max_message);
            self.flush();
        }
    }

    fn disconnect(&mut self) {
        if self.mesh {
            self.mesh = false;
            self.to_mesh.clear();
            self.to_orchestrator.clear();
            self.controller.mesh_disconnected(self.now());
            self.flush();
        }
    }

    fn pass(&mut self, millis: u64) {
        self.mono += millis;
        self.wall += i64::try_from(millis).unwrap();
        self.controller.tick(self.now());
        self.flush();
    }

    fn toggle(&mut self, name: &str) {
        let agent = self.agents.get_mut(name).unwrap();
        agent.connected = !agent.connected;
        let change = InventoryChange {
            client: uri(name, ClientType::agent()),
            change: if agent.connected { 1 } else { -1 },
        };
        if self.mesh {
            let body = pxp::write(&InventoryUpdate {
                changes: vec![change],
            })
            .into();
            self.to_orchestrator
                .push(of_broker(body::inventory_update(), None, body));
        }
    }

    fn finish(&mut self, name: &str) {
        for spooled in self.agents.get_mut(name).unwrap().spool.values_mut() {
            spooled.finished = true;
        }
        self.report(name);
    }

    /// The agent sends what has not been acknowledged.
    fn report(&mut self, name: &str) {
        let agent = &self.agents[name];
        if !agent.connected || !self.mesh {
            return;
        }
        for (transaction, spooled) in &agent.spool {
            if spooled.finished && !spooled.acknowledged {
                let outcome = outcome(name, transaction, 0);
                self.to_orchestrator.push(outcome);
            }
        }
    }

    fn deliver_to_orchestrator(&mut self, index: usize) {
        if index < self.to_orchestrator.len() {
            let message = self.to_orchestrator.remove(index);
            self.controller.message(self.now(), &message);
            self.flush();
        }
    }

    fn deliver_to_mesh(&mut self, index: usize) {
        if index >= self.to_mesh.len() {
            return;
        }
        let message = self.to_mesh.remove(index);
        let Target::Client(target) = &message.envelope.target else {
            let uris = self.agents.iter().filter(|(_, agent)| agent.connected);
            let uris = uris
                .map(|(name, _)| uri(name, ClientType::agent()))
                .collect();
            let body = pxp::write(&InventoryResponse { uris }).into();
            let reply = Some(message.envelope.id);
            self.to_orchestrator
                .push(of_broker(body::inventory_response(), reply, body));
            return;
        };
        let name = target.certname().as_str().to_owned();
        let agent = self.agents.get_mut(&name).unwrap();
        if !agent.connected {
            let reply = Some(message.envelope.id);
            let body = ErrorKind::NotConnected.body();
            self.to_orchestrator
                .push(of_broker(body::error_message(), reply, body));
            return;
        }
        self.to_orchestrator.extend(agent.receive(&name, &message));
    }

    /// Everything works from now on.
    fn heal(&mut self) {
        let names: Vec<String> = self.agents.keys().cloned().collect();
        for name in &names {
            if !self.agents[name].connected {
                self.toggle(name);
            }
        }
        self.connect();
        for _ in 0..200 {
            while !self.to_mesh.is_empty() || !self.to_orchestrator.is_empty() {
                self.deliver_to_mesh(0);
                self.deliver_to_orchestrator(0);
            }
            for name in &names {
                self.finish(name);
            }
            self.pass(5_000);
        }
    }

    fn state(&self, job: i64) -> (JobState, Vec<NodeState>) {
        let job = &self.disk.jobs[&JobId(job)];
        (job.state, job.nodes.iter().map(|node| node.state).collect())
    }

    /// Messages of a kind that wait to be delivered.
    fn waiting(&self, kind: MessageKind) -> usize {
        let messages = self.to_mesh.iter();
        messages
            .filter(|message| kind_of(message) == Some(kind))
            .count()
    }

    fn settle(&mut self) {
        while !self.to_mesh.is_empty() || !self.to_orchestrator.is_empty() {
            self.deliver_to_mesh(0);
            self.deliver_to_orchestrator(0);
        }
    }
}

fn outcome(name: &str, transaction: &TransactionId, exitcode: i32) -> Message {
    let result = ActionResult {
        exitcode,
        stdout: Some("{}".to_owned()),
        stderr: None,
    };
    let response = NonBlockingResponse {
        transaction_id: transaction.clone(),
        results: JsonObject::of(&result).unwrap(),
    };
    of_agent(name, MessageKind::NonBlockingResponse, &response)
}

impl Agent {
    /// Does what the real one does, and counts on the spool to never run anything twice.
    fn receive(&mut self, name: &str, message: &Message) -> Vec<Message> {
        match kind_of(message).unwrap() {
            MessageKind::NonBlockingRequest => {
                assert!(message.envelope.flags.contains(Flags::ACKNOWLEDGES));
                let request: NonBlockingRequest = pxp::read(&message.body).unwrap();
                let transaction_id = request.transaction_id;
                self.spool.entry(transaction_id.clone()).or_default();
                let response = ProvisionalResponse { transaction_id };
                vec![of_agent(name, MessageKind::ProvisionalResponse, &response)]
            }
            MessageKind::OutcomeAcknowledgement => {
                let done: OutcomeAcknowledgement = pxp::read(&message.body).unwrap();
                self.spool
                    .get_mut(&done.transaction_id)
                    .unwrap()
                    .acknowledged = true;
                vec![]
            }
            MessageKind::BlockingRequest => {
                let request: BlockingRequest = pxp::read(&message.body).unwrap();
                let about: StatusQuery = request.params.unwrap().parse().unwrap();
                let id = about.transaction_id;
                let status = match self.spool.get(&id) {
                    None => StatusResult::without_result(id, Status::Unknown, "found no results"),
                    Some(spooled) if spooled.finished => StatusResult::finished(
                        id,
                        ActionResult {
                            exitcode: 0,
                            stdout: Some("{}".into()),
                            stderr: None,
                        },
                    ),
                    Some(_) => StatusResult::running(id),
                };
                let response = BlockingResponse {
                    transaction_id: request.transaction_id,
                    results: JsonObject::of(&status).unwrap(),
                };
                vec![of_agent(name, MessageKind::BlockingResponse, &response)]
            }
            other => panic!("an agent got {other:?}"),
        }
    }
}

#[derive(Debug, Clone)]
enum Event {
    ToMesh { index: usize, lose: bool },
    ToOrchestrator { index: usize, lose: bool },
    Finish(usize),
    Report(usize),
    Toggle(usize),
    Pass(u64),
    Crash { decided: bool },
    Mesh(bool),
    Stop(i64, Stop),
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn event() -> impl Strategy<Value = Event> {
    let mode = prop_oneof![4 => Just(Stop::Gentle), 1 => Just(Stop::Force)];
    prop_oneof![
        12 => (0..3_usize, prop::bool::weighted(0.2)).prop_map(|(index, lose)| Event::ToMesh { index, lose }),
        12 => (0..3_usize, prop::bool::weighted(0.2)).prop_map(|(index, lose)| Event::ToOrchestrator { index, lose }),
        5 => (0..4_usize).prop_map(Event::Finish),
        3 => (0..4_usize).prop_map(Event::Report),
        3 => (0..4_usize).prop_map(Event::Toggle),
        4 => (0..20_000_u64).prop_map(Event::Pass),
        1 => any::<bool>().prop_map(|decided| Event::Crash { decided }),
        2 => any::<bool>().prop_map(Event::Mesh),
        1 => (1..3_i64, mode).prop_map(|(job, mode)| Event::Stop(job, mode)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_end_is_recorded_once_whatever_is_lost(
        events in prop::collection::vec(event(), 0..120),
        sensitive in any::<bool>(),
    ) {
        let mut world = World::new(&NAMES);
        world.connect();
        world.submit(1, &NAMES, sensitive);
        world.submit(2, &["b", "c"], false);
        for event in events {
            match event {
                Event::ToMesh { index, lose: false } => world.deliver_to_mesh(index),
                Event::ToMesh { index, .. } => {
                    if index < world.to_mesh.len() {
                        world.to_mesh.remove(index);
                    }
                }
                Event::ToOrchestrator { index, lose: false } => world.deliver_to_orchestrator(index),
                Event::ToOrchestrator { index, .. } => {
                    // A link to a broker loses what agents send, never what the broker itself says.
                    let lost = world.to_orchestrator.get(index).is_some_and(|m| kind_of(m).is_some());
                    if lost {
                        world.to_orchestrator.remove(index);
                    }
                }
                Event::Finish(agent) => world.finish(NAMES[agent]),
                Event::Report(agent) => world.report(NAMES[agent]),
                Event::Toggle(agent) => world.toggle(NAMES[agent]),
                Event::Pass(millis) => world.pass(millis),
                Event::Crash { decided } => {
                    if decided && world.mesh && !world.to_orchestrator.is_empty() {
                        let message = world.to_orchestrator.remove(0);
                        let now = world.now();
                        world.controller.message(now, &message);
                    }
                    world.crash(decided);
                }
                Event::Mesh(true) => world.connect(),
                Event::Mesh(false) => world.disconnect(),
                Event::Stop(job, mode) => {
                    let now = world.now();
                    world.controller.stop(now, JobId(job), mode);
                    world.flush();
                }
            }
            // A job's end and its nodes' ends are never seen apart.
            for job in world.disk.jobs.values() {
                let open = job.nodes.iter().any(|node| !node.state.is_final());
                prop_assert_eq!(open, !job.state.is_final());
            }
        }
        world.heal();
        for job in world.disk.jobs.values() {
            prop_assert!(job.state.is_final());
            for node in &job.nodes {
                prop_assert_eq!(node.ends, 1);
                let spooled = world.agents[node.certname.as_str()].spool.get(&node.transaction);
                if node.state == NodeState::Finished {
                    prop_assert!(spooled.is_some_and(|spooled| spooled.finished));
                }
                if node.state == NodeState::Skipped {
                    prop_assert!(spooled.is_none(), "a skipped node ran");
                }
                prop_assert!(spooled.is_none_or(|spooled| spooled.acknowledged));
            }
        }
        prop_assert_eq!(world.controller.counts().jobs, 0);
        prop_assert!(world.controller.transactions.is_empty());
        prop_assert!(world.controller.requests.is_empty());
        prop_assert!(world.controller.interest.is_empty());
    }
}

#[test]
fn a_node_that_was_never_connected_is_errored_at_once() {
    let mut world = World::new(&["a"]);
    world.connect();
    world.settle();
    world.submit(1, &["a", "nobody"], false);
    let (state, nodes) = world.state(1);
    assert_eq!(
        (state, nodes),
        (
            JobState::Running,
            vec![NodeState::Running, NodeState::Errored]
        )
    );
    world.heal();
    assert_eq!(world.state(1).0, JobState::Failed);
}

#[test]
fn a_node_that_just_went_is_waited_for() {
    let mut world = World::new(&["a", "b"]);
    world.connect();
    world.settle();
    world.toggle("a");
    world.toggle("b");
    world.settle();
    world.submit(1, &["a", "b"], false);
    assert_eq!(world.state(1).1, [NodeState::Ready, NodeState::Ready]);
    world.pass(20_000);
    world.toggle("a");
    world.settle();
    assert_eq!(world.state(1).1, [NodeState::Running, NodeState::Ready]);
    world.pass(10_000);
    assert_eq!(world.state(1).1, [NodeState::Running, NodeState::Errored]);
    let message = world.disk.jobs[&JobId(1)].nodes[1].message.clone();
    assert_eq!(
        message.as_deref(),
        Some("the node is not connected to any broker")
    );
}

#[test]
fn a_request_is_sent_again_until_it_is_accepted_and_never_after() {
    let mut world = World::new(&["a"]);
    world.connect();
    world.settle();
    world.submit(1, &["a"], false);
    world.to_mesh.clear();
    world.pass(4_999);
    assert_eq!(world.waiting(MessageKind::NonBlockingRequest), 0);
    world.pass(1);
    assert_eq!(world.waiting(MessageKind::NonBlockingRequest), 1);
    world.settle();
    world.pass(59_000);
    assert_eq!(world.to_mesh.len(), 0);
    world.pass(1_000);
    assert_eq!(world.waiting(MessageKind::BlockingRequest), 1);
    assert_eq!(world.waiting(MessageKind::NonBlockingRequest), 0);
}

#[test]
fn a_node_that_does_not_answer_is_errored() {
    let mut world = World::new(&["a"]);
    world.connect();
    world.settle();
    world.submit(1, &["a"], false);
    world.to_mesh.clear();
    world.pass(30_000);
    assert_eq!(world.state(1), (JobState::Failed, vec![NodeState::Errored]));
}

#[test]
fn without_a_broker_a_job_waits_a_while_and_is_errored() {
    let mut world = World::new(&["a"]);
    world.submit(1, &["a"], false);
    world.pass(29_000);
    assert_eq!(world.state(1).1, [NodeState::Ready]);
    world.pass(1_000);
    assert_eq!(world.state(1), (JobState::Failed, vec![NodeState::Errored]));
}

#[test]
fn a_node_whose_agent_never_comes_back_is_lost() {
    let mut world = World::new(&["a"]);
    world.connect();
    world.settle();
    world.submit(1, &["a"], false);
    world.settle();
    world.toggle("a");
    world.settle();
    world.pass(TIME_LIMIT * 1000 + super::run::MARGIN);
    assert_eq!(world.state(1), (JobState::Failed, vec![NodeState::Failed]));
}

#[test]
fn an_agent_that_forgot_an_accepted_task_is_lost_and_not_asked_to_run_it_again() {
    let mut world = World::new(&["a"]);
    world.connect();
    world.settle();
    world.submit(1, &["a"], false);
    world.settle();
    world.agents.get_mut("a").unwrap().spool.clear();
    world.crash(false);
    world.settle();
    assert_eq!(world.state(1), (JobState::Failed, vec![NodeState::Failed]));
    assert!(world.agents["a"].spool.is_empty());
}

#[test]
fn secrets_that_were_not_sent_before_a_restart_are_an_error() {
    let mut world = World::new(&["a", "b", "c", "d"]);
    world.connect();
    world.settle();
    world.submit(1, &["a", "b", "c", "d"], true);
    world.settle();
    world.crash(false);
    let (state, nodes) = world.state(1);
    assert_eq!(state, JobState::Running);
    assert_eq!(nodes[3], NodeState::Errored);
    world.heal();
    let (state, nodes) = world.state(1);
    assert_eq!(state, JobState::Failed);
    assert_eq!(nodes[..3], [NodeState::Finished; 3]);
}

#[test]
fn jobs_take_turns() {
    let names: Vec<String> = (0..20).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::new(&names);
    world.connect();
    world.settle();
    world.submit(1, &names, false);
    world.submit(2, &names[..2], false);
    world.settle();
    // Two ends of the large job make room for one node of each.
    for name in ["n0", "n1"] {
        world.finish(name);
        world.settle();
    }
    let running = |world: &World, job| {
        let nodes = world.state(job).1;
        nodes
            .iter()
            .filter(|state| **state == NodeState::Running)
            .count()
    };
    assert!(
        running(&world, 2) >= 1,
        "the small job waits for the large one"
    );
    assert_eq!(running(&world, 1) + running(&world, 2), 3);
}

#[test]
fn nobody_answers_for_another_node() {
    let mut world = World::new(&["a", "b"]);
    world.connect();
    world.settle();
    world.submit(1, &["a"], false);
    world.settle();
    let transaction: TransactionId = "1-a".parse().unwrap();
    let now = world.now();
    world
        .controller
        .message(now, &outcome("b", &transaction, 0));
    world.flush();
    assert_eq!(world.state(1).1, [NodeState::Running]);
    assert_eq!(world.to_mesh.len(), 0);
    let mut forged = outcome("a", &transaction, 0);
    forged.envelope.sender = uri("a", ClientType::parse("controller").unwrap());
    world.controller.message(now, &forged);
    world.flush();
    assert_eq!(world.state(1).1, [NodeState::Running]);
}

#[test]
fn a_broker_that_refuses_ends_the_node_with_its_reason() {
    let mut world = World::new(&["a"]);
    world.connect();
    world.settle();
    world.submit(1, &["a"], false);
    let sent = world.to_mesh.remove(0);
    let body = ErrorKind::NotAuthorized.body();
    let refusal = of_broker(body::error_message(), Some(sent.envelope.id), body);
    world.to_orchestrator.push(refusal);
    world.settle();
    assert_eq!(world.state(1), (JobState::Failed, vec![NodeState::Errored]));
    let message = world.disk.jobs[&JobId(1)].nodes[0].message.clone();
    assert!(message.unwrap().contains("Message not authorized."));
}

#[test]
fn an_outcome_that_comes_again_is_acknowledged_again() {
    let mut world = World::new(&["a"]);
    world.connect();
    world.settle();
    world.submit(1, &["a"], false);
    world.heal();
    assert_eq!(world.state(1).0, JobState::Finished);
    world
        .agents
        .get_mut("a")
        .unwrap()
        .spool
        .values_mut()
        .for_each(|s| s.acknowledged = false);
    world.report("a");
    world.settle();
    assert!(
        world.agents["a"]
            .spool
            .values()
            .all(|spooled| spooled.acknowledged)
    );
    assert_eq!(world.disk.jobs[&JobId(1)].nodes[0].ends, 1);
}
