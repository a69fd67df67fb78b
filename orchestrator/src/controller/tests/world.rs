//! Everything around the controller, played: a database, agents with their spools, and a mesh.

use std::collections::BTreeMap;

use bytes::Bytes;
use orchestrator_api::{JobState, JobType, NodeState};
use pcp::body::{self, ErrorKind, InventoryChange, InventoryResponse, InventoryUpdate};
use pcp::message::{Envelope, Flags, Message, MessageId, MessageType};
use pcp::uri::{Certname, ClientType, Target, Uri};
use pxp::{
    ActionResult, BlockingRequest, BlockingResponse, JsonObject, MessageKind, NonBlockingRequest,
    NonBlockingResponse, OutcomeAcknowledgement, ProvisionalResponse, Status, StatusQuery,
    StatusResult, StopRequest, StopResult, StopState, TransactionId,
};
use uuid::Uuid;

use super::super::{Composer, Controller, Now, Output, Settings, Submission};
use crate::job::{Action, JobId};
use crate::outcome::FoundReport;
use crate::store::{Change, Known, NewNode, SeenNode, Unfinished, UnfinishedNode};

pub(super) const TIME_LIMIT: u64 = 60;

/// Milliseconds that an agent may be silent.
pub(super) const LEASE: u64 = 480_000;

pub(super) fn settings() -> Settings {
    Settings {
        task_concurrency: 3,
        compile_concurrency: 1,
        lease: LEASE,
        reports: false,
        pcp_timeout: 30_000,
        max_message: 1024 * 1024,
    }
}

pub(super) fn composer() -> Composer {
    Composer {
        sender: uri("orchestrator", ClientType::orchestrator()),
        new_id: Uuid::new_v4,
    }
}

pub(super) fn uri(name: &str, client_type: ClientType) -> Uri {
    Uri::new(Certname::parse(name).unwrap(), client_type)
}

