//! What leaves the agent: answers are made into PCP messages here and sent one after the other, so
//! that at most one result at a time is held in memory.

use std::sync::Arc;

use bytes::Bytes;
use pcp::{Envelope, Flags, Message, MessageId, MessageType, Target, Uri};
use pcp_client::{ClientHandle, SendError};
use pxp::{
    BlockingResponse, JsonObject, MessageKind, NonBlockingResponse, ProvisionalResponse, RpcError,
    TransactionId,
};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::engine::handle::{Command, EngineHandle};
use crate::results::{self, About, NoResult};
use crate::runner::Runner;
use crate::transaction::{Notify, Outcome, Request};

/// How many answers wait to be sent. They are small: outcomes are read from disk only when it is
/// their turn, and results of blocking requests keep their request's [`Places`] while they wait. When
/// it is full, answers to requests are dropped: requesters ask again; outcomes stay in the spool and
/// are tried again.
const QUEUE: usize = 1024;

/// Puts answers in line.
#[derive(Debug, Clone)]
pub struct Outbox(mpsc::Sender<Outgoing>);

/// What a blocking request has taken of the agent's limits: its place among those in hand, and its
/// share of their memory. Given back when the answer has left.
pub type Places = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// An answer.
#[derive(Debug)]
pub struct Outgoing {
    to: Uri,
    content: Content,
    places: Option<Places>,
}

#[derive(Debug)]
enum Content {
    /// Not PXP: the request could not even be read.
    PcpError {
        in_reply_to: MessageId,
        text: String,
    },
    Error(RpcError),
    Provisional(ProvisionalResponse),
    Blocking(Box<BlockingResponse>, MessageId),
    Outcome {
        request: Arc<Request>,
        outcome: Outcome,
        tracked: bool,
    },
}

/// Sends what is in line.
#[derive(Debug)]
pub struct Sender {
    queue: mpsc::Receiver<Outgoing>,
    client: ClientHandle,
    runner: Runner,
    engine: EngineHandle,
    max_message: usize,
}

/// A new outbox and what empties it.
#[must_use]
pub fn channel() -> (Outbox, mpsc::Receiver<Outgoing>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Outbox(sender), receiver)
}

impl Outbox {
    /// Puts an answer in line, unless the line is full, which `false` says.
    pub fn offer(&self, outgoing: Outgoing) -> bool {
        match self.0.try_send(outgoing) {
            Ok(()) => true,
            Err(error) => {
                let outgoing = error.into_inner();
                if matches!(outgoing.content, Content::Outcome { tracked: true, .. }) {
                    tracing::debug!(to = %outgoing.to, "outcome waits: the outbox is full");
                } else {
                    tracing::warn!(to = %outgoing.to, "answer dropped: the outbox is full");
                }
                false
            }
        }
    }

    /// Puts an answer in line; waits while the line is full.
    pub async fn send(&self, outgoing: Outgoing) {
        // Without a sender the agent is stopping.
        self.0.send(outgoing).await.ok();
    }
}

impl Outgoing {
    /// The body of this message is no PXP request.
    #[must_use]
    pub fn pcp_error(request: &Envelope, text: &str) -> Self {
        Self {
            to: request.sender.clone(),
            content: Content::PcpError {
                in_reply_to: request.id,
                text: text.to_owned(),
            },
            places: None,
        }
    }

    /// The request of this message is refused.
    #[must_use]
    pub fn refusal(request: &Envelope, id: TransactionId, text: &str) -> Self {
        Self {
            to: request.sender.clone(),
            content: Content::Error(RpcError {
                transaction_id: id,
                id: request.id.to_string(),
                description: text.to_owned(),
            }),
            places: None,
        }
    }

    /// The request is refused.
    #[must_use]
    pub fn error(request: &Request, text: &str) -> Self {
        Self {
            to: request.requester.clone(),
            content: Content::Error(error(request, text)),
            places: None,
        }
    }

    /// The request claims the id of another one.
    #[must_use]
    pub fn id_in_use(request: &Request) -> Self {
        let id = &request.id;
        tracing::warn!(transaction_id = %id, requester = %request.requester, "id used twice");
        Self::error(
            request,
            &format!("transaction {id} is already used by another request"),
        )
    }

    /// The request is taken on.
    #[must_use]
    pub fn provisional(request: &Request) -> Self {
        Self {
            to: request.requester.clone(),
            content: Content::Provisional(ProvisionalResponse {
                transaction_id: request.id.clone(),
            }),
            places: None,
        }
    }

    /// The results of a blocking request.
    #[must_use]
    pub fn blocking(
        request: &Envelope,
        id: TransactionId,
        results: JsonObject,
        places: Places,
    ) -> Self {
        let response = BlockingResponse {
            transaction_id: id,
            results,
        };
        Self {
            to: request.sender.clone(),
            content: Content::Blocking(Box::new(response), request.id),
            places: Some(places),
        }
    }

    /// The outcome, once more, because it was asked for again.
    #[must_use]
    pub fn outcome(request: &Arc<Request>, outcome: &Outcome) -> Self {
        Self::of_outcome(request, outcome, false)
    }

    /// The outcome; the engine is told what comes of sending it.
    #[must_use]
    pub fn tracked_outcome(request: &Arc<Request>, outcome: &Outcome) -> Self {
        Self::of_outcome(request, outcome, true)
    }

