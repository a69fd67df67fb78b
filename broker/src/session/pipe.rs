//! The pipe of an open session: its streams on one side, the driver on the other. One future reads,
//! one writes, and each large message or file has a task of its own.

use std::future::pending;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pcp::frame::{self, max_message_payload};
use pcp::message::INLINE_LIMIT;
use pcp::{
    ClientType, Envelope, ErrorKind, Flags, Frame, FrameError, GoodbyeCode, Message, MessageId,
    PeerMisbehaved, ServerEvent, ServerSession, Target, Uri,
};
use pcp_client::stream::{self, FrameStream, StreamError};
use pcp_client::transport;
use pcp_mesh::SessionId;
use quinn::{Connection, RecvStream, SendStream};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::{End, FAREWELL, farewell};
use crate::budget::Allowance;
use crate::content;
use crate::context::Context;
use crate::input::Input;
use crate::outbox::Outbox;

/// How long a peer may take no byte of the session stream while bytes wait. It is alive (QUIC would
/// notice otherwise) and stuck; without its session it may recover, and its queue is free.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// How long one large message may take, either way: 64 MiB at some 4 Mbit/s.
const LARGE_DEADLINE: Duration = Duration::from_secs(120);

/// What the halves of an open session need.
pub(super) struct Pipe<'a> {
    pub(super) session: SessionId,
    pub(super) uri: &'a Uri,
    /// Whether the peer is another primary.
    pub(super) from_primary: bool,
    pub(super) context: &'a Arc<Context>,
    pub(super) outbox: &'a Arc<Outbox>,
    pub(super) connection: &'a Connection,
    /// The large messages that are being read.
    pub(super) receiving: &'a TaskTracker,
}

impl Pipe<'_> {
    /// Hands what the peer sends to the driver, and waits when that has too much to do.
    pub(super) async fn read(&self, frames: &mut FrameStream, state: &mut ServerSession) -> End {
        let session = self.session;
        loop {
            let frame = match frames.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return End::Left("the peer closed the session".to_owned()),
                Err(error) => return End::Lost(error),
            };
            let input = match state.handle(frame) {
                Ok(ServerEvent::Message(message)) => {
                    if message.size() > INLINE_LIMIT {
                        // It has to come on a stream of its own, where its memory is accounted for.
                        return End::Lost(StreamError::Unexpected);
                    }
                    Input::Message { session, message }
                }
                Ok(ServerEvent::Link(frame)) => Input::LinkFrame { session, frame },
                Ok(ServerEvent::Goodbye(goodbye)) if goodbye.code == GoodbyeCode::GoingAway => {
                    return End::Moving;
                }
                Ok(ServerEvent::Goodbye(goodbye)) => return End::Left(goodbye.reason),
                Ok(ServerEvent::Hello(_)) => {
                    return End::Lost(StreamError::Misbehaved(PeerMisbehaved::OutOfOrder {
                        frame: "hello",
                        state: "twice",
                    }));
                }
                Err(error) => return End::Lost(StreamError::Misbehaved(error)),
            };
            if self.context.inputs.send(input).await.is_err() {
                return End::Stopping;
            }
        }
    }

    /// Writes what waits in the outbox, all of it at once. Ends when a goodbye has arrived, or has had its
    /// time, which is what it gives back; when the stream is cut, reading tells why.
    pub(super) async fn write(&self, send: &mut SendStream) -> Duration {
        loop {
            let ready = self.outbox.ready().await;
            for message in ready.large {
                self.send_large(message);
            }
            if write_in_time(send, ready.bytes).await.is_err() {
                self.outbox.abandon();
                self.connection.close(transport::CLOSED, b"");
                return pending().await;
            }
            if let Some(goodbye) = ready.goodbye {
                let patience = match goodbye.code {
                    // What is on its way either way must not be lost because a machine is busy.
                    GoodbyeCode::GoingAway => self.context.last_words,
                    _ => FAREWELL,
                };
                let goodbye = frame::to_bytes(&Frame::Goodbye(goodbye));
                drop(timeout(patience, farewell(send, goodbye)).await);
                return patience;
            }
        }
    }

    fn send_large(&self, message: Message) {
        let connection = self.connection.clone();
        let outbox = Arc::clone(self.outbox);
        let session = self.session;
        self.context.tasks.spawn("send-large", async move {
            let message_id = message.envelope.id;
            let sent = timeout(LARGE_DEADLINE, stream::send_message(&connection, message)).await;
            outbox.large_done();
            match sent {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    let error = daemon::error_chain(&error);
                    tracing::info!(%message_id, session = session.0, %error, "message not sent");
                }
                Err(_) => {
                    tracing::info!(%message_id, session = session.0, "message not taken in time");
                }
            }
        });
    }

    /// Takes messages on streams of their own; QUIC's stream limit bounds how many at once.
    pub(super) async fn accept_messages(&self) {
        let budget = &self.context.budget;
        let allowance = if *self.uri.client_type() == ClientType::agent() {
            budget.of_agent()
        } else {
            budget.of_controller()
        };
        while let Ok(stream) = self.connection.accept_uni().await {
            let receiving = receive_large(
                stream,
                self.session,
                self.uri.clone(),
                Arc::clone(self.context),
                Arc::clone(self.outbox),
                allowance.clone(),
            );
            let session = self.session;
            let receiving = self.receiving.track_future(async move {
                match timeout(LARGE_DEADLINE, receiving).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        let error = daemon::error_chain(&error);
                        tracing::info!(session = session.0, %error, "message not received");
                    }
                    Err(_) => {
                        tracing::info!(session = session.0, "message not received in time");
                    }
                }
            });
            self.context.tasks.spawn("receive-large", receiving);
        }
    }

    /// Takes questions for files; the same limit bounds them.
    pub(super) async fn accept_queries(&self) {
        while let Ok((send, receive)) = self.connection.accept_bi().await {
            let relay = Arc::clone(&self.context.relay);
            // Primaries would else ask each other in circles.
            let ask_on = !self.from_primary;
            let serving = content::serve(relay, ask_on, send, receive);
            self.context.tasks.spawn("content", serving);
        }
    }
}

