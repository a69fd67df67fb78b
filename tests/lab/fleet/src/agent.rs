//! One simulated agent: answers pings, takes on whatever it is asked to run, and says at once that it
//! went well.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use pcp::{Envelope, Flags, Message, MessageId, MessageType, Target, Uri};
use pcp_client::handle::State;
use pcp_client::{ClientConfig, ClientHandle, Event, SendError};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::Counters;

/// Starts an agent in a task of its own.
pub fn start(config: ClientConfig, counters: Arc<Counters>, tasks: &daemon::Tasks) {
    let (handle, events) = pcp_client::start(config, tasks);
    let state = handle.state();
    tasks.spawn("fleet-state", count_failures(state, Arc::clone(&counters)));
    tasks.spawn("fleet-agent", serve(handle, events, counters));
}

async fn serve(handle: ClientHandle, mut events: mpsc::Receiver<Event>, counters: Arc<Counters>) {
    let mut outcomes = Outcomes::default();
    loop {
        let event = match tokio::time::timeout(outcomes.patience(), events.recv()).await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(_) => {
                // Without a session they are sent again later.
                outcomes.send_again(&handle).await.unwrap_or_default();
                continue;
            }
        };
        match event {
            Event::Connected { .. } => {
                counters.connected.fetch_add(1, Ordering::Relaxed);
                counters.opened.fetch_add(1, Ordering::Relaxed);
            }
            Event::Disconnected { .. } => {
                counters.connected.fetch_sub(1, Ordering::Relaxed);
            }
            Event::Message(message) => {
                for answer in answers(handle.uri(), &message) {
                    outcomes.keep(&message, &answer);
                    // Without a session the requester asks again, or finds us gone.
                    if handle.send(answer).await.is_err() {
                        break;
                    }
                }
                outcomes.forget(&message);
                counters.answered.fetch_add(1, Ordering::Relaxed);
            }
            Event::Link(_) | Event::Content(_) => {}
        }
    }
}

/// How long a requester has to acknowledge an outcome before it is sent again: brokers may refuse it
/// when everybody answers at once, and real agents send theirs again, too.
const AGAIN: Duration = Duration::from_secs(2);

/// With nothing to send again there is nothing to wake up for.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// Outcomes that are not acknowledged, by transaction.
#[derive(Debug, Default)]
pub(crate) struct Outcomes(HashMap<String, Message>);

impl Outcomes {
    /// Sends all of them once more.
    pub(crate) async fn send_again(&self, handle: &ClientHandle) -> Result<(), SendError> {
        for outcome in self.0.values() {
            handle.send(outcome.clone()).await?;
        }
        Ok(())
    }

    /// How long nothing may come before they are sent again.
    pub(crate) fn patience(&self) -> Duration {
        if self.0.is_empty() { NEVER } else { AGAIN }
    }

    /// Keeps an answer that is an outcome, when the requester acknowledges those.
    pub(crate) fn keep(&mut self, request: &Message, answer: &Message) {
        let is_outcome = answer.envelope.message_type.name() == Some("rpc_non_blocking_response");
        if is_outcome
            && request.envelope.flags.contains(Flags::ACKNOWLEDGES)
            && let Some(id) = transaction(request)
        {
            self.0.insert(id, answer.clone());
        }
    }

    /// The requester has it.
    pub(crate) fn forget(&mut self, message: &Message) {
        let is_end = message.envelope.message_type.name() == Some("rpc_outcome_acknowledgement");
        if is_end && let Some(id) = transaction(message) {
            self.0.remove(&id);
        }
    }
}

fn transaction(message: &Message) -> Option<String> {
    let data: Value = serde_json::from_slice(&message.body).ok()?;
    Some(data.get("transaction_id")?.as_str()?.to_owned())
}

/// Counts attempts that led nowhere, as the client reports them.
async fn count_failures(mut state: watch::Receiver<State>, counters: Arc<Counters>) {
    let mut seen = 1;
    while state.changed().await.is_ok() {
        match &*state.borrow_and_update() {
            State::Connecting { attempt, .. } => {
                let more = attempt.saturating_sub(seen);
                counters.failed.fetch_add(more.into(), Ordering::Relaxed);
                seen = *attempt;
            }
            State::Connected { .. } => seen = 1,
            State::Closed => return,
        }
    }
}

/// What the requester is told. Nothing for messages that are no requests, such as the acknowledgement
/// of an outcome.
pub(crate) fn answers(uri: &Uri, message: &Message) -> Vec<Message> {
    let Ok(data) = serde_json::from_slice::<Value>(&message.body) else {
        return Vec::new();
    };
    let id = data.get("transaction_id").cloned().unwrap_or_default();
    let answer = |kind, data: &Value| reply(uri, &message.envelope, kind, data);
    match message.envelope.message_type.name() {
        Some("rpc_blocking_request") => {
            let results = match data.get("module").and_then(Value::as_str) {
                Some("status") => json!({
                    "transaction_id": data.pointer("/params/transaction_id"),
                    "status": "unknown",
                }),
                _ => json!({ "request_hops": [] }),
            };
            let body = json!({ "transaction_id": id, "results": results });
            vec![answer("rpc_blocking_response", &body)]
        }
        Some("rpc_non_blocking_request") => {
            let taken = json!({ "transaction_id": id });
            let done = json!({
                "transaction_id": id,
                "results": { "exitcode": 0, "stdout": "{}" },
            });
            vec![
                answer("rpc_provisional_response", &taken),
                answer("rpc_non_blocking_response", &done),
            ]
        }
        _ => Vec::new(),
    }
}

fn reply(uri: &Uri, request: &Envelope, kind: &'static str, data: &Value) -> Message {
    Message {
        envelope: Envelope {
            id: MessageId(Uuid::new_v4()),
            message_type: MessageType::of(kind),
            sender: uri.clone(),
            target: Target::Client(request.sender.clone()),
            in_reply_to: Some(request.id),
            hops: 0,
            flags: Flags::default(),
        },
        body: Bytes::from(data.to_string()),
    }
}
