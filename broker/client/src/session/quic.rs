//! A session over QUIC: one future reads frames into the queue of events, one writes what the handle
//! has queued, and each large message or file has a task of its own.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use identity::{Distrust, Identity};
use pcp::message::INLINE_LIMIT;
use pcp::{ClientSession, Frame, FrameWriter, GoodbyeCode, Message};
use quinn::{Connection, SendStream, WriteError};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{
    Around, COALESCE, End, FAREWELL, LARGE_DEADLINE, LAST_WORDS, OtherWay, Outgoing, Ran,
    distrusted, event, farewell, moving, never, overtime,
};
use crate::Event;
use crate::content::{self, AnswerError};
use crate::handle::Queued;
use crate::stream::{self, FrameStream, StreamError};
use crate::transport;
use crate::woken::Woken;

/// A connection and its session stream.
#[derive(Debug)]
pub(crate) struct QuicLine {
    pub(crate) connection: Connection,
    /// By which the broker's certificate was verified.
    pub(crate) identity: Arc<Identity>,
    pub(crate) state: ClientSession,
    pub(crate) frames: FrameStream,
    pub(crate) send: SendStream,
}

/// What reading and writing share.
struct Pipe<'a> {
    connection: &'a Connection,
    tasks: &'a daemon::Tasks,
    events: &'a mpsc::Sender<Event>,
    /// Large messages that are being sent, or have not all arrived yet.
    arriving: TaskTracker,
}

/// How long a broker may take to let us go: it says what is on its way to us first.
const LETTING_GO: Duration = Duration::from_secs(5);

/// Runs a session to its end, or until the first broker is back and this one has let us go.
pub(super) async fn run<R: OtherWay>(
    line: QuicLine,
    outgoing: &mut Outgoing,
    around: &Around<'_>,
    home: impl Future<Output = R>,
) -> Ran<R> {
    let QuicLine {
        connection,
        identity,
        mut state,
        mut frames,
        mut send,
    } = line;
    let tasks = outgoing.tasks.clone();
    let pipe = Pipe {
        connection: &connection,
        tasks: &tasks,
        events: around.events,
        arriving: TaskTracker::new(),
    };
    let chain = transport::peer_certificates(&connection);
    let leave = around.shutdown.child_token();
    let writing = pipe.write(outgoing, &mut send, around.shutdown, &leave);
    let mut writing = Woken::new(Box::pin(writing));
    let mut found: Option<R> = None;
    let end = {
        let home = pin!(home);
        let reading = pin!(pipe.read(&mut frames, &mut state));
        let current = &around.config.identity;
        let rest = pin!(pipe.rest(around, distrusted(&chain, identity, current)));
        let (mut home, mut reading) = (Woken::new(home), Woken::new(reading));
        let mut rest = Woken::new(rest);
        let mut written = false;
        loop {
            tokio::select! {
                biased;
                end = &mut reading => {
                    if is_going_away(&end) && !written {
                        // The broker still listens: what is queued is said before we go.
                        leave.cancel();
                        drop(timeout(LAST_WORDS, &mut writing).await);
                    }
                    break end;
                }
                () = &mut writing, if !written => {
                    if found.is_none() {
                        break End::Shutdown;
                    }
                    written = true;
                }
                end = &mut rest => break end,
                reached = &mut home, if found.is_none() => {
                    found = Some(reached);
                    leave.cancel();
                }
                () = sleep(LETTING_GO), if written => break End::Goodbye(moving()),
            }
        }
    };
    drop(writing);
    outgoing.close();
    let misbehaved = matches!(&end, End::Lost(error) if error.is_misbehaviour());
    let code = if misbehaved {
        transport::MISBEHAVED
    } else {
        transport::CLOSED
    };
    connection.close(code, b"");
    match found {
        Some(reached) if is_going_away(&end) => Ran::GoneHome(Box::new(reached)),
        Some(reached) => {
            reached.leave();
            Ran::Ended(end)
        }
        None => Ran::Ended(end),
    }
}

fn is_going_away(end: &End) -> bool {
    matches!(end, End::Goodbye(goodbye) if goodbye.code == GoodbyeCode::GoingAway)
}

