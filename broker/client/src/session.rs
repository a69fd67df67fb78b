//! An open session, from welcome to goodbye. What both ways have in common; [`quic`] and [`websocket`]
//! hold what differs.

mod quic;
mod websocket;

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::{Current, Distrust, Identity, PeerRole};
use pcp::{ClientEvent, Goodbye, GoodbyeCode};
use rustls_pki_types::CertificateDer;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::Event;
use crate::config::ClientConfig;
use crate::handle::{Queued, Session, Way};
use crate::stream::StreamError;
use crate::websocket::WebSocketFault;
pub(crate) use quic::QuicLine;
pub(crate) use websocket::{Dialect, WebSocketLine};

/// How many frames wait for the writer. At the inline limit this is 4 MiB; a link's snapshot of
/// 100,000 clients takes some 100 of them.
const SEND_QUEUE: usize = 256;

/// How many large messages may be on their way out at once.
const LARGE_SENDS: usize = 4;

/// How long the broker may take for one large message: 64 MiB at some 4 Mbit/s.
const LARGE_DEADLINE: Duration = Duration::from_secs(120);

/// How many bytes are collected for one write at most: enough to fill packets and to let the kernel
/// segment them.
const COALESCE: usize = 64 * 1024;

/// How long we wait at a shutdown until what was sent has arrived: less than a process takes to end.
const FAREWELL: Duration = Duration::from_secs(4);

/// How long a broker that has said that it goes may take to hear what we still have for it. It is there, and
/// listens for half of its `drain-time` (30 s): only a machine that is too busy takes more than moments.
const LAST_WORDS: Duration = Duration::from_secs(12);

/// How a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// We were shut down, and said goodbye.
    Shutdown,
    /// Nobody reads the events any more.
    Abandoned,
    /// The user of the client wants another session.
    Dropped,
    /// We have left for the first broker.
    GoneHome,
    /// The broker said goodbye.
    Goodbye(Goodbye),
    /// The connection was lost, or the broker broke the protocol.
    Lost(StreamError),
    /// The same over WebSocket.
    Fault(WebSocketFault),
    /// The broker ended the stream without a goodbye.
    Silent,
    /// The broker's certificate is not trusted any more.
    Distrusted(Distrust),
}

/// What came of running a session; `R` is the other way that it may end with.
pub(crate) enum Ran<R> {
    /// It is over.
    Ended(End),
    /// QUIC gets through again. All that was sent on this session has arrived; it is still open. Without
    /// a way, that could not be made sure of, and the session goes on.
    Better(Box<WebSocketLine>, Option<Box<R>>),
    /// It is over, since the first broker is back; all that was sent has arrived.
    GoneHome(Box<R>),
}

/// A way to go on that is found while a session runs.
pub(crate) trait OtherWay {
    /// It is not taken: leaves without a word.
    fn leave(self);
}

/// The connection of a session.
#[derive(Debug)]
pub(crate) enum Line {
    Quic(QuicLine),
    WebSocket(Box<WebSocketLine>),
}

/// What waits to be sent. It outlives a session when the client moves to a better way: then the next
/// session goes on with it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    sender: mpsc::Sender<Queued>,
    queue: mpsc::Receiver<Queued>,
    large: Arc<Semaphore>,
    tasks: daemon::Tasks,
}

/// What a session has around it.
pub(crate) struct Around<'a> {
    pub(crate) events: &'a mpsc::Sender<Event>,
    pub(crate) config: &'a ClientConfig,
    pub(crate) shutdown: &'a CancellationToken,
    /// Ends the session when the user of the client wants that.
    pub(crate) cut: &'a CancellationToken,
}

impl Outgoing {
    pub(crate) fn new(tasks: daemon::Tasks) -> Self {
        let (sender, queue) = mpsc::channel(SEND_QUEUE);
        Self {
            sender,
            queue,
            large: Arc::new(Semaphore::new(LARGE_SENDS)),
            tasks,
        }
    }

    /// What the handle needs to send on this session.
    pub(crate) fn session(
        &self,
        max_message: u64,
        line: &Line,
        config: &ClientConfig,
        cut: CancellationToken,
    ) -> Session {
        let theirs = usize::try_from(max_message).unwrap_or(usize::MAX);
        Session {
            outgoing: self.sender.clone(),
            large: Arc::clone(&self.large),
            max_message: theirs.min(config.max_message),
            cut,
            way: match line {
                Line::Quic(line) => Way::Quic(line.connection.clone()),
                Line::WebSocket(line) => Way::WebSocket(Arc::new(line.origin(config))),
            },
        }
    }

    /// Whoever sends from now on is told that there is no session.
    fn close(&mut self) {
        self.queue.close();
        self.large.close();
    }
}

/// Runs a session until it ends, or until `better` gives a way over QUIC: to this broker, or to the first
/// one.
pub(crate) async fn run<R: OtherWay>(
    line: Line,
    outgoing: &mut Outgoing,
    around: &Around<'_>,
    better: impl Future<Output = R>,
) -> Ran<R> {
    match line {
        Line::Quic(line) => quic::run(line, outgoing, around, better).await,
        // Boxed, so that sessions over QUIC do not keep its room.
        Line::WebSocket(line) => Box::pin(websocket::run(line, outgoing, around, better)).await,
    }
}

/// Reads what is left of a session whose client has moved: the broker ends it.
pub(crate) async fn drain(line: Box<WebSocketLine>, events: mpsc::Sender<Event>) {
    websocket::drain(line, events).await;
}

/// Ends some time after a shutdown, when the goodbye had its chance.
async fn overtime(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    sleep(FAREWELL).await;
}

/// Ends when our certificates were replaced and the broker is not trusted by the new ones.
async fn distrusted(
    chain: &[CertificateDer<'_>],
    by: Arc<Identity>,
    current: &Current,
) -> Distrust {
    let mut changes = current.changes();
    let mut identity = current.get();
    // It was verified by the one in use, unless that was replaced since.
    let mut verified = Arc::ptr_eq(&by, &identity);
    drop(by);
    loop {
        if !verified {
            let now = SystemTime::now();
            if let Err(why) = identity.recheck(chain, PeerRole::Server, now) {
                return why;
            }
        }
        drop(identity);
        identity = changes.next().await;
        verified = false;
    }
}

/// What a frame of an open session means to the reader of events.
fn event(event: ClientEvent) -> Option<Result<Event, End>> {
    Some(match event {
        ClientEvent::Message(message) => Ok(Event::Message(message)),
        ClientEvent::Link(frame) => Ok(Event::Link(frame)),
        ClientEvent::Goodbye(goodbye) => Err(End::Goodbye(goodbye)),
        // The state machine lets neither come twice.
        ClientEvent::Welcome(_) | ClientEvent::Retry(_) => return None,
    })
}

/// Our last frame.
fn farewell() -> Goodbye {
    Goodbye {
        code: GoodbyeCode::Normal,
        reason: "the client is shut down".to_owned(),
    }
}

/// Our last frame when we go to another broker: this one still says what it has for us, and then goodbye.
fn moving() -> Goodbye {
    Goodbye {
        code: GoodbyeCode::GoingAway,
        reason: "the client goes to another broker".to_owned(),
    }
}

/// For work that has failed in a way that other work tells better. It is waited for beside that, never in the
/// body of an arm, where it would hold up everything.
async fn never<T>() -> T {
    pending().await
}
