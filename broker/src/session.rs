//! One connection, from its first packet to its end: who it is, whether it may be here, and then the
//! pipe between its streams and the driver.

mod open;

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pcp::frame::{self, max_message_payload};
use pcp::message::INLINE_LIMIT;
use pcp::{
    Certname, Envelope, ErrorKind, Flags, Frame, FrameError, Goodbye, GoodbyeCode, Message,
    MessageId, PeerMisbehaved, ServerEvent, ServerSession, Target, Uri,
};
use pcp_client::stream::{self, FrameStream, StreamError};
use pcp_client::transport;
use pcp_mesh::{LinkKind, SessionId};
use quinn::{Connection, Incoming, RecvStream, SendStream, WriteError};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;
use uuid::Uuid;

use crate::authorize::{Kind, Rules};
use crate::budget::Budget;
use crate::content::{self, Relay};
use crate::driver::{Exit, Input};
use crate::outbox::Outbox;
use open::{Opened, open};

/// How long a peer may take no byte of the session stream while bytes wait. It is alive (QUIC would
/// notice otherwise) and stuck; without its session it may recover, and its queue is free.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// How long one large message may take, either way: 64 MiB at some 4 Mbit/s.
const LARGE_DEADLINE: Duration = Duration::from_secs(120);

/// How long we wait at the end until the goodbye has arrived.
const FAREWELL: Duration = Duration::from_secs(2);

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct Context {
    /// The broker's own certname.
    pub(crate) certname: Certname,
    /// Product and version.
    pub(crate) software: String,
    pub(crate) rules: Arc<Rules>,
    /// The largest body in bytes.
    pub(crate) max_message: usize,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) ids: Arc<SessionIds>,
    pub(crate) budget: Budget,
    pub(crate) relay: Arc<Relay>,
    /// Where the tasks of single messages and files run.
    pub(crate) tasks: daemon::Tasks,
}

/// Numbers for sessions, unique in the life of the process.
#[derive(Debug, Default)]
pub(crate) struct SessionIds(AtomicU64);

impl SessionIds {
    pub(crate) fn next(&self) -> SessionId {
        SessionId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// How a session ended.
#[derive(Debug)]
enum End {
    /// The peer said goodbye, or closed the stream in good order.
    Left(String),
    /// The connection was lost, or the peer broke the protocol.
    Lost(StreamError),
    /// We have said goodbye.
    Closed,
    /// The driver has ended, and the process is about to.
    Stopping,
}

/// Whatever ends the session, a panic of its task included: nobody sends to it or asks it any more.
struct Registered<'a> {
    session: SessionId,
    outbox: &'a Outbox,
    relay: &'a Relay,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.outbox.abandon();
        self.relay.remove(self.session);
    }
}

/// Serves a connection to its end. `place` is held until it has said hello.
pub(crate) async fn serve(incoming: Incoming, context: Arc<Context>, place: OwnedSemaphorePermit) {
    let address = incoming.remote_address();
    // Boxed, so that the memory of a handshake is not kept for the life of the session.
    let opened = match Box::pin(open(incoming, &context)).await {
        Ok(opened) => opened,
        Err(error) => {
            let error = daemon::error_chain(&error);
            tracing::info!(%address, %error, "connection refused");
            return;
        }
    };
    drop(place);
    let session = opened.session;
    let uri = opened.uri.clone();
    tracing::info!(
        %uri,
        %address,
        session = session.0,
        software = %opened.software,
        "connected"
    );
    let reason = match run(opened, &context).await {
        End::Left(reason) => reason,
        End::Lost(error) => daemon::error_chain(&error),
        End::Closed => "closed by this broker".to_owned(),
        End::Stopping => "this broker is being stopped".to_owned(),
    };
    tracing::info!(%uri, session = session.0, %reason, "disconnected");
    // Without a driver there is nobody to tell.
    drop(context.inputs.send(Input::Closed { session }).await);
}

