//! An open session, from welcome to goodbye: one future reads frames into the queue of events, one
//! writes what the handle has queued, and each large message or file has a task of its own.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::{Current, Distrust, Identity, PeerRole};
use pcp::{ClientEvent, ClientSession, Frame, FrameWriter, Goodbye, GoodbyeCode};
use quinn::{Connection, SendStream, WriteError};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Event;
use crate::config::ClientConfig;
use crate::content::{self, AnswerError};
use crate::dial::Welcomed;
use crate::handle::Session;
use crate::stream::{self, FrameStream, StreamError};
use crate::transport;

/// How many frames wait for the writer. At the inline limit this is 4 MiB; a link's snapshot of
/// 100,000 clients takes some 100 of them.
pub(crate) const SEND_QUEUE: usize = 256;

/// How many large messages may be on their way out at once.
pub(crate) const LARGE_SENDS: usize = 4;

/// How long the broker may take for one large message: 64 MiB at some 4 Mbit/s.
pub(crate) const LARGE_DEADLINE: Duration = Duration::from_secs(120);

/// How many bytes are collected for one write at most: enough to fill packets and to let the kernel
/// segment them.
const COALESCE: usize = 64 * 1024;

/// How long we wait at a shutdown until what was sent has arrived.
const FAREWELL: Duration = Duration::from_secs(2);

/// How a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// We were shut down, and said goodbye.
    Shutdown,
    /// Nobody reads the events any more.
    Abandoned,
    /// The broker said goodbye.
    Goodbye(Goodbye),
    /// The connection was lost, or the broker broke the protocol.
    Lost(StreamError),
    /// The broker ended the stream without a goodbye.
    Silent,
    /// The broker's certificate is not trusted any more.
    Distrusted(Distrust),
}

/// The two halves of the queue to the writer, and what the handle needs.
pub(crate) fn open(
    welcomed: &Welcomed,
    max_message: usize,
    tasks: daemon::Tasks,
) -> (Session, mpsc::Receiver<Frame>) {
    let (outgoing, queue) = mpsc::channel(SEND_QUEUE);
    let theirs = usize::try_from(welcomed.welcome.max_message).unwrap_or(usize::MAX);
    let session = Session {
        outgoing,
        connection: welcomed.connection.clone(),
        large: Arc::new(Semaphore::new(LARGE_SENDS)),
        arriving: TaskTracker::new(),
        max_message: theirs.min(max_message),
        tasks,
    };
    (session, queue)
}

/// Runs a session to its end.
pub(crate) async fn run(
    welcomed: Welcomed,
    session: &Session,
    mut queue: mpsc::Receiver<Frame>,
    events: &mpsc::Sender<Event>,
    config: &ClientConfig,
    shutdown: &CancellationToken,
) -> End {
    let Welcomed {
        connection,
        identity,
        session: mut state,
        mut frames,
        mut send,
        ..
    } = welcomed;
    let leave = shutdown.child_token();
    let mut writing = pin!(write(&mut queue, &mut send, session, &leave));
    let end = tokio::select! {
        biased;
        end = read(&mut frames, &mut state, events) => {
            if matches!(&end, End::Goodbye(goodbye) if goodbye.code == GoodbyeCode::GoingAway) {
                // The broker still listens: what is queued is said before we go.
                leave.cancel();
                drop(timeout(FAREWELL, &mut writing).await);
            }
            end
        }
        () = &mut writing => End::Shutdown,
        () = async { shutdown.cancelled().await; sleep(FAREWELL).await } => End::Shutdown,
        why = distrusted(&connection, identity, &config.identity) => End::Distrusted(why),
        () = accept_messages(&connection, session, events, config.max_message) => pending().await,
        () = accept_queries(&connection, session, events) => pending().await,
        () = events.closed() => End::Abandoned,
    };
    session.large.close();
    let misbehaved = matches!(&end, End::Lost(error) if error.is_misbehaviour());
    let code = if misbehaved {
        transport::MISBEHAVED
    } else {
        transport::CLOSED
    };
    connection.close(code, b"");
    end
}

