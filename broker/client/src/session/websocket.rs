//! A session over WebSocket: in one socket and in order, so that a large message holds up those behind
//! it. Against a broker of ours it carries the very frames of QUIC; against the original, PCP 2.
//!
//! While it lasts the client may find that QUIC gets through again. Nothing is lost when it moves: it
//! stops writing, and a ping that the broker answers shows that all before it has been taken; what the
//! broker had queued is still read, until the broker ends this session for the newer one.

mod read;
mod write;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use identity::Identity;
use pcp::websocket::{Opcode, close_payload, push_frame};
use pcp::{ClientSession, ClientType, FrameReader, Uri};
use rustls_pki_types::CertificateDer;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Around, End, FAREWELL, OtherWay, Outgoing, Ran, distrusted, overtime};
use crate::Event;
use crate::address::BrokerAddress;
use crate::config::ClientConfig;
use crate::content::Origin;
use crate::tcp::Stream;
use crate::transport::{IDLE_TIMEOUT, LINK_IDLE_TIMEOUT};
use crate::websocket::{WebSocketFault, WebSocketReader, WebSocketWriter, new_mask};

/// How many pings in a row a broker may leave without an answer, and without saying anything else.
const UNANSWERED: u32 = 3;

/// How long what is left of a session that we have moved away from may take.
const DRAIN: Duration = Duration::from_secs(10);

/// A WebSocket with an open session.
#[derive(Debug)]
pub(crate) struct WebSocketLine {
    pub(crate) reader: WebSocketReader<ReadHalf<Stream>>,
    pub(crate) writer: WebSocketWriter<WriteHalf<Stream>>,
    pub(crate) dialect: Dialect,
    /// By which the broker's certificate was verified.
    pub(crate) identity: Arc<Identity>,
    pub(crate) certificates: Arc<[CertificateDer<'static>]>,
    pub(crate) address: BrokerAddress,
}

/// What is spoken.
#[derive(Debug)]
pub(crate) enum Dialect {
    /// The frames of QUIC.
    Native {
        state: ClientSession,
        frames: FrameReader,
    },
    /// PCP 2.
    Two {
        own: Uri,
        broker: Uri,
        /// What came before the session was known to be open.
        early: VecDeque<Bytes>,
    },
}

/// What reading and writing tell each other.
#[derive(Debug)]
struct Shared {
    /// What the last ping said; one answer does for all that wait.
    pong: Mutex<Option<Bytes>>,
    /// There is a ping to answer.
    pinged: Notify,
    /// Pings of ours since anything was heard.
    unanswered: AtomicU32,
    /// The reader waits for somebody to take its events, and hears nothing meanwhile.
    deaf: AtomicBool,
    /// What the last ping before a move says.
    mark: [u8; 8],
    /// It was answered.
    marked: Notify,
}

impl Shared {
    fn new() -> Self {
        Self {
            pong: Mutex::default(),
            pinged: Notify::new(),
            unanswered: AtomicU32::new(0),
            deaf: AtomicBool::new(false),
            // Unlike that of an earlier attempt, whose answer may still come.
            mark: fastrand::u64(..).to_be_bytes(),
            marked: Notify::new(),
        }
    }

    fn heard(&self) {
        self.unanswered.store(0, Ordering::Relaxed);
    }

    /// Whether the broker has been silent for too long; counts one more ping if not.
    fn is_dead(&self) -> bool {
        if self.deaf.load(Ordering::Relaxed) {
            return false;
        }
        self.unanswered.fetch_add(1, Ordering::Relaxed) >= UNANSWERED
    }

    fn take_pong(&self) -> Option<Bytes> {
        self.pong().take()
    }