impl Pipe<'_> {
    /// What happens beside reading and writing, until it ends the session.
    async fn rest(&self, around: &Around<'_>, distrusted: impl Future<Output = Distrust>) -> End {
        tokio::select! {
            biased;
            () = overtime(around.shutdown) => End::Shutdown,
            () = around.cut.cancelled() => End::Dropped,
            why = distrusted => End::Distrusted(why),
            () = around.events.closed() => End::Abandoned,
            end = self.accept_messages(around.config.max_message) => end,
            end = self.accept_queries() => end,
        }
    }

    /// Reads the session stream; ends with it. What arrived before the connection was lost is still
    /// read.
    async fn read(&self, frames: &mut FrameStream, session: &mut ClientSession) -> End {
        loop {
            let frame = match frames.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return End::Silent,
                Err(error) => return End::Lost(error),
            };
            let event = match session.handle(frame) {
                Ok(meant) => match event(meant) {
                    Some(Ok(event)) => event,
                    Some(Err(end)) => return end,
                    None => continue,
                },
                Err(error) => return End::Lost(StreamError::Misbehaved(error)),
            };
            if self.events.send(event).await.is_err() {
                return End::Abandoned;
            }
        }
    }

    /// Writes what is queued, as much as is ready in one write. Ends only when we leave, after a
    /// goodbye that has arrived; when the stream is cut, reading tells why.
    async fn write(
        &self,
        outgoing: &mut Outgoing,
        send: &mut SendStream,
        shutdown: &CancellationToken,
        leave: &CancellationToken,
    ) {
        let written = self.write_queued(outgoing, send, shutdown, leave).await;
        if written.is_err() {
            outgoing.close();
            // A broker that stops our stream but keeps its own would leave us half open.
            self.connection.close(transport::CLOSED, b"");
            return never().await;
        }
        drop(send.finish());
        // A courtesy: the caller's deadline ends it.
        drop(send.stopped().await);
    }

    async fn write_queued(
        &self,
        outgoing: &mut Outgoing,
        send: &mut SendStream,
        shutdown: &CancellationToken,
        leave: &CancellationToken,
    ) -> Result<(), WriteError> {
        let mut writer = FrameWriter::default();
        loop {
            let first = tokio::select! {
                biased;
                queued = outgoing.queue.recv() => queued,
                () = leave.cancelled() => None,
            };
            let leaving = first.is_none();
            if let Some(first) = first {
                self.push(first, &mut writer);
                while writer.len() < COALESCE
                    && let Ok(next) = outgoing.queue.try_recv()
                {
                    self.push(next, &mut writer);
                }
            } else {
                // Whoever sends from now on is told that there is no session.
                outgoing.queue.close();
                while let Ok(queued) = outgoing.queue.try_recv() {
                    self.push(queued, &mut writer);
                }
                // Behind the goodbye the broker reads nothing more. A quarter of the time is left for it.
                self.arriving.close();
                drop(timeout(FAREWELL * 3 / 4, self.arriving.wait()).await);
                let goodbye = if shutdown.is_cancelled() {
                    farewell()
                } else {
                    moving()
                };
                writer.push(&Frame::Goodbye(goodbye));
            }
            if !writer.is_empty() {
                send.write_chunk(writer.take()).await?;
            }
            if leaving {
                return Ok(());
            }
        }
    }

    /// A large message leaves on a stream of its own.
    fn push(&self, queued: Queued, writer: &mut FrameWriter) {
        match queued {
            Queued {
                frame: Frame::Message(message),
                place: Some(place),
            } if message.size() > INLINE_LIMIT => self.start_large(message, place),
            Queued { frame, .. } => writer.push(&frame),
        }
    }

    /// Writes a large message beside the session stream. Its place is free again when it is handed to
    /// QUIC.
    fn start_large(&self, message: Message, place: OwnedSemaphorePermit) {
        let connection = self.connection.clone();
        let sending = self.arriving.track_future(async move {
            let id = message.envelope.id;
            let sent = timeout(LARGE_DEADLINE, stream::send_message(&connection, message)).await;
            drop(place);
            match sent {
                // It fails only with the connection, and then nothing is waited for any more.
                Ok(Ok(stream)) => drop(stream.stopped().await),
                Ok(Err(error)) => {
                    let error = daemon::error_chain(&error);
                    tracing::warn!(message_id = %id, %error, "large message not sent");
                }
                Err(_) => {
                    tracing::warn!(message_id = %id, "large message not taken in time");
                }
            }
        });
        self.tasks.spawn("pcp-client-send", sending);
    }

    /// Takes large messages. QUIC's limit of concurrent streams bounds how many there are at once, and
    /// each holds its place until its event is taken. How the connection ends, reading tells.
    async fn accept_messages(&self, max_message: usize) -> End {
        while let Ok(stream) = self.connection.accept_uni().await {
            let events = self.events.clone();
            self.tasks.spawn("pcp-client-receive", async move {
                match timeout(LARGE_DEADLINE, stream::read_message(stream, max_message)).await {
                    // An error means that nobody reads events any more.
                    Ok(Ok(message)) => drop(events.send(Event::Message(message)).await),
                    Ok(Err(error)) => {
                        let error = daemon::error_chain(&error);
                        tracing::warn!(%error, "large message not received");
                    }
                    Err(_) => tracing::warn!("large message not received in time"),
                }
            });
        }
        never().await
    }

    /// Takes questions for files. Without the feature the stream limit is zero, so none can come.
    async fn accept_queries(&self) -> End {
        while let Ok((send, receive)) = self.connection.accept_bi().await {
            let events = self.events.clone();
            self.tasks.spawn("pcp-client-query", async move {
                match content::question(send, receive).await {
                    Ok(query) => drop(events.send(Event::Content(query)).await),
                    Err(AnswerError::Request(StreamError::Read(_))) => {}
                    Err(error) => {
                        let error = daemon::error_chain(&error);
                        tracing::warn!(%error, "content request not understood");
                    }
                }
            });
        }
        never().await
    }
}