pub(super) fn request() -> JsonObject {
    serde_json::from_str(r#"{"task":"a","files":[],"input":{}}"#).unwrap()
}

fn puppet_request() -> JsonObject {
    serde_json::from_str(r#"{"flags":["--noop"]}"#).unwrap()
}

/// A message to the orchestrator.
pub(super) fn message(
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

pub(super) fn of_agent<T: serde::Serialize>(name: &str, kind: MessageKind, body: &T) -> Message {
    let message_type = MessageType::of(kind.name());
    let body = pxp::write(body).into();
    message(uri(name, ClientType::agent()), message_type, None, body)
}

pub(super) fn of_broker(
    message_type: MessageType,
    reply: Option<MessageId>,
    body: Bytes,
) -> Message {
    message(
        uri("primary", ClientType::server()),
        message_type,
        reply,
        body,
    )
}

pub(super) fn kind_of(message: &Message) -> Option<MessageKind> {
    MessageKind::from_name(message.envelope.message_type.name().unwrap())
}

/// What the database would hold.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) jobs: BTreeMap<JobId, DiskJob>,
    pub(super) seen: BTreeMap<Certname, i64>,
}

pub(super) struct DiskJob {
    pub(super) state: JobState,
    pub(super) job_type: JobType,
    pub(super) concurrency: Option<u64>,
    pub(super) request: Option<JsonObject>,
    pub(super) nodes: Vec<DiskNode>,
}

pub(super) struct DiskNode {
    pub(super) certname: Certname,
    pub(super) transaction: TransactionId,
    pub(super) state: NodeState,
    pub(super) accepted: bool,
    pub(super) started: Option<i64>,
    pub(super) ends: u32,
    pub(super) message: Option<String>,
    pub(super) result: Option<serde_json::Value>,
    pub(super) unknown: Option<i64>,
    pub(super) given_up: bool,
    pub(super) late: Option<NodeState>,
}

impl Disk {
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::NodeStarted { job, node, at, .. } => {
                let node = self.node(*job, *node);
                assert_eq!(node.state, NodeState::Ready, "started twice");
                node.state = NodeState::Running;
                node.started = Some(*at);
            }
            Change::NodeAccepted { job, node } => self.node(*job, *node).accepted = true,
            Change::NodeStopping { job, node, .. } => {
                let node = self.node(*job, *node);
                assert_eq!(node.state, NodeState::Running, "stopped what does not run");
                node.state = NodeState::Stopping;
            }
            Change::NodeUnknown { job, node, since } => self.node(*job, *node).unknown = *since,
            Change::NodeEnded { job, node, end, .. } => {
                let node = self.node(*job, *node);
                node.state = end.state;
                node.ends += 1;
                node.message = end.message.clone();
                node.result = end.result.0.clone();
                node.given_up = end.given_up;
            }
            Change::NodeLate { transaction, late } => {
                let mut nodes = self.jobs.values_mut().flat_map(|job| &mut job.nodes);
                let node = nodes.find(|node| node.transaction == *transaction).unwrap();
                assert!(
                    node.given_up && node.late.is_none(),
                    "late twice, or never given up"
                );
                node.late = Some(late.state);
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

    pub(super) fn node(&mut self, job: JobId, node: u32) -> &mut DiskNode {
        &mut self.jobs.get_mut(&job).unwrap().nodes[node as usize]
    }

    pub(super) fn seen(&self) -> Vec<SeenNode> {
        let nodes = self.seen.iter();
        nodes
            .map(|(certname, changed)| SeenNode {
                certname: certname.clone(),
                changed: *changed,
            })
            .collect()
    }

    pub(super) fn unfinished(&self) -> Vec<Unfinished> {
        let jobs = self.jobs.iter().filter(|(_, job)| !job.state.is_final());
        jobs.map(|(id, job)| Unfinished {
            id: *id,
            job_type: job.job_type,
            concurrency: job.concurrency,
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
                    unknown: node.unknown,
                    given_up: node.given_up && node.late.is_none(),
                })
                .collect(),
        })
        .collect()
    }

    pub(super) fn known(&self, transaction: &TransactionId, certname: &Certname) -> Known {
        let mut nodes = self.jobs.values().flat_map(|job| &job.nodes);
        match nodes.find(|node| node.transaction == *transaction) {
            None => Known::Unknown,
            Some(node) if node.certname != *certname => Known::OfAnother,
            Some(node) if node.given_up && node.late.is_none() => Known::GivenUp,
            Some(node) if node.state.is_final() => Known::Ended,
            Some(_) => Known::Open,
        }
    }
}

/// A request in an agent's spool.
#[derive(Default)]
pub(super) struct Spooled {
    pub(super) finished: bool,
    pub(super) killed: bool,
    /// The number of the job, which a Puppet run has to carry.
    pub(super) job: Option<String>,
    pub(super) acknowledged: bool,
}

#[derive(Default)]
pub(super) struct Agent {
    pub(super) connected: bool,
    pub(super) spool: BTreeMap<TransactionId, Spooled>,
}

/// Everything around the controller.
pub(super) struct World {
    pub(super) controller: Controller,
    pub(super) disk: Disk,
    pub(super) agents: BTreeMap<String, Agent>,
    pub(super) mesh: bool,
    pub(super) to_mesh: Vec<Message>,
    pub(super) to_orchestrator: Vec<Message>,
    /// Reports that are looked for.
    pub(super) wanted: Vec<(TransactionId, String)>,
    reports: bool,
    time_limit: u64,
    pub(super) wall: i64,
    pub(super) mono: u64,
}

impl World {
    pub(super) fn new(agents: &[&str]) -> Self {
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
            wanted: vec![],
            reports: false,
            time_limit: TIME_LIMIT,
            wall: now.wall,
            mono: 0,
        }
    }

    /// Begins anew with an orchestrator that looks for reports.
    pub(super) fn look_for_reports(&mut self) {
        self.reports = true;
        self.controller = self.new_controller();
    }

    fn new_controller(&self) -> Controller {
        let settings = Settings {
            reports: self.reports,
            ..settings()
        };
        Controller::new(self.now(), settings, composer())
    }

    /// A report has been found, or is not there.
    pub(super) fn found(&mut self, index: usize, is_found: bool) {
        if index < self.wanted.len() {
            let (transaction, uuid) = self.wanted.remove(index);
            assert_eq!(uuid, "u-1");
            let report = is_found.then(|| FoundReport {
                hash: "d7ec".to_owned(),
                url: None,
                configuration_version: None,
                environment: None,
                status: None,
            });
            self.controller.reported(self.now(), &transaction, report);
            self.flush();
        }
    }

    /// Begins anew with an orchestrator that sends no larger messages.
    pub(super) fn limit(&mut self, max_message: usize) {
        let settings = Settings {
            max_message,
            ..settings()
        };
        self.controller = Controller::new(self.now(), settings, composer());
    }

    pub(super) fn now(&self) -> Now {
        Now {
            wall: self.wall,
            mono: self.mono,
        }
    }

    /// Does what the controller has decided.
    pub(super) fn flush(&mut self) {
        let Output {
            changes,
            messages,
            lookups,
            reports,
            ..
        } = self.controller.take();
        for change in &changes {
            self.disk.apply(change);
        }
        if self.mesh {
            self.to_mesh.extend(messages);
        }
        self.wanted.extend(reports);
        let now = self.now();
        for lookup in lookups {
            let known = self.disk.known(&lookup.transaction, &lookup.certname);
            self.controller.looked_up(now, lookup, known);
        }
        let output = &self.controller.output;
        if !output.messages.is_empty() || !output.changes.is_empty() {
            self.flush();
        }
    }

    pub(super) fn submit(&mut self, id: i64, names: &[&str], sensitive: bool) {
        self.submit_job(id, names, sensitive, JobType::Task, None);
    }

    /// A job that runs Puppet, on so many nodes at once.
    pub(super) fn submit_puppet(&mut self, id: i64, names: &[&str], concurrency: Option<u64>) {
        self.submit_job(id, names, false, JobType::Deploy, concurrency);
    }

    /// A job whose task may take longer than any test.
    pub(super) fn submit_long(&mut self, id: i64, names: &[&str]) {
        self.time_limit = 100_000;
        self.submit(id, names, false);
    }

    fn submit_job(
        &mut self,
        id: i64,
        names: &[&str],
        sensitive: bool,
        job_type: JobType,
        concurrency: Option<u64>,
    ) {
        let request = || match job_type {
            JobType::Deploy => puppet_request(),
            _ => request(),
        };
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
            result: None,
            unknown: None,
            given_up: false,
            late: None,
        });
        let job = DiskJob {
            state: JobState::Ready,
            job_type,
            concurrency,
            request: (!sensitive).then(request),
            nodes: stored.collect(),
        };
        self.disk.jobs.insert(JobId(id), job);
        let submission = Submission {
            id: JobId(id),
            action: Action::from(job_type),
            nodes,
            concurrency,
            request: request(),
            time_limit: self.time_limit * 1000,
        };
        self.controller.submit(self.now(), submission);
        self.flush();
    }

    /// The process dies and starts again. `decided`: what it had just decided is on the disk, but
    /// not sent.
    pub(super) fn crash(&mut self, decided: bool) {
        if decided {
            for change in self.controller.take().changes {
                self.disk.apply(&change);
            }
        }
        self.mesh = false;
        self.to_mesh.clear();
        self.to_orchestrator.clear();
        self.mono = 0;
        self.wanted.clear();
        self.controller = self.new_controller();
        let (seen, jobs) = (self.disk.seen(), self.disk.unfinished());
        self.controller.restore(self.now(), seen, jobs);
        self.flush();
        self.connect();
    }

    pub(super) fn connect(&mut self) {
        if !self.mesh {
            self.mesh = true;
            self.controller
                .mesh_connected(self.now(), settings().max_message);
            self.flush();
        }
    }

    pub(super) fn disconnect(&mut self) {
        if self.mesh {
            self.mesh = false;
            self.to_mesh.clear();
            self.to_orchestrator.clear();
            self.controller.mesh_disconnected(self.now());
            self.flush();
        }
    }

    pub(super) fn pass(&mut self, millis: u64) {
        self.mono += millis;
        self.wall += i64::try_from(millis).unwrap();
        self.controller.tick(self.now());
        self.flush();
    }

    pub(super) fn toggle(&mut self, name: &str) {
        let agent = self.agents.get_mut(name).unwrap();
        agent.connected = !agent.connected;
        let change = InventoryChange {
            client: uri(name, ClientType::agent()),
            change: if agent.connected {
                InventoryChange::CAME
            } else {
                InventoryChange::GONE
            },
            broker: None,
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

    pub(super) fn finish(&mut self, name: &str) {
        for spooled in self.agents.get_mut(name).unwrap().spool.values_mut() {
            spooled.finished = true;
        }
        self.report(name);
    }

    /// The agent sends what has not been acknowledged.
    pub(super) fn report(&mut self, name: &str) {
        let agent = &self.agents[name];
        if !agent.connected || !self.mesh {
            return;
        }
        for (transaction, spooled) in &agent.spool {
            if spooled.finished && !spooled.acknowledged {
                let outcome = spooled.outcome(name, transaction);
                self.to_orchestrator.push(outcome);
            }
        }
    }

    pub(super) fn deliver_to_orchestrator(&mut self, index: usize) {
        if index < self.to_orchestrator.len() {
            let message = self.to_orchestrator.remove(index);
            self.controller.message(self.now(), &message);
            self.flush();
        }
    }

    pub(super) fn deliver_to_mesh(&mut self, index: usize) {
        if index >= self.to_mesh.len() {
            return;
        }
        let message = self.to_mesh.remove(index);
        let Target::Client(target) = &message.envelope.target else {
            let uris = self.agents.iter().filter(|(_, agent)| agent.connected);
            let uris = uris
                .map(|(name, _)| uri(name, ClientType::agent()))
                .collect();
            let body = pxp::write(&InventoryResponse { uris, places: None }).into();
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
    pub(super) fn heal(&mut self) {
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

    pub(super) fn state(&self, job: i64) -> (JobState, Vec<NodeState>) {
        let job = &self.disk.jobs[&JobId(job)];
        (job.state, job.nodes.iter().map(|node| node.state).collect())
    }

    /// Messages of a kind that wait to be delivered.
    pub(super) fn waiting(&self, kind: MessageKind) -> usize {
        let messages = self.to_mesh.iter();
        messages
            .filter(|message| kind_of(message) == Some(kind))
            .count()
    }

    pub(super) fn settle(&mut self) {
        while !self.to_mesh.is_empty() || !self.to_orchestrator.is_empty() {
            self.deliver_to_mesh(0);
            self.deliver_to_orchestrator(0);
        }
    }
}

pub(super) fn outcome(name: &str, transaction: &TransactionId, exitcode: i32) -> Message {
    let result = ActionResult {
        exitcode,
        stdout: Some("{}".to_owned()),
        stderr: None,
        usage: None,
    };
    let response = NonBlockingResponse {
        transaction_id: transaction.clone(),
        results: JsonObject::of(&result).unwrap(),
    };
    of_agent(name, MessageKind::NonBlockingResponse, &response)
}

impl Agent {
    /// Does what the real one does, and counts on the spool to never run anything twice.
    pub(super) fn receive(&mut self, name: &str, message: &Message) -> Vec<Message> {
        match kind_of(message).unwrap() {
            MessageKind::NonBlockingRequest => {
                assert!(message.envelope.flags.contains(Flags::ACKNOWLEDGES));
                let request: NonBlockingRequest = pxp::read(&message.body).unwrap();
                let transaction_id = request.transaction_id;
                let spooled = self.spool.entry(transaction_id.clone()).or_default();
                if request.module == "pxp-module-puppet" {
                    let params: pxp::PuppetRun = request.params.unwrap().parse().unwrap();
                    spooled.job = Some(params.job.expect("the job's number"));
                }
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
                if request.action == "stop" {
                    return self.stop(name, request);
                }
                let about: StatusQuery = request.params.unwrap().parse().unwrap();
                let id = about.transaction_id;
                let status = match self.spool.get(&id) {
                    None => StatusResult::without_result(id, Status::Unknown, "found no results"),
                    Some(spooled) if spooled.finished => {
                        StatusResult::finished(id, spooled.result())
                    }
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

    /// Kills what runs, and says so before the outcome is sent.
    fn stop(&mut self, name: &str, request: BlockingRequest) -> Vec<Message> {
        let about: StopRequest = request.params.unwrap().parse().unwrap();
        let id = about.transaction_id;
        let state = match self.spool.get_mut(&id) {
            None => StopState::Unknown,
            Some(spooled) if spooled.killed => StopState::Stopped,
            Some(spooled) if spooled.finished => StopState::Finished,
            Some(spooled) => {
                spooled.finished = true;
                spooled.killed = true;
                StopState::Stopped
            }
        };
        let result = StopResult {
            transaction_id: id.clone(),
            state,
        };
        let response = BlockingResponse {
            transaction_id: request.transaction_id,
            results: JsonObject::of(&result).unwrap(),
        };
        let mut messages = vec![of_agent(name, MessageKind::BlockingResponse, &response)];
        if let Some(spooled) = self.spool.get(&id).filter(|spooled| spooled.killed) {
            messages.push(spooled.outcome(name, &id));
        }
        messages
    }
}

impl Spooled {
    fn result(&self) -> ActionResult {
        if self.job.is_some() {
            return ActionResult {
                exitcode: 0,
                stdout: Some(puppet_result().to_string()),
                stderr: None,
                usage: None,
            };
        }
        ActionResult {
            exitcode: if self.killed { 143 } else { 0 },
            stdout: Some("{}".to_owned()),
            stderr: None,
            usage: None,
        }
    }

    fn outcome(&self, name: &str, transaction: &TransactionId) -> Message {
        let results = match &self.job {
            Some(_) => JsonObject::of(&puppet_result()).unwrap(),
            None => JsonObject::of(&self.result()).unwrap(),
        };
        let response = NonBlockingResponse {
            transaction_id: transaction.clone(),
            results,
        };
        of_agent(name, MessageKind::NonBlockingResponse, &response)
    }
}

fn puppet_result() -> serde_json::Value {
    serde_json::json!({"time": "2026-11-22T14:30:00Z", "transaction_uuid": "u-1",
        "environment": "production", "status": "changed", "metrics": {"changed": 1},
        "exitcode": 0, "version": 1})
}