    /// Never held over an await; an option is whole at every step.
    fn pong(&self) -> std::sync::MutexGuard<'_, Option<Bytes>> {
        self.pong.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WebSocketLine {
    pub(crate) fn origin(&self, config: &ClientConfig) -> Origin {
        Origin {
            address: self.address.clone(),
            proxy: config.proxy.clone(),
            identity: Arc::clone(&config.identity),
        }
    }
}

/// Runs a session until it ends, or `better` gives a way over QUIC and all that was sent has arrived.
pub(super) async fn run<R: OtherWay>(
    mut line: Box<WebSocketLine>,
    outgoing: &mut Outgoing,
    around: &Around<'_>,
    better: impl Future<Output = R>,
) -> Ran<R> {
    let config = around.config;
    let shared = Shared::new();
    let leave = CancellationToken::new();
    let mut found: Option<R> = None;
    // As patient as over QUIC. TCP tells by itself of a broker that was started again.
    let silence = if config.client_type == ClientType::agent() {
        IDLE_TIMEOUT
    } else {
        LINK_IDLE_TIMEOUT
    };
    let end = {
        let WebSocketLine {
            reader,
            writer,
            dialect,
            identity,
            certificates,
            ..
        } = &mut *line;
        let native = matches!(dialect, Dialect::Native { .. });
        let writing = write::Writing {
            native,
            shared: &shared,
            leave: &leave,
            shutdown: around.shutdown,
            keep_alive: silence / UNANSWERED,
        };
        let mut reading = pin!(read::read(reader, dialect, &shared, around.events));
        let mut writing = pin!(writing.run(writer, &mut outgoing.queue));
        let mut better = pin!(better);
        let mut distrusted = pin!(distrusted(
            certificates,
            Arc::clone(identity),
            &config.identity
        ));
        loop {
            tokio::select! {
                biased;
                end = &mut reading => break Some(end),
                left = &mut writing => match left {
                    write::Left::Moving => break None,
                    write::Left::Staying => {
                        if let Some(reached) = found.take() {
                            reached.leave();
                        }
                        break None;
                    }
                    write::Left::Silent => {
                        break Some(End::Fault(WebSocketFault::Silent(silence)));
                    }
                    write::Left::Stuck(error) => {
                        // What the broker said before it hung up is the better reason.
                        let said = timeout(FAREWELL, &mut reading).await;
                        break Some(said.unwrap_or(End::Fault(WebSocketFault::Write(error))));
                    }
                    write::Left::Shutdown => {
                        // Closing a socket with unread bytes in it would take back our last words.
                        drop(timeout(FAREWELL, &mut reading).await);
                        break Some(End::Shutdown);
                    }
                },
                () = overtime(around.shutdown) => break Some(End::Shutdown),
                () = around.cut.cancelled() => break Some(End::Dropped),
                why = &mut distrusted => break Some(End::Distrusted(why)),
                () = around.events.closed() => break Some(End::Abandoned),
                reached = &mut better, if found.is_none() => {
                    found = Some(reached);
                    leave.cancel();
                }
            }
        }
    };
    let Some(end) = end else {
        return Ran::Better(line, found.map(Box::new));
    };
    if let Some(reached) = found {
        reached.leave();
    }
    outgoing.close();
    close(&mut line, &end).await;
    Ran::Ended(end)
}

/// Reads to the end what the broker had queued for us before it knew of our newer session.
pub(super) async fn drain(mut line: Box<WebSocketLine>, events: mpsc::Sender<Event>) {
    let shared = Shared::new();
    let reading = read::read(&mut line.reader, &mut line.dialect, &shared, &events);
    match timeout(DRAIN, reading).await {
        Ok(end) => tracing::debug!(?end, "the session that was left has ended"),
        Err(_) => tracing::debug!("the session that was left does not end, and is cut"),
    }
    line.writer.shutdown().await;
}

/// Says why, where the broker may want to know.
async fn close(line: &mut WebSocketLine, end: &End) {
    let (code, reason) = match end {
        End::Lost(_) | End::Fault(WebSocketFault::Misbehaved(_)) => (1002, "broken protocol"),
        End::Dropped | End::Abandoned => (1000, "reconnecting"),
        End::Distrusted(_) => (1000, "not trusted"),
        // Said already, or nobody is there to hear it.
        End::Shutdown | End::GoneHome | End::Goodbye(_) | End::Silent | End::Fault(_) => return,
    };
    let mut out = BytesMut::new();
    let payload = close_payload(code, reason);
    push_frame(&mut out, Opcode::Close, &[&payload], Some(new_mask()));
    let ending = async {
        drop(line.writer.write(&out).await);
        line.writer.shutdown().await;
    };
    drop(timeout(FAREWELL, ending).await);
}