/// Ends when our certificates were replaced and the broker is not trusted by the new ones.
async fn distrusted(connection: &Connection, by: Arc<Identity>, current: &Current) -> Distrust {
    let mut changes = current.changes();
    let mut identity = current.get();
    // It was verified by the one in use, unless that was replaced since.
    let mut verified = Arc::ptr_eq(&by, &identity);
    drop(by);
    loop {
        if !verified {
            let chain = transport::peer_certificates(connection);
            let now = SystemTime::now();
            if let Err(why) = identity.recheck(&chain, PeerRole::Server, now) {
                return why;
            }
        }
        drop(identity);
        identity = changes.next().await;
        verified = false;
    }
}

/// Reads the session stream; ends with it. What arrived before the connection was lost is still read.
async fn read(
    frames: &mut FrameStream,
    session: &mut ClientSession,
    events: &mpsc::Sender<Event>,
) -> End {
    loop {
        let frame = match frames.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return End::Silent,
            Err(error) => return End::Lost(error),
        };
        let event = match session.handle(frame) {
            Ok(ClientEvent::Message(message)) => Event::Message(message),
            Ok(ClientEvent::Link(frame)) => Event::Link(frame),
            Ok(ClientEvent::Goodbye(goodbye)) => return End::Goodbye(goodbye),
            // The state machine lets neither come twice.
            Ok(ClientEvent::Welcome(_) | ClientEvent::Retry(_)) => continue,
            Err(error) => return End::Lost(StreamError::Misbehaved(error)),
        };
        if events.send(event).await.is_err() {
            return End::Abandoned;
        }
    }
}

/// Writes what is queued, as much as is ready in one write. Ends only at a shutdown, after a goodbye
/// that has arrived; when the stream is cut, reading tells why.
async fn write(
    queue: &mut mpsc::Receiver<Frame>,
    send: &mut SendStream,
    session: &Session,
    shutdown: &CancellationToken,
) {
    if write_queued(queue, send, session, shutdown).await.is_err() {
        // Whoever sends from now on is told that there is no session.
        queue.close();
        session.large.close();
        // A broker that stops our stream but keeps its own would leave us half open.
        session.connection.close(transport::CLOSED, b"");
        return pending().await;
    }
    drop(send.finish());
    // A courtesy: the caller's deadline ends it.
    drop(send.stopped().await);
}

async fn write_queued(
    queue: &mut mpsc::Receiver<Frame>,
    send: &mut SendStream,
    session: &Session,
    shutdown: &CancellationToken,
) -> Result<(), WriteError> {
    let mut writer = FrameWriter::default();
    loop {
        let first = tokio::select! {
            biased;
            frame = queue.recv() => frame,
            () = shutdown.cancelled() => None,
        };
        let leaving = first.is_none();
        if let Some(frame) = first {
            writer.push(&frame);
            drain(queue, &mut writer);
        } else {
            // Whoever sends from now on is told that there is no session.
            queue.close();
            while let Ok(frame) = queue.try_recv() {
                writer.push(&frame);
            }
            // Behind the goodbye the broker reads nothing more. Half of the time is left for it.
            session.arriving.close();
            drop(timeout(FAREWELL / 2, session.arriving.wait()).await);
            writer.push(&Frame::Goodbye(Goodbye {
                code: GoodbyeCode::Normal,
                reason: "the client is shut down".to_owned(),
            }));
        }
        send.write_chunk(writer.take()).await?;
        if leaving {
            return Ok(());
        }
    }
}

fn drain(queue: &mut mpsc::Receiver<Frame>, writer: &mut FrameWriter) {
    while writer.len() < COALESCE {
        let Ok(frame) = queue.try_recv() else { return };
        writer.push(&frame);
    }
}

/// Takes large messages. QUIC's limit of concurrent streams bounds how many there are at once, and
/// each holds its place until its event is taken.
async fn accept_messages(
    connection: &Connection,
    session: &Session,
    events: &mpsc::Sender<Event>,
    max_message: usize,
) {
    while let Ok(stream) = connection.accept_uni().await {
        let events = events.clone();
        session.tasks.spawn("pcp-client-receive", async move {
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
}

/// Takes questions for files. Without the feature the stream limit is zero, so none can come.
async fn accept_queries(connection: &Connection, session: &Session, events: &mpsc::Sender<Event>) {
    while let Ok((send, receive)) = connection.accept_bi().await {
        let events = events.clone();
        session.tasks.spawn("pcp-client-query", async move {
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
}
