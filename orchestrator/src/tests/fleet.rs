//! Agents and a broker, played at the seam where the dispatcher meets the mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use pcp::body::{self, InventoryChange, InventoryResponse, InventoryUpdate, Places};
use pcp::message::{Envelope, Flags, Message, MessageId, MessageType};
use pcp::uri::{Certname, ClientType, Target, Uri};
use pxp::{
    ActionResult, BlockingRequest, BlockingResponse, JsonObject, MessageKind, NonBlockingRequest,
    NonBlockingResponse, OutcomeAcknowledgement, OutputChunk, OutputRequest, ProvisionalResponse,
    Status, StatusQuery, StatusResult, StopRequest, StopResult, StopState, StreamChunk, TaskRun,
    TransactionId,
};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::dispatch::{MeshEvent, MeshPort};
use crate::library::Library;

/// What an agent does with a task: the result, or nothing while it is held.
type Behaviour = Box<dyn Fn(&str, &TaskRun) -> ActionResult + Send>;

/// Agents that outlive orchestrators. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fleet {
    state: Arc<Mutex<State>>,
    /// Whether ends of tasks are held back.
    held: Arc<watch::Sender<bool>>,
    /// How many requests have come.
    pub(crate) requests: Arc<watch::Sender<usize>>,
}

struct State {
    names: BTreeSet<String>,
    /// The broker that all are connected to.
    compiler: Certname,
    behaviour: Behaviour,
    spool: BTreeMap<TransactionId, Spooled>,
    to_orchestrator: Option<mpsc::Sender<MeshEvent>>,
}

pub(crate) struct Spooled {
    pub(crate) certname: String,
    /// Bodies of the requests that came for it.
    pub(crate) requests: Vec<String>,
    result: JsonObject,
    pub(crate) acknowledged: bool,
    pub(crate) killed: bool,
}