async fn run(opened: Opened, context: &Arc<Context>) -> End {
    let Opened {
        session,
        uri,
        kind,
        started,
        offers_content,
        connection,
        mut state,
        mut frames,
        mut send,
        outbox,
        ..
    } = opened;
    let registered = Registered {
        session,
        outbox: &outbox,
        relay: &context.relay,
    };
    if offers_content {
        context.relay.add(session, connection.clone());
    }
    let input = match kind {
        Kind::Broker => Input::Link {
            session,
            broker: uri.certname().clone(),
            kind: LinkKind::Down,
            exit: Exit::Session(Arc::clone(&outbox)),
        },
        Kind::Agent | Kind::Controller => Input::Client {
            session,
            uri: uri.clone(),
            started,
            outbox: Arc::clone(&outbox),
        },
    };
    if context.inputs.send(input).await.is_err() {
        outbox.close(stopping());
    }

    let pipe = Pipe {
        session,
        uri: &uri,
        context,
        outbox: &outbox,
        connection: &connection,
    };
    let mut writing = pin!(pipe.write(&mut send));
    let end = tokio::select! {
        biased;
        end = pipe.read(&mut frames, &mut state) => end,
        () = &mut writing => End::Closed,
        () = pipe.accept_messages() => pending().await,
        () = pipe.accept_queries() => pending().await,
    };
    let mut code = transport::CLOSED;
    if let End::Lost(error) = &end
        && error.is_misbehaviour()
    {
        code = transport::MISBEHAVED;
        outbox.close(Goodbye {
            code: GoodbyeCode::ProtocolError,
            reason: daemon::error_chain(error),
        });
        // A courtesy, to a peer that has not earned it.
        drop(timeout(FAREWELL, writing).await);
    }
    drop(registered);
    connection.close(code, b"");
    end
}

/// What the halves of an open session need.
struct Pipe<'a> {
    session: SessionId,
    uri: &'a Uri,
    context: &'a Arc<Context>,
    outbox: &'a Arc<Outbox>,
    connection: &'a Connection,
}

impl Pipe<'_> {
    /// Hands what the peer sends to the driver, and waits when that has too much to do.
    async fn read(&self, frames: &mut FrameStream, state: &mut ServerSession) -> End {
        let session = self.session;
        loop {
            let frame = match frames.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return End::Left("the peer closed the session".to_owned()),
                Err(error) => return End::Lost(error),
            };
            let input = match state.handle(frame) {
                Ok(ServerEvent::Message(message)) => {
                    if message.body.len() > self.context.max_message {
                        self.refuse_size(&message.envelope);
                        continue;
                    }
                    Input::Message { session, message }
                }
                Ok(ServerEvent::Link(frame)) => Input::LinkFrame { session, frame },
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

    /// Writes what waits in the outbox, all of it at once. Ends after a goodbye; when the stream is
    /// cut, reading tells why.
    async fn write(&self, send: &mut SendStream) {
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
                let goodbye = frame::to_bytes(&Frame::Goodbye(goodbye));
                drop(timeout(FAREWELL, farewell(send, goodbye)).await);
                return;
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
                Ok(Ok(())) => {}
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
    async fn accept_messages(&self) {
        while let Ok(stream) = self.connection.accept_uni().await {
            let receiving = receive_large(
                stream,
                self.session,
                self.uri.clone(),
                Arc::clone(self.context),
                Arc::clone(self.outbox),
            );
            let session = self.session;
            self.context.tasks.spawn("receive-large", async move {
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
        }
    }

    /// Takes questions for files; the same limit bounds them.
    async fn accept_queries(&self) {
        while let Ok((send, receive)) = self.connection.accept_bi().await {
            let relay = Arc::clone(&self.context.relay);
            let serving = content::serve(relay, send, receive);
            self.context.tasks.spawn("content", serving);
        }
    }

    fn refuse_size(&self, envelope: &Envelope) {
        refuse_size(self.context, self.outbox, self.uri, envelope);
    }
}

async fn receive_large(
    stream: RecvStream,
    session: SessionId,
    uri: Uri,
    context: Arc<Context>,
    outbox: Arc<Outbox>,
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
    let share = context.budget.share(announced).await;
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
            sender: Uri::new(context.certname.clone(), pcp::ClientType::server()),
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

async fn write_in_time(send: &mut SendStream, bytes: bytes::Bytes) -> Result<(), ()> {
    if bytes.is_empty() {
        return Ok(());
    }
    match timeout(WRITE_DEADLINE, send.write_chunk(bytes)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(()),
        Err(_) => {
            tracing::warn!("peer takes nothing any more: dropping it");
            Err(())
        }
    }
}

/// The last frame, and the wait until it has arrived.
async fn farewell(send: &mut SendStream, goodbye: bytes::Bytes) -> Result<(), WriteError> {
    send.write_chunk(goodbye).await?;
    // Both fail only when the peer is gone already.
    drop(send.finish());
    drop(send.stopped().await);
    Ok(())
}

fn stopping() -> Goodbye {
    Goodbye {
        code: GoodbyeCode::GoingAway,
        reason: "the broker is being stopped".to_owned(),
    }
}

/// Inline messages are never above the limit of a stream of their own.
const _: () = assert!(INLINE_LIMIT <= frame::MAX_SESSION_PAYLOAD);