async fn receive_large(
    stream: RecvStream,
    session: SessionId,
    uri: Uri,
    context: Arc<Context>,
    outbox: Arc<Outbox>,
    allowance: Allowance,
) -> Result<(), StreamError> {
    let mut frames = FrameStream::new(stream, max_message_payload(context.max_message));
    let announced = match frames.announced().await {
        Ok(announced) => announced,
        Err(StreamError::Frame(FrameError::TooLarge { .. })) => {
            let envelope = frames.envelope().await?;
            refuse_size(&context, &outbox, &uri, &envelope);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let share = allowance.share(announced).await;
    let message = stream::only_message(&mut frames).await?;
    if message.body.len() > context.max_message {
        refuse_size(&context, &outbox, &uri, &message.envelope);
        return Ok(());
    }
    let message = match share {
        Some(share) => share.hold(message),
        None => message,
    };
    // Without a driver the process is about to end.
    drop(
        context
            .inputs
            .send(Input::Message { session, message })
            .await,
    );
    Ok(())
}

/// Tells the sender of a message that it is too large. The mesh never sees that message, so it is
/// answered here; a sender that is not genuine gets no answer in another's name.
fn refuse_size(context: &Context, outbox: &Outbox, peer: &Uri, envelope: &Envelope) {
    tracing::debug!(message_id = %envelope.id, sender = %peer, "message too large");
    let target = if peer.client_type().is_server() {
        envelope.sender.clone()
    } else {
        peer.clone()
    };
    let answer = Message {
        envelope: Envelope {
            id: MessageId(Uuid::new_v4()),
            message_type: pcp::body::error_message(),
            sender: Uri::new(context.certname.clone(), ClientType::server()),
            target: Target::Client(target),
            in_reply_to: Some(envelope.id),
            hops: 0,
            flags: Flags::default(),
        },
        body: ErrorKind::TooLarge.body(),
    };
    // A peer whose queue is full has more to read than it reads.
    drop(outbox.push(Frame::Message(answer)));
}

/// Writes piece by piece, as the peer takes them: a slow peer may take long for all that waits.
async fn write_in_time(send: &mut SendStream, mut bytes: Bytes) -> Result<(), ()> {
    while !bytes.is_empty() {
        let written = send.write_chunks(slice::from_mut(&mut bytes));
        match timeout(WRITE_DEADLINE, written).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(()),
            Err(_) => {
                tracing::warn!("peer takes nothing any more: dropping it");
                return Err(());
            }
        }
    }
    Ok(())
}