impl Fleet {
    pub(crate) fn new(
        names: &[&str],
        behaviour: impl Fn(&str, &TaskRun) -> ActionResult + Send + 'static,
    ) -> Self {
        let state = State {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            compiler: Certname::parse("compiler").unwrap(),
            behaviour: Box::new(behaviour),
            spool: BTreeMap::new(),
            to_orchestrator: None,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            held: Arc::new(watch::Sender::new(false)),
            requests: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Agents that print their input.
    pub(crate) fn echo(names: &[&str]) -> Self {
        Self::new(names, |_, run| {
            let input = serde_json::to_string(&run.input).unwrap();
            ActionResult {
                exitcode: 0,
                stdout: Some(input),
                stderr: None,
                usage: None,
            }
        })
    }

    /// Tasks do not end until [`Fleet::release`].
    pub(crate) fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Tasks end, and what has ended is reported.
    pub(crate) async fn release(&self) {
        self.held.send_replace(false);
        self.report().await;
    }

    /// Sends what is not acknowledged.
    pub(crate) async fn report(&self) {
        self.report_of(|_| true).await;
    }

    /// Sends what is not acknowledged of some nodes.
    pub(crate) async fn report_of(&self, is_meant: impl Fn(&str) -> bool) {
        let (messages, sender) = {
            let state = self.state.lock().unwrap();
            let open = state
                .spool
                .iter()
                .filter(|(_, spooled)| !spooled.acknowledged && is_meant(&spooled.certname));
            let messages: Vec<_> = open.map(|(id, spooled)| outcome(id, spooled)).collect();
            (messages, state.to_orchestrator.clone())
        };
        for message in messages {
            sender
                .as_ref()
                .unwrap()
                .send(MeshEvent::Message(message))
                .await
                .unwrap();
        }
    }

    /// A node goes.
    pub(crate) async fn leave(&self, name: &str) {
        self.state.lock().unwrap().names.remove(name);
        self.changed(name, InventoryChange::GONE, None).await;
    }

    /// A node is reached by another broker.
    pub(crate) async fn moved(&self, name: &str, broker: &str) {
        let change = InventoryChange::MOVED;
        self.changed(name, change, Some(broker)).await;
    }

    async fn changed(&self, name: &str, change: i8, broker: Option<&str>) {
        let sender = self.state.lock().unwrap().to_orchestrator.clone();
        let changes = vec![InventoryChange {
            client: uri(name, ClientType::agent()),
            change,
            broker: broker.map(|broker| Certname::parse(broker).unwrap()),
        }];
        let update = pxp::write(&InventoryUpdate { changes });
        let update = of_broker(body::inventory_update(), None, update);
        sender
            .unwrap()
            .send(MeshEvent::Message(update))
            .await
            .unwrap();
    }

    /// Looks into the agents' spools.
    pub(crate) fn spool<T>(&self, look: impl FnOnce(&BTreeMap<TransactionId, Spooled>) -> T) -> T {
        look(&self.state.lock().unwrap().spool)
    }

    /// Waits until so many requests have come, over all orchestrators.
    pub(crate) async fn requested(&self, number: usize) {
        let mut requests = self.requests.subscribe();
        let wait = requests.wait_for(|seen| *seen >= number);
        tokio::time::timeout(super::DEADLINE, wait)
            .await
            .unwrap()
            .unwrap();
    }

    /// Becomes the mesh of an orchestrator.
    pub(crate) fn connect(&self, library: Library, tasks: &daemon::Tasks) -> MeshPort {
        let (outgoing, mut to_mesh) = mpsc::channel::<Message>(16);
        let (to_orchestrator, incoming) = mpsc::channel(16);
        self.state.lock().unwrap().to_orchestrator = Some(to_orchestrator.clone());
        let fleet = self.clone();
        tasks.spawn("fleet", async move {
            let hello = MeshEvent::Connected {
                broker: Certname::parse("primary").unwrap(),
                max_message: 1024 * 1024,
            };
            to_orchestrator.send(hello).await.unwrap();
            while let Some(message) = to_mesh.recv().await {
                for file in fleet.wanted(&message) {
                    library.open(file.parse().unwrap()).await.unwrap();
                }
                for answer in fleet.answer(&message) {
                    // The orchestrator may be gone by now.
                    drop(to_orchestrator.send(MeshEvent::Message(answer)).await);
                }
            }
        });
        MeshPort { outgoing, incoming }
    }

    /// Kills what is held, and says so with its outcome.
    fn stop(&self, state: &mut State, name: &str, request: BlockingRequest) -> Vec<Message> {
        let about: StopRequest = request.params.unwrap().parse().unwrap();
        let id = about.transaction_id;
        let result = StopResult {
            transaction_id: id.clone(),
            state: match state.spool.get(&id) {
                None => StopState::Unknown,
                Some(_) if *self.held.borrow() => StopState::Stopped,
                Some(_) => StopState::Finished,
            },
        };
        let response = BlockingResponse {
            transaction_id: request.transaction_id,
            results: JsonObject::of(&result).unwrap(),
        };
        let mut answers = vec![of_agent(name, MessageKind::BlockingResponse, &response)];
        if let Some(spooled) = state.spool.get_mut(&id) {
            spooled.killed = result.state == StopState::Stopped;
            answers.push(outcome(&id, spooled));
        }
        answers
    }

    /// What a task has written: all that it will write, or its first three bytes while it is held.
    fn output(&self, state: &State, name: &str, request: BlockingRequest) -> Vec<Message> {
        let about: OutputRequest = request.params.unwrap().parse().unwrap();
        let id = about.transaction_id;
        let held = *self.held.borrow();
        let result: ActionResult = state.spool[&id].result.parse().unwrap();
        let stdout = result.stdout.unwrap_or_default();
        let stdout = if held { &stdout[..3] } else { &stdout };
        let total = u64::try_from(stdout.len()).unwrap();
        let from = usize::try_from(about.stdout).unwrap();
        let chunk = OutputChunk {
            transaction_id: id,
            status: if held {
                Status::Running
            } else {
                Status::Success
            },
            stdout: StreamChunk {
                offset: about.stdout,
                next: total,
                total,
                data: stdout.as_bytes()[from..].to_vec(),
            },
            stderr: StreamChunk::empty(0, 0),
            end: !held,
        };
        let response = BlockingResponse {
            transaction_id: request.transaction_id,
            results: JsonObject::of(&chunk).unwrap(),
        };
        vec![of_agent(name, MessageKind::BlockingResponse, &response)]
    }

    /// The files that a request names.
    fn wanted(&self, message: &Message) -> Vec<String> {
        match pxp::read::<NonBlockingRequest>(&message.body) {
            Ok(request) if request.module != "task" => vec![],
            Ok(request) => {
                let run: TaskRun = request.params.unwrap().parse().unwrap();
                run.files.into_iter().map(|file| file.sha256).collect()
            }
            Err(_) => vec![],
        }
    }

    fn answer(&self, message: &Message) -> Vec<Message> {
        let mut state = self.state.lock().unwrap();
        let reply = Some(message.envelope.id);
        let Target::Client(target) = &message.envelope.target else {
            assert!(message.envelope.flags.contains(Flags::PLACES));
            let names = state.names.iter();
            let response = pxp::write(&InventoryResponse {
                uris: names.map(|name| uri(name, ClientType::agent())).collect(),
                places: Some(Places::of(state.names.iter().map(|_| &state.compiler))),
            });
            return vec![of_broker(body::inventory_response(), reply, response)];
        };
        let name = target.certname().as_str().to_owned();
        if !state.names.contains(&name) {
            let error = body::ErrorKind::NotConnected.body().to_vec();
            return vec![of_broker(body::error_message(), reply, error)];
        }
        let kind = message
            .envelope
            .message_type
            .name()
            .and_then(MessageKind::from_name)
            .unwrap();
        match kind {
            MessageKind::NonBlockingRequest => {
                let request: NonBlockingRequest = pxp::read(&message.body).unwrap();
                let id = request.transaction_id;
                let params = request.params.unwrap();
                let result = if request.module == "task" {
                    let result = (state.behaviour)(&name, &params.parse().unwrap());
                    JsonObject::of(&result).unwrap()
                } else {
                    JsonObject::of(&puppet_run(&id)).unwrap()
                };
                let spooled = state.spool.entry(id.clone()).or_insert(Spooled {
                    certname: name.clone(),
                    requests: vec![],
                    result,
                    acknowledged: false,
                    killed: false,
                });
                spooled.requests.push(params.text().to_owned());
                self.requests.send_modify(|number| *number += 1);
                let provisional = ProvisionalResponse {
                    transaction_id: id.clone(),
                };
                let kind = MessageKind::ProvisionalResponse;
                let mut answers = vec![of_agent(&name, kind, &provisional)];
                if !*self.held.borrow() || state.spool[&id].killed {
                    answers.push(outcome(&id, &state.spool[&id]));
                }
                answers
            }
            MessageKind::OutcomeAcknowledgement => {
                let done: OutcomeAcknowledgement = pxp::read(&message.body).unwrap();
                state
                    .spool
                    .get_mut(&done.transaction_id)
                    .unwrap()
                    .acknowledged = true;
                vec![]
            }
            MessageKind::BlockingRequest => {
                let request: BlockingRequest = pxp::read(&message.body).unwrap();
                match request.action.as_str() {
                    "stop" => return self.stop(&mut state, &name, request),
                    "read" => return self.output(&state, &name, request),
                    _ => {}
                }
                let about: StatusQuery = request.params.unwrap().parse().unwrap();
                let id = about.transaction_id;
                let status = match state.spool.get(&id) {
                    None => StatusResult::without_result(id, Status::Unknown, "no results"),
                    Some(_) if *self.held.borrow() => StatusResult::running(id),
                    Some(spooled) => match spooled.result.parse() {
                        Ok(result) => StatusResult::finished(id, result),
                        Err(_) => StatusResult::finished(
                            id,
                            ActionResult {
                                exitcode: 0,
                                stdout: Some(spooled.result.text().to_owned()),
                                stderr: None,
                                usage: None,
                            },
                        ),
                    },
                };
                let response = BlockingResponse {
                    transaction_id: request.transaction_id,
                    results: JsonObject::of(&status).unwrap(),
                };
                vec![of_agent(&name, MessageKind::BlockingResponse, &response)]
            }
            other => panic!("an agent got {other:?}"),
        }
    }
}

/// A run that has changed something. Its report bears the transaction's id.
fn puppet_run(id: &TransactionId) -> serde_json::Value {
    serde_json::json!({"time": "2026-11-22T14:30:00Z", "transaction_uuid": id.as_str(),
        "environment": "production", "status": "changed", "metrics": {"changed": 1, "total": 7},
        "exitcode": 0, "version": 1})
}

fn uri(name: &str, client_type: ClientType) -> Uri {
    Uri::new(Certname::parse(name).unwrap(), client_type)
}

fn outcome(transaction: &TransactionId, spooled: &Spooled) -> Message {
    let response = NonBlockingResponse {
        transaction_id: transaction.clone(),
        results: spooled.result.clone(),
    };
    of_agent(
        &spooled.certname,
        MessageKind::NonBlockingResponse,
        &response,
    )
}

fn of_agent<T: serde::Serialize>(name: &str, kind: MessageKind, body: &T) -> Message {
    let sender = uri(name, ClientType::agent());
    message(sender, MessageType::of(kind.name()), None, pxp::write(body))
}

fn of_broker(message_type: MessageType, reply: Option<MessageId>, body: Vec<u8>) -> Message {
    message(
        uri("primary", ClientType::server()),
        message_type,
        reply,
        body,
    )
}

fn message(
    sender: Uri,
    message_type: MessageType,
    in_reply_to: Option<MessageId>,
    body: Vec<u8>,
) -> Message {
    Message {
        envelope: Envelope {
            id: MessageId(Uuid::new_v4()),
            message_type,
            sender,
            target: Target::Client(uri("orchestrator", ClientType::orchestrator())),
            in_reply_to,
            hops: 1,
            flags: Flags::default(),
        },
        body: body.into(),
    }
}