    fn of_outcome(request: &Arc<Request>, outcome: &Outcome, tracked: bool) -> Self {
        Self {
            to: request.requester.clone(),
            content: Content::Outcome {
                request: Arc::clone(request),
                outcome: outcome.clone(),
                tracked,
            },
            places: None,
        }
    }
}

impl Sender {
    /// A sender for what comes out of `queue`.
    #[must_use]
    pub fn new(
        queue: mpsc::Receiver<Outgoing>,
        client: ClientHandle,
        runner: Runner,
        engine: EngineHandle,
        max_message: usize,
    ) -> Self {
        Self {
            queue,
            client,
            runner,
            engine,
            max_message,
        }
    }

    /// Sends until nobody is left who could put anything in line, or until shutdown.
    pub async fn run(mut self, shutdown: tokio_util::sync::CancellationToken) {
        loop {
            let outgoing = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                outgoing = self.queue.recv() => outgoing,
            };
            let Some(outgoing) = outgoing else {
                return;
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.send(outgoing) => {}
            }
        }
    }

    async fn send(&self, outgoing: Outgoing) {
        let Outgoing {
            to,
            content,
            places,
        } = outgoing;
        match content {
            Content::PcpError { in_reply_to, text } => {
                let mut message = self.message(to, "error_message", pxp::write(&text));
                message.envelope.in_reply_to = Some(in_reply_to);
                self.transmit(message, None).await;
            }
            Content::Error(error) => {
                let message = self.pxp(to, MessageKind::Error, &error);
                self.transmit(message, None).await;
            }
            Content::Provisional(response) => {
                let message = self.pxp(to, MessageKind::ProvisionalResponse, &response);
                self.transmit(message, None).await;
            }
            Content::Blocking(response, request_id) => {
                let message = self.pxp(to, MessageKind::BlockingResponse, &*response);
                let id = response.transaction_id;
                self.transmit(message, Some((id, request_id))).await;
            }
            Content::Outcome {
                request,
                outcome,
                tracked,
            } => {
                let delivered = self.send_outcome(&request, outcome).await;
                if tracked {
                    let id = request.id.clone();
                    self.engine.send(Command::Sent { id, delivered }).await;
                }
            }
        }
        drop(places);
    }

    async fn send_outcome(&self, request: &Request, outcome: Outcome) -> bool {
        let directory = self.runner.spool().directory(&request.id);
        let max_result = self.runner.max_result();
        let about = About::request(request);
        // Requesters made for the original do not expect the key.
        let knows_usage = request.notify == Notify::UntilAcknowledged;
        let read = move || {
            let result = results::of(&directory, &outcome, &about, max_result)?;
            about.form.told(result, knows_usage)
        };
        let to = request.requester.clone();
        let message = match self.runner.disk().run(read).await {
            Ok(Ok(results)) => {
                let response = NonBlockingResponse {
                    transaction_id: request.id.clone(),
                    results,
                };
                self.pxp(to, MessageKind::NonBlockingResponse, &response)
            }
            Ok(Err(NoResult(text))) => self.pxp(to, MessageKind::Error, &error(request, &text)),
            Err(_stopping) => return false,
        };
        let ids = (request.id.clone(), request.request_id);
        self.transmit(message, Some(ids)).await
    }

    /// Sends a message. One that is too large is replaced by an error that says so, if there is
    /// somebody to tell.
    async fn transmit(&self, message: Message, ids: Option<(TransactionId, MessageId)>) -> bool {
        let message_type = message.envelope.message_type.clone();
        let to = message.envelope.target.clone();
        let size = message.body.len();
        let sent = if size > self.max_message {
            Err(SendError::TooLarge {
                size,
                limit: self.max_message,
            })
        } else {
            self.client.send(message).await
        };
        match sent {
            Ok(()) => {
                tracing::debug!(%message_type, %to, "sent");
                true
            }
            Err(SendError::TooLarge { size, limit }) => {
                tracing::warn!(%message_type, %to, size, limit, "message too large");
                let (Some((transaction_id, id)), Target::Client(to)) = (ids, to) else {
                    return false;
                };
                let error = RpcError {
                    transaction_id,
                    id: id.to_string(),
                    description: format!("Message size: {size} exceeded max-message-size {limit}"),
                };
                let message = self.pxp(to, MessageKind::Error, &error);
                self.client.send(message).await.is_ok()
            }
            Err(error) => {
                tracing::debug!(%message_type, %to, %error, "not sent");
                false
            }
        }
    }

    fn pxp<T: Serialize>(&self, to: Uri, kind: MessageKind, body: &T) -> Message {
        self.message(to, kind.name(), pxp::write(body))
    }

    fn message(&self, to: Uri, name: &'static str, body: Vec<u8>) -> Message {
        Message {
            envelope: Envelope {
                id: MessageId(uuid::Uuid::new_v4()),
                message_type: MessageType::of(name),
                sender: self.client.uri().clone(),
                target: Target::Client(to),
                in_reply_to: None,
                hops: 0,
                flags: Flags::default(),
            },
            body: Bytes::from(body),
        }
    }
}

fn error(request: &Request, text: &str) -> RpcError {
    RpcError {
        transaction_id: request.id.clone(),
        id: request.request_id.to_string(),
        description: text.to_owned(),
    }
}
